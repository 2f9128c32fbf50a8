/// A message as the broker hands it out.
public struct Message: Equatable, Sendable {
  /// The exchange it was published to; empty for the default one.
  public let exchange: Name
  /// The routing key it was published with.
  public let routingKey: Name
  public let properties: BasicProperties
  public let body: [UInt8]

  /// The body as text; nil if it is not UTF-8.
  public var text: String? { String(validating: body, as: UTF8.self) }
}

/// A message that a consumer or a `get` was given. Unless the consumer takes messages without
/// acknowledging them, it must be answered with `ack`, `nack` or `reject`, on the channel that it
/// came by; what is not answered goes back to its queue when the channel closes.
public struct Delivery: Sendable {
  public let message: Message
  /// Counts the deliveries of the channel, from 1.
  public let tag: UInt64
  /// It was delivered before, perhaps to somebody else, and not acknowledged.
  public let isRedelivered: Bool
  /// The channel it came by.
  public let channel: Channel

  public var body: [UInt8] { message.body }
  /// The body as text; nil if it is not UTF-8.
  public var text: String? { message.text }

  /// Tells the broker that the message is dealt with; with `multiple` also all unanswered ones that
  /// came before it by this channel.
  public func ack(multiple: Bool = false) throws(ClientError) {
    try channel.ack(tag, multiple: multiple)
  }

  /// Gives the message back, to be delivered again or, without `requeue`, to be dead-lettered or
  /// dropped; with `multiple` also all unanswered ones before it.
  public func nack(multiple: Bool = false, requeue: Bool = true) throws(ClientError) {
    try channel.nack(tag, multiple: multiple, requeue: requeue)
  }

  /// Refuses the message: it is dead-lettered or dropped, or with `requeue` delivered again.
  public func reject(requeue: Bool = false) throws(ClientError) {
    try channel.reject(tag, requeue: requeue)
  }
}

/// A mandatory message that no queue wanted.
public struct ReturnedMessage: Equatable, Sendable {
  public let message: Message
  /// AMQP's reply code, 312 for no route.
  public let code: UInt16
  /// The broker's own words.
  public let reason: String
}
