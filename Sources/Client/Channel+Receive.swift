import AMQP
import Base

// What the connection's thread does when something comes for a channel.

extension Channel {
  /// A message: a delivery, the answer to `get`, or one that was returned.
  func received(_ message: borrowing WireMessage) throws(ClientError) {
    let kind = message.kind
    if kind == .delivery {
      let tag = message.consumerTag
      let consumer = state.withLock { state in state.consumers.first { $0.isTagged(tag) } }
      // A consumer that has been cancelled: what it did not take goes back when the channel closes.
      guard let consumer else { return }
      consumer.deliver(
        Delivery(
          message: try consumer.memory.message(message), tag: message.deliveryTag,
          isRedelivered: message.isRedelivered, channel: self))
      return
    }
    let content = try MessageMemory().message(message)
    if kind == .answer {
      let delivery = Delivery(
        message: content, tag: message.deliveryTag, isRedelivered: message.isRedelivered,
        channel: self)
      answer(.message(delivery, remaining: Int(message.messageCount)))
    } else {
      returned(
        ReturnedMessage(
          message: content, code: message.replyCode,
          reason: Name(copying: message.replyText).description))
    }
  }

  func received(_ method: Method) {
    switch method {
    case .basicCancel(let cancel):
      let consumer = state.withLock { state in
        state.consumers.firstIndex { $0.tag == cancel.consumerTag }
          .map { state.consumers.remove(at: $0) }
      }
      consumer?.end(.consumerCancelled(cancel.consumerTag.description))
    case .channelFlow:
      break
    default:
      answer(.method(method))
    }
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool) {
    let waiters = state.withLock { state in
      state.confirms?.settle(tag: tag, isMultiple: isMultiple, isAccepted: isAccepted) ?? []
    }
    for waiter in waiters { waiter.finish(.success(())) }
  }

  /// The channel is no more: everybody who waits for something learns why.
  func end(_ error: ClientError) {
    var old = state.withLock { state in
      let old = state
      state = ChannelState()
      state.ended = error
      return old
    }
    let isIntended = error.isIntended
    for call in old.calls.takeAll() { call.finish(.failure(error)) }
    for waiter in old.confirms?.fail(error) ?? [] { waiter.finish(.failure(error)) }
    for consumer in old.consumers { consumer.end(isIntended ? nil : error) }
    for stream in old.returnStreams { stream.finish() }
    for waiter in old.endWaiters { waiter.finish(.success(())) }
    old.closeWaiter?.finish(isIntended ? .success(()) : .failure(error))
  }

  private func answer(_ reply: Reply) {
    let waiter = state.withLock { $0.calls.popFirst() }
    waiter?.finish(.success(reply))
  }

  private func returned(_ message: ReturnedMessage) {
    let streams = state.withLock { state in
      state.confirms?.returned(message)
      return state.returnStreams
    }
    for stream in streams { stream.yield(message) }
  }
}

extension ClientError {
  /// It is what remains after this side has closed a channel or a connection.
  var isIntended: Bool { self == .channelNotOpen || self == .notConnected }
}

/// Remembers what the last message of a consumer had, since the next most often has the same: then
/// nothing is decoded or allocated anew. Only the connection's thread uses it.
final class MessageMemory {
  private var exchange: Name = ""
  private var routingKey: Name = ""
  private var propertyBytes: [UInt8] = []
  private var properties = BasicProperties()

  func message(_ wire: borrowing WireMessage) throws(ClientError) -> Message {
    if !wire.exchange.equals(exchange.bytes) { exchange = Name(copying: wire.exchange) }
    if !wire.routingKey.equals(routingKey.bytes) { routingKey = Name(copying: wire.routingKey) }
    if !wire.properties.equals(propertyBytes) {
      propertyBytes = wire.properties.withUnsafeBytes { Array($0) }
      properties = try Self.decode(wire.properties)
    }
    return Message(
      exchange: exchange, routingKey: routingKey, properties: properties,
      body: wire.body.withUnsafeBytes { Array($0) })
  }

  private static func decode(_ bytes: RawSpan) throws(ClientError) -> BasicProperties {
    var reader = ByteReader(bytes)
    do {
      return try BasicProperties(from: &reader)
    } catch {
      throw .protocolViolation("the properties of a message: \(error.reason)")
    }
  }
}

extension RawSpan {
  func equals(_ bytes: [UInt8]) -> Bool {
    byteCount == bytes.count && withUnsafeBytes { $0.elementsEqual(bytes) }
  }
}
