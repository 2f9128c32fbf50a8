import Base

/// The bytes of a record; `Specs/Journal.md` has the picture.
public enum Record {
  public static let headerSize = 16
  public static let alignment = 8

  /// The broker's kinds begin here; `Specs/Tables/records.txt` has them all.
  public static let brokerKinds: UInt8 = 16
  /// The bit of a kind that those who do not know it may pass over.
  public static let ignorable: UInt8 = 128

  /// No record is larger: a message is not, with all that belongs to it.
  public static let sizeMax = 1 << 30

  /// Less than this has what is declared, with its names and its table.
  public static let catalogSizeMax = 1 << 24

  static let sizeOffset = 0
  package static let checksumOffset = 4
  package static let kindOffset = 8
  static let flagsOffset = 9
  static let countOffset = 10
  static let wordOffset = 12

  /// What is stored in the file for a record of `size` bytes.
  @inline(__always)
  public static func padded(_ size: Int) -> Int {
    (size &+ 7) & ~7
  }

  private static let epochFactor: UInt32 = 0x85EB_CA77
  /// `epochFactor` times this is 1.
  private static let epochFactorInverse: UInt32 = 0xB6C9_2F47

  static func seed(position: Int, epoch: UInt64) -> UInt32 {
    let low = UInt32(truncatingIfNeeded: position)
    let high = UInt32(truncatingIfNeeded: position >> 32)
    return low ^ (high &* 0x9E37_79B1) ^ (UInt32(truncatingIfNeeded: epoch) &* epochFactor)
  }

  /// The bytes that the checksum of the record at `base` covers; `size` has been checked.
  static func covered(_ base: UnsafeRawPointer, size: Int) -> UnsafeRawBufferPointer {
    guard size > 8 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    let end =
      base.load(fromByteOffset: kindOffset, as: UInt8.self) == OwnRecord.Kind.pad.rawValue
      ? 16 : size
    return UnsafeRawBufferPointer(start: base + 8, count: end - 8)
  }

  package static func checksum(
    _ base: UnsafeRawPointer, size: Int, position: Int, epoch: UInt64
  ) -> UInt32 {
    CRC32C.checksum(covered(base, size: size), seed: seed(position: position, epoch: epoch))
  }

  /// The one epoch, its lower half, in which the checksum of the record at `base` is right; its size has
  /// been checked. The checksum says the seed, and the seed the epoch.
  static func epoch(_ base: UnsafeRawPointer, size: Int, position: Int) -> UInt32 {
    let sum = base.load(fromByteOffset: checksumOffset, as: UInt32.self)
    let own = CRC32C.seed(covered(base, size: size), checksum: sum)
    return (own ^ seed(position: position, epoch: 0)) &* epochFactorInverse
  }

  /// Whether the checksum of the record at `base` is right; its size has been checked.
  static func isValid(
    _ base: UnsafeRawPointer, _ size: Int, position: Int, epoch: UInt32
  ) -> Bool {
    let sum = base.load(fromByteOffset: checksumOffset, as: UInt32.self)
    return sum == checksum(base, size: size, position: position, epoch: UInt64(epoch))
  }

  /// Writes the header of a record, all but the checksum.
  @inline(__always)
  package static func writeHeader(
    _ base: UnsafeMutableRawPointer, size: Int, kind: UInt8, flags: UInt8, count: UInt16,
    word: UInt32
  ) {
    base.storeBytes(of: UInt64(UInt32(truncatingIfNeeded: size)), as: UInt64.self)
    let rest =
      UInt64(kind) | UInt64(flags) << 8 | UInt64(count) << 16 | UInt64(word) << 32
    base.storeBytes(of: rest, toByteOffset: 8, as: UInt64.self)
  }

  /// Writes a pad over `size` bytes, a multiple of 8; one of 8 bytes is a size and a checksum alone. Its word
  /// is the size again, which the checksum does not cover: a wrong one would hide the records behind it.
  static func writePad(_ base: UnsafeMutableRawPointer, size: Int) {
    if size == 8 {
      base.storeBytes(of: 8, as: UInt64.self)
    } else {
      writeHeader(
        base, size: size, kind: OwnRecord.Kind.pad.rawValue, flags: 0, count: 0,
        word: UInt32(truncatingIfNeeded: size))
    }
  }
}

/// A record as a reader sees it; its pointer is valid only while it is being looked at.
public struct RecordView {
  /// Where the record stands in the log.
  public let position: Int
  /// The record's first byte.
  public let base: UnsafeRawPointer
  /// With the header, without padding.
  public let size: Int

  public init(position: Int, base: UnsafeRawPointer, size: Int) {
    self.position = position
    self.base = base
    self.size = size
  }

  public var kind: UInt8 {
    size > 8
      ? base.load(fromByteOffset: Record.kindOffset, as: UInt8.self) : OwnRecord.Kind.pad.rawValue
  }
  /// A record of the journal itself has the size that its kind has, or that it says.
  var hasOwnSize: Bool {
    guard let own = OwnRecord.Kind(rawValue: kind) else { return true }
    if own == .pad { return size == 8 || Int(word) == size }
    return own.isPlausible(self)
  }
  /// Where the group begins that this record ends; nil if it ends none.
  package var endedGroup: Int? {
    guard OwnRecord.Kind(rawValue: kind) == .groupEnd else { return nil }
    return Int(truncatingIfNeeded: u64(at: GroupEndRecord.beginOffset))
  }
  public var flags: UInt8 { base.load(fromByteOffset: Record.flagsOffset, as: UInt8.self) }
  public var count: UInt16 { base.load(fromByteOffset: Record.countOffset, as: UInt16.self) }
  public var word: UInt32 { base.load(fromByteOffset: Record.wordOffset, as: UInt32.self) }
  public var payload: UnsafeRawBufferPointer {
    let start = min(Record.headerSize, size)
    return UnsafeRawBufferPointer(start: base + start, count: size - start)
  }
}
