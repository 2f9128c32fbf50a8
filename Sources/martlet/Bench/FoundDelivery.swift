import AMQP

/// A delivery on the bench's channel whose three frames (or two, without a body) lie whole in the
/// receive buffer: the case for which a load generator must be fast. Whatever looks different is
/// left to the client's parser, which says what is wrong with it, if anything is.
///
///     0  type 1, channel (u16), size (u32)
///     7  class 60 (u16), method 60 (u16), consumer tag (u8 length, bytes), delivery tag (u64), ...
///     m  type 2, channel (u16), size (u32), class (u16), weight (u16), body size (u64), ...
///     h  type 3, channel (u16), size (u32), body, end
struct FoundDelivery {
  let deliveryTag: UInt64
  let consumerTagStart: Int
  let consumerTagSize: Int
  let bodyStart: Int
  let bodySize: Int
  /// The first byte behind the delivery.
  let end: Int

  /// The first three bytes of the frames.
  private static let methodStart = UInt64(Frame.method) << 16 | UInt64(BenchConsumer.channel)
  private static let headerStart = UInt64(Frame.header) << 16 | UInt64(BenchConsumer.channel)
  private static let bodyStart = UInt64(Frame.body) << 16 | UInt64(BenchConsumer.channel)
  private static let deliverID: UInt32 = 60 << 16 | 60
  /// A method frame without names, and a header frame without properties.
  private static let methodSizeMin = 24
  private static let headerSizeMin = 22

  /// What begins at `start`; nil if it is anything else, or not whole. Every load is checked by the
  /// span, and the sizes are 32 bits wide: no sum overflows.
  @inline(__always)
  init?(_ bytes: RawSpan, at start: Int) {
    guard bytes.byteCount &- start >= Self.methodSizeMin &+ Self.headerSizeMin else { return nil }
    let method = bytes.word(at: start)
    let methodEnd = start &+ Frame.headerSize &+ Int((method >> 8) & 0xFFFF_FFFF)
    guard method >> 40 == Self.methodStart, bytes.half(at: start &+ 7) == Self.deliverID,
      methodEnd &+ 1 &+ Self.headerSizeMin <= bytes.byteCount,
      bytes.byte(at: methodEnd) == Frame.end
    else { return nil }
    consumerTagStart = start &+ 12
    consumerTagSize = Int(bytes.byte(at: start &+ 11))
    guard consumerTagStart &+ consumerTagSize &+ 9 <= methodEnd else { return nil }
    deliveryTag = bytes.word(at: consumerTagStart &+ consumerTagSize)
    let header = bytes.word(at: methodEnd &+ 1)
    let headerEnd = methodEnd &+ 1 &+ Frame.headerSize &+ Int((header >> 8) & 0xFFFF_FFFF)
    let size = bytes.word(at: methodEnd &+ 1 &+ 11)
    guard header >> 40 == Self.headerStart, headerEnd < bytes.byteCount,
      bytes.byte(at: headerEnd) == Frame.end
    else { return nil }
    if size == 0 {
      bodySize = 0
      bodyStart = headerEnd &+ 1
      end = headerEnd &+ 1
      return
    }
    bodyStart = headerEnd &+ 1 &+ Frame.headerSize
    guard bodyStart &+ 1 < bytes.byteCount else { return nil }
    let body = bytes.word(at: headerEnd &+ 1)
    bodySize = Int((body >> 8) & 0xFFFF_FFFF)
    end = bodyStart &+ bodySize &+ 1
    guard body >> 40 == Self.bodyStart, UInt64(bodySize) == size, end <= bytes.byteCount,
      bytes.byte(at: end &- 1) == Frame.end
    else { return nil }
  }
}

extension RawSpan {
  @inline(__always)
  func byte(at offset: Int) -> UInt8 {
    unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  /// Four bytes, the first the highest.
  @inline(__always)
  func half(at offset: Int) -> UInt32 {
    UInt32(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// Eight bytes, the first the highest.
  @inline(__always)
  func word(at offset: Int) -> UInt64 {
    UInt64(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}
