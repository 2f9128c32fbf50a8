import Base

/// What the broker needs to know of a message's properties, found in the bytes without copying
/// them. Offsets count from the block's first byte, the flags.
public struct PropertyBlock: Equatable, Sendable {
  public var flags: PropertyFlags
  /// The headers table with its length; empty if there is none.
  public var headers: Range<Int> = 0..<0
  public var isPersistent = false
  public var priority: UInt8 = 0
  /// The value without its length byte, and so the next two.
  public var replyTo: Range<Int> = 0..<0
  public var expiration: Range<Int> = 0..<0
  public var userID: Range<Int> = 0..<0

  /// Walks the whole block, which must end where the span ends.
  public init(_ bytes: RawSpan) throws(MalformedInput) {
    var reader = ByteReader(bytes)
    flags = try PropertyFlags(from: &reader)
    if flags.contains(.contentType) { try Self.skipName(&reader) }
    if flags.contains(.contentEncoding) { try Self.skipName(&reader) }
    if flags.contains(.headers) {
      let start = reader.offset
      let size = Int(try reader.u32())
      _ = try reader.take(size)
      headers = start..<reader.offset
    }
    if flags.contains(.deliveryMode) { isPersistent = try reader.u8() == 2 }
    if flags.contains(.priority) { priority = try reader.u8() }
    if flags.contains(.correlationID) { try Self.skipName(&reader) }
    if flags.contains(.replyTo) { replyTo = try Self.takeName(&reader) }
    if flags.contains(.expiration) { expiration = try Self.takeName(&reader) }
    if flags.contains(.messageID) { try Self.skipName(&reader) }
    if flags.contains(.timestamp) { _ = try reader.take(8) }
    if flags.contains(.type) { try Self.skipName(&reader) }
    if flags.contains(.userID) { userID = try Self.takeName(&reader) }
    if flags.contains(.appID) { try Self.skipName(&reader) }
    if flags.contains(.clusterID) { try Self.skipName(&reader) }
    guard reader.isAtEnd else { throw .invalid("bytes behind the properties") }
  }

  @_lifetime(reader: copy reader)
  private static func takeName(_ reader: inout ByteReader) throws(MalformedInput) -> Range<Int> {
    let size = Int(try reader.u8())
    let start = try reader.take(size)
    return start..<start + size
  }

  @_lifetime(reader: copy reader)
  private static func skipName(_ reader: inout ByteReader) throws(MalformedInput) {
    _ = try takeName(&reader)
  }
}
