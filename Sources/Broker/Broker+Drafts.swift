import AMQP
import Base
import Journal

/// Messages with large bodies: what arrives of them is put together in the memory that is their block in the
/// end, so that storing them takes a turn no longer than storing small ones.
extension Broker {
  /// Takes a draft's memory for a message. Its head was made for these names and properties.
  func appendMessage(
    _ draft: RecordDraft, names: RawSpan, properties: RawSpan, destinations: Int, isDurable: Bool
  ) -> StoredMessage {
    invariant(
      draft.headSize == Channel.headSize(names, propertiesSize: properties.byteCount),
      "a body was put together behind a head of another size")
    let bodySize = draft.count
    let (location, payload) = journal.append(
      draft, isDurable: isDurable, kind: BrokerRecord.Kind.message.rawValue,
      word: UInt32(truncatingIfNeeded: bodySize), tailSize: destinations * MessagePlace.size)
    let body = writeHead(at: payload, names, properties, destinations)
    return StoredMessage(
      location: location, record: UnsafeRawPointer(payload - Record.headerSize),
      rest: body + bodySize)
  }

  /// The same as for a body that is copied.
  func store(
    _ draft: RecordDraft, names: RawSpan, properties: RawSpan, in route: Route, isDurable: Bool
  ) {
    let message = appendMessage(
      draft, names: names, properties: properties,
      destinations: isDurable ? route.durableCount : 0, isDurable: isDurable)
    enqueue(message, in: route, isDurable)
  }
}

extension Channel {
  /// Where the body of a message is to be put together that will be published here with these names and
  /// properties, when it is too large to be copied.
  public func draft(names: RawSpan, properties: RawSpan) -> RecordDraft {
    RecordDraft(
      broker.journal,
      headSize: Self.headSize(names, propertiesSize: storedSize(ofProperties: properties)))
  }

  /// Publishes a message with a draft that was made for it and has its whole body. The draft is empty then,
  /// or on its way into queues, or nobody was to have the message.
  public func publish(
    _ draft: RecordDraft, names: RawSpan, isMandatory: Bool, properties: RawSpan
  ) throws(BrokerError) {
    let body = draft.body
    if mode != .plain {
      if let transaction {
        return try add(names, isMandatory, properties, body.bytes, draft, to: transaction)
      }
      noteConfirm()
    }
    try publishChecked(names, isMandatory, properties, body.bytes, draft)
  }

  /// Bytes of a message's record between its header and its body.
  static func headSize(_ names: RawSpan, propertiesSize: Int) -> Int {
    MessageRecord.fixedBytes + names.byteCount + propertiesSize
  }

  /// Bytes of the properties as they will be stored: with the address of this channel's consumer in place of
  /// the pseudo reply queue, and without blind copies. What is wrong with them, publishing says.
  private func storedSize(ofProperties properties: RawSpan) -> Int {
    let block: PropertyBlock
    do throws(MalformedInput) {
      block = try PropertyBlock(properties)
    } catch {
      return properties.byteCount
    }
    var added = 0
    if let replies,
      DirectReplies.isQueueName(Name(copying: properties.extracting(block.replyTo)))
    {
      added = replies.address.bytes.count - block.replyTo.count
    }
    do throws(BrokerError) {
      let selected = try SenderSelection(
        in: properties.extracting(block.headers), keysMax: broker.limits.routingKeysMax)
      guard selected?.hasBlind == true else { return properties.byteCount + added }
      return SenderSelection.strippingBlind(from: properties).count + added
    } catch {
      return properties.byteCount
    }
  }

  /// A mandatory message that reaches no queue goes back out of the draft's memory, which is a block's for
  /// as long as that takes.
  func giveBack(_ draft: RecordDraft, names: RawSpan, properties: RawSpan) {
    let message = broker.appendMessage(
      draft, names: names, properties: properties, destinations: 0, isDurable: false)
    let block = message.location.block
    broker.journal.retain(block)
    let view = MessageView(message.record, in: block)
    let names = view.names
    let properties = view.properties(behind: names)
    outlet.returned(
      names: names, properties: properties, body: view.body(behind: properties), in: block,
      on: self)
    broker.journal.release(block)
  }
}
