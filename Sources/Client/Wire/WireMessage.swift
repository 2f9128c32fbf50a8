import AMQP
import Base

/// A message as it stands in the receive buffer, with the arguments of the method that carries it.
/// Valid only during the call that hands it over: whoever wants to keep something copies it.
public struct WireMessage: ~Escapable {
  public enum Kind: Equatable, Sendable {
    /// `basic.deliver`, for a consumer.
    case delivery
    /// `basic.get-ok`, the answer to `basic.get`.
    case answer
    /// `basic.return`: what was published as mandatory and found no queue.
    case returned
  }

  public let kind: Kind
  public let channel: UInt16
  /// 0 for a returned message.
  public let deliveryTag: UInt64
  public let isRedelivered: Bool
  /// Only a delivery has one.
  public let consumerTag: RawSpan
  /// Why a message was returned; 0 and empty for the others.
  public let replyCode: UInt16
  public let replyText: RawSpan
  public let exchange: RawSpan
  public let routingKey: RawSpan
  /// Messages that remain in the queue, if this answers a `basic.get`.
  public let messageCount: UInt32
  /// The property flags and the values behind them; `BasicProperties` decodes them.
  public let properties: RawSpan
  public let body: RawSpan

  /// `arguments` are those of the method, without its id.
  @_lifetime(copy arguments, copy properties, copy body)
  init(
    _ kind: Kind, channel: UInt16, arguments: RawSpan, properties: RawSpan, body: RawSpan
  ) throws(MalformedInput) {
    var reader = ByteReader(arguments)
    let empty = arguments.extracting(0..<0)
    self.kind = kind
    self.channel = channel
    self.properties = properties
    self.body = body
    switch kind {
    case .delivery:
      consumerTag = arguments.extracting(try Self.takeName(&reader))
      deliveryTag = try reader.u64()
      isRedelivered = try reader.u8() & 1 != 0
      replyCode = 0
      replyText = empty
    case .answer:
      consumerTag = empty
      deliveryTag = try reader.u64()
      isRedelivered = try reader.u8() & 1 != 0
      replyCode = 0
      replyText = empty
    case .returned:
      consumerTag = empty
      deliveryTag = 0
      isRedelivered = false
      replyCode = try reader.u16()
      replyText = arguments.extracting(try Self.takeName(&reader))
    }
    exchange = arguments.extracting(try Self.takeName(&reader))
    routingKey = arguments.extracting(try Self.takeName(&reader))
    messageCount = kind == .answer ? try reader.u32() : 0
  }

  @_lifetime(reader: copy reader)
  private static func takeName(_ reader: inout ByteReader) throws(MalformedInput) -> Range<Int> {
    let size = Int(try reader.u8())
    let start = try reader.take(size)
    return start..<start + size
  }
}

extension WireMessage.Kind {
  /// The kind of message that method `id` carries; nil if it carries none.
  init?(_ id: MethodID) {
    switch id {
    case BasicDeliver.id: self = .delivery
    case BasicGetOk.id: self = .answer
    case BasicReturn.id: self = .returned
    default: return nil
    }
  }
}
