import AMQP
import Base
import Client

/// Whole publish frames of many messages, one behind the other, encoded once: a ring of slots in
/// which only a number and a time change between one use and the next.
///
///     slot:  basic.publish frame | header frame | body frame(s)
///     body:  publisher (u16), sequence (u48) | nanoseconds of the monotonic clock, or 0 (u64) | x...
///
/// Message m goes into slot m modulo `slots` and to route m modulo the number of routes; its
/// sequence counts the publisher's messages to that route. A body under 8 bytes has neither number
/// nor time, one under 16 no time.
struct PublishTemplate {
  /// Bytes of one message with all its frames.
  let stride: Int
  let slots: Int
  let bodySize: Int
  /// Where the body begins in a slot.
  private let bodyOffset: Int
  private let routes: Int
  private let publisher: UInt64
  private(set) var bytes: [UInt8]

  /// What one write should have at least, where messages are small.
  private static let sizeTarget = 128 << 10

  init(_ routes: [BenchRoute], _ options: BenchOptions, publisher: Int, frameMax: Int) {
    var first = ByteBuffer()
    bodyOffset = Self.encode(routes[0], slot: 0, options, frameMax, into: &first)
    stride = first.count
    let cycles = max(1, Self.sizeTarget / (stride * routes.count))
    slots = cycles * routes.count
    bodySize = options.size
    self.routes = routes.count
    self.publisher = UInt64(publisher) << 48
    var encoded = ByteBuffer(capacity: slots * stride)
    for slot in 0..<slots {
      _ = Self.encode(routes[slot % routes.count], slot: slot, options, frameMax, into: &encoded)
    }
    bytes = Array(encoded.readable)
    invariant(bytes.count == slots * stride, "publish frames of different lengths")
  }

  /// Where messages `first` and on lie; together they must not go beyond the ring's end.
  func range(from first: Int, count: Int) -> Range<Int> {
    let start = first % slots * stride
    return start..<start + count * stride
  }

  /// How many messages from `first` on lie in one piece.
  func run(from first: Int) -> Int { slots - first % slots }

  /// Writes what the kernel takes of `range`; returns how many bytes that were.
  func write(
    _ range: Range<Int>, to connection: WireConnection
  ) throws(ClientError) -> Int {
    try connection.write(bytes.span.bytes.extracting(range))
  }

  /// Numbers `count` messages from `first` on. One of `stampEvery` gets a time: the first `stamp`,
  /// each message after it `step` nanoseconds more; the others get 0.
  mutating func number(
    from first: Int, count: Int, stamp: Int64, step: Int64, stampEvery: Int
  ) {
    guard bodySize >= 8 else { return }
    let (stride, routes, hasStamp) = (self.stride, self.routes, bodySize >= 16)
    var offset = first % slots * stride + bodyOffset
    var sequence = publisher | UInt64(first / routes)
    var route = first % routes
    var span = bytes.mutableSpan
    var room = span.mutableBytes
    for message in first..<first + count {
      room.storeBytes(of: sequence.bigEndian, toByteOffset: offset, as: UInt64.self)
      if hasStamp {
        let isStamped = message & (stampEvery - 1) == 0
        let time = isStamped ? UInt64(bitPattern: stamp + Int64(message - first) * step) : 0
        room.storeBytes(of: time.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
      }
      offset += stride
      route += 1
      if route == routes {
        route = 0
        sequence += 1
      }
    }
  }

  /// A prime, so that the delays of neighbours are far from each other.
  private static let delaySpread = 15_485_863

  private static func encode(
    _ route: BenchRoute, slot: Int, _ options: BenchOptions, _ frameMax: Int,
    into encoded: inout ByteBuffer
  ) -> Int {
    let start = encoded.count
    let publish = BasicPublish(
      exchange: route.exchange, routingKey: route.routingKey, mandatory: options.isMandatory)
    encoded.append(.basicPublish(publish), channel: BenchPublisher.channel)
    var properties = BasicProperties()
    properties.headers = route.headers
    if options.isPersistent { properties.deliveryMode = 2 }
    properties.priority = options.priorityMax.map { UInt8(slot % ($0 + 1)) }
    properties.expiration = options.expiration.map { Name("\($0)") }
    if options.delayMax > 0 {
      let delay = Int64(1 + slot * Self.delaySpread % options.delayMax)
      properties.headers = properties.headers ?? FieldTable()
      properties.headers?.entries.append(.init(name: "x-delay", value: .int64(delay)))
    }
    var block = ByteBuffer()
    properties.encode(into: &block)
    let headerSize = Frame.overhead + 12 + block.count
    let bodyOffset = encoded.count - start + headerSize + Frame.headerSize
    let body = [UInt8](repeating: UInt8(ascii: "x"), count: options.size)
    body.withUnsafeBytes { body in
      encoded.appendContent(
        channel: BenchPublisher.channel, properties: block.readable, body: body,
        frameMax: frameMax)
    }
    return bodyOffset
  }
}
