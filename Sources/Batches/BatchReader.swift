import Base

/// The first part of a batch; see `BatchWriter`.
public struct BatchHeader {
  public static let size = 61
  /// From the beginning to the end, with what is before its length.
  public let byteCount: Int
  public let baseOffset: UInt64
  public let lastOffset: UInt64
  public let recordCount: Int
  public let baseTime: Int64
  public let timeMax: Int64
  private let attributes: Int16

  /// nil if this is no beginning of a batch of this format, or one that is not plausible.
  public init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.size, bytes[16] == 2 else { return nil }
    func load<Value: FixedWidthInteger>(_ place: Int, as type: Value.Type) -> Value {
      Value(bigEndian: bytes.loadUnaligned(fromByteOffset: place, as: Value.self))
    }
    let length = Int(load(8, as: Int32.self))
    let delta = load(23, as: Int32.self)
    let count = load(57, as: Int32.self)
    baseOffset = load(0, as: UInt64.self)
    guard length >= Self.size - 12, delta >= 0, count >= 1, baseOffset < 1 << 55 else { return nil }
    byteCount = length + 12
    lastOffset = baseOffset + UInt64(delta)
    recordCount = Int(count)
    baseTime = load(27, as: Int64.self)
    timeMax = load(35, as: Int64.self)
    attributes = load(21, as: Int16.self)
  }

  /// What its records are compressed with; 0 is nothing.
  public var codec: Int16 { attributes & 7 }

  /// Whether so many records can stand in it, which is not compressed.
  public var isPlausible: Bool { recordCount <= (byteCount - Self.size) / Self.recordBytesMin }

  /// Length, attributes, time, offset, lengths of key and value, and number of headers.
  private static let recordBytesMin = 7

  /// Whether a whole batch is what was written.
  public static func isSound(_ batch: UnsafeRawBufferPointer) -> Bool {
    guard batch.count >= size else { return false }
    let sum = UInt32(bigEndian: batch.loadUnaligned(fromByteOffset: 17, as: UInt32.self))
    return sum == CRC32C.checksum(UnsafeRawBufferPointer(rebasing: batch[21...]))
  }
}

/// A record of a batch; valid as long as the batch's bytes are.
public struct StoredRecord {
  public let offset: UInt64
  public let time: Int64
  public let key: UnsafeRawBufferPointer?
  public let value: UnsafeRawBufferPointer?
  /// What follows the number of headers.
  fileprivate let headers: UnsafeRawBufferPointer
  public let headerCount: Int

  /// The first header, if there is one.
  public var firstHeader: (key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?)? {
    guard headerCount > 0 else { return nil }
    var reader = RecordReader(headers)
    guard let key = reader.nullable() ?? nil, let value = reader.nullable() else { return nil }
    return (key, value)
  }
}

/// Goes over the records of a batch that is not compressed.
public struct BatchReader: Sequence, IteratorProtocol {
  private let header: BatchHeader
  private var reader: RecordReader
  private var left: Int

  /// `batch` is whole, and its header was read.
  public init(_ batch: UnsafeRawBufferPointer, _ header: BatchHeader) {
    self.header = header
    left = header.recordCount
    reader = RecordReader(UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...]))
  }

  /// nil behind the last record, and at one that is malformed.
  public mutating func next() -> StoredRecord? {
    guard left > 0, let size = reader.number(), let body = reader.take(size) else { return nil }
    left -= 1
    var record = RecordReader(body)
    guard record.take(1) != nil, let time = record.number(), let offset = record.number(),
      offset >= 0, let key = record.nullable(), let value = record.nullable(),
      let count = record.number(), count >= 0
    else { return nil }
    return StoredRecord(
      offset: header.baseOffset + UInt64(offset), time: header.baseTime &+ Int64(time), key: key,
      value: value, headers: record.rest, headerCount: count)
  }
}

/// Reads what records are made of.
private struct RecordReader {
  private let bytes: UnsafeRawBufferPointer
  private var place = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  var rest: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[place...]) }

  mutating func number() -> Int? {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while place < bytes.count, shift < 64 {
      let byte = bytes[place]
      place += 1
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return Int(truncatingIfNeeded: value >> 1) ^ -Int(value & 1) }
      shift += 7
    }
    return nil
  }

  mutating func take(_ count: Int) -> UnsafeRawBufferPointer? {
    guard count >= 0, count <= bytes.count - place else { return nil }
    defer { place += count }
    return UnsafeRawBufferPointer(rebasing: bytes[place..<place + count])
  }

  /// Bytes with their number in front, of which -1 is none at all; nil if they are malformed.
  mutating func nullable() -> UnsafeRawBufferPointer?? {
    guard let count = number() else { return nil }
    guard count >= 0 else { return .some(nil) }
    guard let found = take(count) else { return nil }
    return .some(found)
  }
}
