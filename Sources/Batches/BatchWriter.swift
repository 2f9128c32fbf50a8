import Base

/// Makes RecordBatch v2, Kafka's format of records on disk and on the wire (KIP-98; the record format of Kafka's
/// documentation). Not compressed.
///
///     0  base offset          i64
///     8  batch length         i32, of what follows
///     12 leader epoch         i32
///     16 magic                i8, 2
///     17 CRC-32C              u32, of all that follows
///     21 attributes           i16
///     23 last offset delta    i32
///     27 base timestamp       i64, milliseconds
///     35 max timestamp        i64
///     43 producer id          i64, -1
///     51 producer epoch       i16, -1
///     53 base sequence        i32, -1
///     57 record count         i32
///     61 records
///
/// All big-endian. A record is: varint length, i8 attributes, varint timestamp delta, varint offset delta, varint
/// key length (-1: none) and key, varint value length and value, varint header count, and of each header varint
/// key length and key, varint value length (-1: none) and value. Varints are zig-zag.
public struct BatchWriter {
  public private(set) var bytes: [UInt8] = []
  public private(set) var count = 0
  public let baseOffset: UInt64
  private var baseTime: Int64 = 0
  public private(set) var timeMax = Int64.min

  public init(baseOffset: UInt64) { self.baseOffset = baseOffset }

  /// Begins a record of which all parts are known; then `header` is called so many times.
  public mutating func append(
    time: Int64, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer, headerCount: Int,
    headerBytes: Int
  ) {
    if count == 0 {
      bytes.reserveCapacity(96 << 10)
      bytes.append(contentsOf: repeatElement(0, count: BatchHeader.size))
      baseTime = time
    }
    timeMax = max(timeMax, time)
    let timeDelta = time - baseTime
    let keySize = key.map { Varint.size($0.count) + $0.count } ?? 1
    let size =
      1 + Varint.size(Int(timeDelta)) + Varint.size(count) + keySize + Varint.size(value.count)
      + value.count + Varint.size(headerCount) + headerBytes
    Varint.append(size, to: &bytes)
    bytes.append(0)
    Varint.append(Int(timeDelta), to: &bytes)
    Varint.append(count, to: &bytes)
    if let key {
      Varint.append(key.count, to: &bytes)
      bytes.append(contentsOf: key)
    } else {
      Varint.append(-1, to: &bytes)
    }
    Varint.append(value.count, to: &bytes)
    bytes.append(contentsOf: value)
    Varint.append(headerCount, to: &bytes)
    count += 1
  }

  /// Bytes of a header with a value of so many bytes.
  public static func headerSize(_ key: StaticString, valueSize: Int) -> Int {
    let count = key.utf8CodeUnitCount
    return Varint.size(count) + count + Varint.size(valueSize) + valueSize
  }

  /// The next header of the record; its value follows by `append(value:)`, `size` bytes in all.
  public mutating func header(_ key: StaticString, valueSize size: Int) {
    Varint.append(key.utf8CodeUnitCount, to: &bytes)
    bytes.append(
      contentsOf: UnsafeBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount))
    Varint.append(size, to: &bytes)
  }

  public mutating func append(value part: UnsafeRawBufferPointer) {
    bytes.append(contentsOf: part)
  }

  public mutating func append(value byte: UInt8) { bytes.append(byte) }

  /// The batch, whole.
  public consuming func finish() -> [UInt8] {
    let (total, records, times) = (bytes.count, count, (baseTime, timeMax))
    let offset = baseOffset
    bytes.withUnsafeMutableBytes { bytes in
      func store<Value: FixedWidthInteger>(_ value: Value, at place: Int) {
        bytes.storeBytes(of: value.bigEndian, toByteOffset: place, as: Value.self)
      }
      store(offset, at: 0)
      store(Int32(total - 12), at: 8)
      store(Int32(0), at: 12)
      store(Int8(2), at: 16)
      store(Int16(0), at: 21)
      store(Int32(records - 1), at: 23)
      store(times.0, at: 27)
      store(times.1, at: 35)
      store(Int64(-1), at: 43)
      store(Int16(-1), at: 51)
      store(Int32(-1), at: 53)
      store(Int32(records), at: 57)
      let sum = CRC32C.checksum(
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[21...]))
      store(sum, at: 17)
    }
    return bytes
  }
}

/// Zig-zag numbers of seven bits a byte, the lowest first.
enum Varint {
  static func size(_ value: Int) -> Int {
    let bits = 64 - zigzag(value).leadingZeroBitCount
    return max(1, (bits + 6) / 7)
  }

  static func append(_ value: Int, to bytes: inout [UInt8]) {
    var left = zigzag(value)
    while left >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: left) | 0x80)
      left >>= 7
    }
    bytes.append(UInt8(truncatingIfNeeded: left))
  }

  private static func zigzag(_ value: Int) -> UInt64 {
    UInt64(bitPattern: Int64(value << 1) ^ Int64(value >> 63))
  }
}
