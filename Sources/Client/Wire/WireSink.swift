import AMQP

/// Takes what a connection receives, in the order in which it came. It may send on the connection,
/// but not receive from it.
public protocol WireSink: AnyObject {
  /// A message, borrowed from the receive buffer.
  func received(_ message: borrowing WireMessage)

  /// The broker has taken (`isAccepted`) or refused the message with number `tag` on the channel
  /// and, if `isMultiple`, all before it. `basic.ack` and `basic.nack`.
  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16)

  /// Any other method. The connection has already answered `channel.close` and `channel.flow`;
  /// `connection.close` never comes here, it is thrown.
  func received(_ method: Method, channel: UInt16)
}
