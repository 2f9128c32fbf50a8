import AMQP
import Base
import Journal

/// The consumer of direct replies: requests that name the pseudo queue as their reply-to carry the
/// address of this channel, and replies to it go straight to the consumer, through no queue.
struct DirectReplies {
  static let queueName = "amq.rabbitmq.reply-to"
  private static let prefix = Array((queueName + ".").utf8)

  let tag: Name
  /// What replies are published to.
  let address: Name
  let consumer: Consumer

  static func isQueueName(_ name: Name) -> Bool {
    name.bytes.elementsEqual(queueName.utf8)
  }

  static func isAddress(_ name: Name) -> Bool {
    name.bytes.starts(with: prefix)
  }

  /// The address that a publish to the default exchange has as its routing key; nil for any other.
  static func token(_ names: RawSpan) -> Name? {
    let (exchange, key) = RouteMemo.split(names)
    return exchange.isEmpty && isAddress(key) ? key : nil
  }

  /// The properties with another reply-to in the place `old`.
  static func rewrite(_ properties: RawSpan, _ old: Range<Int>, to address: Name) -> [UInt8] {
    properties.withUnsafeBytes { bytes in
      Array(bytes[..<(old.lowerBound - 1)]) + [UInt8(address.bytes.count)] + address.bytes
        + Array(bytes[old.upperBound...])
    }
  }
}

extension Channel {
  func startReplies(_ tag: Name, isAutomatic: Bool) throws(BrokerError) {
    guard isAutomatic else { throw .repliesNeedNoAcknowledgement }
    guard replies == nil else { throw .repliesAreConsumed }
    guard consumers[tag] == nil else { throw .consumerTagInUse(tag) }
    let address = broker.makeName(DirectReplies.queueName + ".")
    let consumer = Consumer(
      tag: tag, channel: self, queue: vhost.replyQueue, isAutomatic: true, isExclusive: false,
      priority: 0, arguments: FieldTable(), prefetch: 0)
    replies = DirectReplies(tag: tag, address: address, consumer: consumer)
    vhost.addReplyChannel(address, self)
  }

  func endReplies() {
    guard let replies else { return }
    vhost.removeReplyChannel(replies.address)
    self.replies = nil
  }

  /// Hands a reply to this channel's consumer. False if it is dropped, since nobody reads.
  /// The body is the draft's if there is one.
  func deliverReply(
    names: RawSpan, properties: RawSpan, body: RawSpan, _ draft: RecordDraft?
  ) -> Bool {
    let size = names.byteCount + properties.byteCount + body.byteCount
    guard let replies, peer.takesReply(bytes: size) else { return false }
    let message =
      if let draft {
        broker.appendMessage(
          draft, names: names, properties: properties, destinations: 0, isDurable: false)
      } else {
        broker.appendMessage(
          names: names, properties: properties, body: body, destinations: 0, isDurable: false)
      }
    broker.journal.retain(message.location.block)
    outlet.deliver(
      MessageView(message.record, in: message.location.block), to: replies.consumer, on: self,
      tag: takeTag(), isRedelivered: false)
    broker.journal.release(message.location.block)
    return true
  }
}
