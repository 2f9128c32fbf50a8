import Base

/// A message of a lane: its sequence and flags as the broker packs them, and where it stands.
public struct LaneEntry: BitwiseCopyable, Sendable {
  /// The sequence in the upper 56 bits, the flags in the lower 8.
  public let packed: UInt64
  public let location: RecordLocation

  @inline(__always)
  public init(packed: UInt64, location: RecordLocation) {
    self.packed = packed
    self.location = location
  }

  public var sequence: UInt64 { packed >> 8 }
  public var isDurable: Bool { packed & 1 != 0 }
}

/// A block of a lane file as its table has it.
public struct LaneBlock: Equatable, Sendable {
  public let file: UInt32
  public let offset: Int
  public let size: Int
  public let lane: UInt32
  public let first: UInt64
  public let last: UInt64
  public let count: Int
  public let durableCount: Int
  /// None of its messages expires before, in wall-clock milliseconds.
  public let earliestExpiry: UInt64
  /// Bytes of the bodies of its durable messages (`LaneRecords.bodySize`).
  public let durableBytes: Int

  /// No message expires.
  public static let neverExpires = UInt64.max

  package init(
    file: UInt32, offset: Int, size: Int, lane: UInt32, first: UInt64, last: UInt64, count: Int,
    durableCount: Int, earliestExpiry: UInt64, durableBytes: Int
  ) {
    self.file = file
    self.offset = offset
    self.size = size
    self.lane = lane
    self.first = first
    self.last = last
    self.count = count
    self.durableCount = durableCount
    self.earliestExpiry = earliestExpiry
    self.durableBytes = durableBytes
  }
}

/// The bytes of a block of a lane file; `Specs/Journal.md` has the picture.
package enum LaneBlockFormat {
  package static let headerBytes = 32
  package static let indexBytes = 16

  package static func checksum(_ block: UnsafeRawBufferPointer, file: UInt32) -> UInt32 {
    CRC32C.checksum(UnsafeRawBufferPointer(rebasing: block[8...]), seed: file)
  }

  /// Whether the bytes are a whole block whose index leads only to what is in it.
  package static func isValid(_ block: UnsafeRawBufferPointer, file: UInt32) -> Bool {
    guard block.count >= headerBytes,
      Int(block.loadUnaligned(as: UInt32.self)) == block.count,
      block.loadUnaligned(fromByteOffset: 4, as: UInt32.self) == checksum(block, file: file)
        || Sabotage.is(.skipsBlockChecksum)
    else { return false }
    let count = self.count(block.baseAddress!)
    guard count <= (block.count - headerBytes) / indexBytes else { return false }
    return (0..<count).allSatisfy { index in
      let place = headerBytes + indexBytes * index
      let offset = Int(block.loadUnaligned(fromByteOffset: place + 8, as: UInt32.self))
      let size = Int(block.loadUnaligned(fromByteOffset: place + 12, as: UInt32.self))
      return offset >= headerBytes && size >= Record.headerSize && offset + size <= block.count
    }
  }

  /// What the table says of a valid block.
  package static func description(_ block: UnsafeRawBufferPointer, file: UInt32, offset: Int)
    -> LaneBlock
  {
    let base = block.baseAddress!
    let count = self.count(base)
    let durableCount = (0..<count).count { entry(base, $0).packed & 1 != 0 }
    return LaneBlock(
      file: file, offset: offset, size: block.count,
      lane: block.load(fromByteOffset: 8, as: UInt32.self),
      first: entry(base, 0).packed >> 8, last: entry(base, count - 1).packed >> 8, count: count,
      durableCount: durableCount, earliestExpiry: earliestExpiry(base),
      durableBytes: durableBytes(base))
  }

  package static func earliestExpiry(_ block: UnsafeRawPointer) -> UInt64 {
    block.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
  }

  package static func durableBytes(_ block: UnsafeRawPointer) -> Int {
    Int(truncatingIfNeeded: block.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
  }

  package static func count(_ block: UnsafeRawPointer) -> Int {
    Int(block.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
  }

  package static func writeHeader(
    _ block: UnsafeMutableRawPointer, size: Int, lane: UInt32, count: Int, earliestExpiry: UInt64,
    durableBytes: Int
  ) {
    block.storeBytes(of: UInt32(size), as: UInt32.self)
    block.storeBytes(of: lane, toByteOffset: 8, as: UInt32.self)
    block.storeBytes(of: UInt32(count), toByteOffset: 12, as: UInt32.self)
    block.storeBytes(of: earliestExpiry, toByteOffset: 16, as: UInt64.self)
    block.storeBytes(of: UInt64(durableBytes), toByteOffset: 24, as: UInt64.self)
  }

  package static func writeIndex(
    _ block: UnsafeMutableRawPointer, _ index: Int, packed: UInt64, offset: Int, size: Int
  ) {
    let place = headerBytes + indexBytes * index
    block.storeBytes(of: packed, toByteOffset: place, as: UInt64.self)
    block.storeBytes(of: UInt32(offset), toByteOffset: place + 8, as: UInt32.self)
    block.storeBytes(of: UInt32(size), toByteOffset: place + 12, as: UInt32.self)
  }

  /// The `index`-th message: its sequence and flags, and its offset.
  @inline(__always)
  package static func entry(
    _ block: UnsafeRawPointer, _ index: Int
  ) -> (packed: UInt64, offset: UInt32) {
    let place = headerBytes &+ indexBytes &* index
    return (
      block.loadUnaligned(fromByteOffset: place, as: UInt64.self),
      block.loadUnaligned(fromByteOffset: place &+ 8, as: UInt32.self)
    )
  }
}
