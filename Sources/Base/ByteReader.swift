/// Bytes that a peer or a disk gave us do not have the form they should have.
public enum MalformedInput: Error, Equatable, Sendable {
  /// The bytes end before the value does.
  case truncated
  /// The bytes have a form that no value has; the text says which, for the peer and the log.
  case invalid(String)

  public var reason: String {
    switch self {
    case .truncated: "the bytes end too early"
    case .invalid(let reason): reason
    }
  }
}

/// Reads big-endian values from the front of a span; every read is checked against its end.
public struct ByteReader: ~Escapable {
  @usableFromInline let bytes: RawSpan
  /// Bytes read so far.
  public private(set) var offset = 0

  @inlinable
  @_lifetime(copy bytes)
  public init(_ bytes: RawSpan) {
    self.bytes = bytes
  }

  @inlinable public var remaining: Int { bytes.byteCount - offset }
  @inlinable public var isAtEnd: Bool { offset == bytes.byteCount }

  @inlinable
  @_lifetime(self: copy self)
  public mutating func take(_ count: Int) throws(MalformedInput) -> Int {
    guard count >= 0, count <= remaining else { throw .truncated }
    let start = offset
    advance(count)
    return start
  }

  @usableFromInline
  @inline(__always)
  @_lifetime(self: copy self)
  mutating func advance(_ count: Int) {
    offset += count
  }

  @inlinable
  @_lifetime(self: copy self)
  public mutating func u8() throws(MalformedInput) -> UInt8 {
    bytes.unsafeLoad(fromByteOffset: try take(1), as: UInt8.self)
  }

  @inlinable
  @_lifetime(self: copy self)
  public mutating func u16() throws(MalformedInput) -> UInt16 {
    UInt16(bigEndian: bytes.unsafeLoadUnaligned(fromByteOffset: try take(2), as: UInt16.self))
  }

  @inlinable
  @_lifetime(self: copy self)
  public mutating func u32() throws(MalformedInput) -> UInt32 {
    UInt32(bigEndian: bytes.unsafeLoadUnaligned(fromByteOffset: try take(4), as: UInt32.self))
  }

  @inlinable
  @_lifetime(self: copy self)
  public mutating func u64() throws(MalformedInput) -> UInt64 {
    UInt64(bigEndian: bytes.unsafeLoadUnaligned(fromByteOffset: try take(8), as: UInt64.self))
  }

  /// The next `count` bytes, copied out.
  @_lifetime(self: copy self)
  public mutating func array(_ count: Int) throws(MalformedInput) -> [UInt8] {
    let start = try take(count)
    return bytes.extracting(start..<start + count).withUnsafeBytes { Array($0) }
  }

  /// A one-byte length and that many bytes: AMQP's short string.
  @_lifetime(self: copy self)
  public mutating func name() throws(MalformedInput) -> Name {
    let count = Int(try u8())
    return Name(try array(count))
  }

  /// A four-byte length and that many bytes: AMQP's long string.
  @_lifetime(self: copy self)
  public mutating func longBytes() throws(MalformedInput) -> [UInt8] {
    let count = Int(try u32())
    return try array(count)
  }

  /// All that is left, without reading it.
  @_lifetime(copy self)
  public borrowing func rest() -> RawSpan {
    bytes.extracting(offset..<bytes.byteCount)
  }
}
