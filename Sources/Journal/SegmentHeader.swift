import Base

/// The first page of a segment file; `Specs/Journal.md` has the picture.
struct SegmentHeader: Equatable {
  static let pageBytes = 4096
  static let version: UInt32 = 1
  static let magic = Array("MARTLETJ".utf8)
  private static let coveredEnd = 64

  var firstPosition: Int
  var segmentBytes: Int
  var identity: UInt64
  /// The first record that begins in this segment.
  var firstRecord: Int
  var epoch: UInt64

  enum Problem: Error, Equatable {
    case notASegment
    case newerVersion(UInt32)
    case damaged
  }

  func write(to page: UnsafeMutableRawBufferPointer) {
    page.initializeMemory(as: UInt8.self, repeating: 0)
    page.copyBytes(from: Self.magic)
    page.storeBytes(of: Self.version, toByteOffset: 8, as: UInt32.self)
    page.storeBytes(of: UInt64(firstPosition), toByteOffset: 16, as: UInt64.self)
    page.storeBytes(of: UInt64(segmentBytes), toByteOffset: 24, as: UInt64.self)
    page.storeBytes(of: identity, toByteOffset: 32, as: UInt64.self)
    page.storeBytes(of: UInt64(firstRecord), toByteOffset: 40, as: UInt64.self)
    page.storeBytes(of: epoch, toByteOffset: 48, as: UInt64.self)
    let covered = UnsafeRawBufferPointer(rebasing: page[16..<Self.coveredEnd])
    page.storeBytes(of: CRC32C.checksum(covered), toByteOffset: 12, as: UInt32.self)
  }

  init(
    firstPosition: Int, segmentBytes: Int, identity: UInt64, firstRecord: Int, epoch: UInt64
  ) {
    self.firstPosition = firstPosition
    self.segmentBytes = segmentBytes
    self.identity = identity
    self.firstRecord = firstRecord
    self.epoch = epoch
  }

  init(_ page: UnsafeRawBufferPointer) throws(Problem) {
    guard page.count >= Self.coveredEnd, page.prefix(8).elementsEqual(Self.magic) else {
      throw .notASegment
    }
    let version = page.load(fromByteOffset: 8, as: UInt32.self)
    guard version <= Self.version else { throw .newerVersion(version) }
    let covered = UnsafeRawBufferPointer(rebasing: page[16..<Self.coveredEnd])
    guard page.load(fromByteOffset: 12, as: UInt32.self) == CRC32C.checksum(covered) else {
      throw .damaged
    }
    firstPosition = Int(page.load(fromByteOffset: 16, as: UInt64.self))
    segmentBytes = Int(page.load(fromByteOffset: 24, as: UInt64.self))
    identity = page.load(fromByteOffset: 32, as: UInt64.self)
    firstRecord = Int(page.load(fromByteOffset: 40, as: UInt64.self))
    epoch = page.load(fromByteOffset: 48, as: UInt64.self)
  }
}
