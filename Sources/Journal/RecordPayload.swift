import Base

/// Goes over a record's payload from its front; every step is checked against the record's end. The
/// generated structs of `Generated/Records.swift` look at all lengths with it once, and read without it.
public struct PayloadWalk {
  public let record: RecordView
  /// Of what comes next, from the record's first byte on.
  @usableFromInline var place = Record.headerSize

  @inlinable
  public init(_ record: RecordView) {
    self.record = record
  }

  @inlinable public var offset: Int { place }
  @inlinable public var isAtEnd: Bool { place == record.size }

  @inlinable
  public mutating func skip(_ count: Int) throws(MalformedInput) {
    guard count >= 0, count <= record.size - place else { throw .truncated }
    place += count
  }

  /// A byte of length and so many bytes.
  @inlinable
  public mutating func skipName() throws(MalformedInput) {
    guard place < record.size else { throw .truncated }
    try skip(1 + Int(record.base.load(fromByteOffset: place, as: UInt8.self)))
  }

  /// Items of `size` bytes up to the end.
  public mutating func skipItems(of size: Int) throws(MalformedInput) {
    guard (record.size - place) % size == 0 else { throw .truncated }
    place = record.size
  }

  @inlinable
  public func end() throws(MalformedInput) {
    if place < record.size { throw .invalid("bytes stand behind its last field") }
    if place > record.size { throw .truncated }
  }
}

/// Fields of a record of which the length was looked at before; offsets are from its first byte on.
extension RecordView {
  @inlinable
  public func u32(at offset: Int) -> UInt32 {
    base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
  }

  @inlinable
  public func u64(at offset: Int) -> UInt64 {
    base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
  }

  @inlinable
  public func bytes(at offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: base + offset, count: count)
  }

  public func name(at offset: Int) -> Name {
    Name(Array(bytes(at: offset + 1, Int(base.load(fromByteOffset: offset, as: UInt8.self)))))
  }

  /// A version that does not know its kind may go on without it.
  @inlinable public var isIgnorable: Bool { kind & Record.ignorable != 0 }
}

/// Why a record cannot be understood although its checksum is right.
public enum RecordProblem: Error, Equatable, CustomStringConvertible {
  case unknownKind(UInt8)
  case unknownFlags(UInt8, kind: UInt8)
  /// Of a role or a priority that nobody here has.
  case unknownLane(String)
  case malformed(kind: UInt8, String)

  /// What only a newer version knows; nil for a record that no version has.
  public var newer: String? {
    switch self {
    case .unknownKind(let kind): "a record of kind \(kind)"
    case .unknownFlags(let flags, let kind): "a record of kind \(kind) with flags \(flags)"
    case .unknownLane(let what): "a lane of \(what)"
    case .malformed: nil
    }
  }

  public var description: String {
    switch self {
    case .unknownKind, .unknownFlags, .unknownLane:
      "\(newer ?? ""), which only a newer version knows"
    case .malformed(let kind, let reason): "a record of kind \(kind) without its form: \(reason)"
    }
  }

  /// The same as the failure of a start.
  public func error(at position: Int) -> JournalError {
    if let newer { return .unknown(newer, position: position) }
    return .inconsistent("log position \(position) has \(self)")
  }
}
