import Base

/// The first page of a segment file; `Specs/Journal.md` has the picture.
package struct SegmentHeader: Equatable {
  package static let pageBytes = 4096
  static let magic = Array("MARTLETJ".utf8)
  /// Positions and sizes above are nobody's.
  static let positionMax = 1 << 62
  package static let segmentBytesMax = 1 << 40
  private static let coveredEnd = 64
  private static let successorFlag: UInt64 = 1

  package var firstPosition: Int
  package var segmentBytes: Int
  package var identity: UInt64
  /// The first record that begins in this segment.
  package var firstRecord: Int
  package var epoch: UInt64
  /// The segment behind this one was made, durably, and the log may have gone on in it: if it is
  /// missing, somebody removed it.
  package internal(set) var hasSuccessor = false

  package enum Problem: Error, Equatable {
    case notASegment
    case stranger(JournalFormat.Stranger)
    case damaged
  }

  package var end: Int { firstPosition + segmentBytes }

  func write(to page: UnsafeMutableRawBufferPointer) {
    page.initializeMemory(as: UInt8.self, repeating: 0)
    page.copyBytes(from: Self.magic)
    page.storeBytes(of: JournalFormat.version, toByteOffset: 8, as: UInt32.self)
    page.storeBytes(of: UInt64(firstPosition), toByteOffset: 16, as: UInt64.self)
    page.storeBytes(of: UInt64(segmentBytes), toByteOffset: 24, as: UInt64.self)
    page.storeBytes(of: identity, toByteOffset: 32, as: UInt64.self)
    page.storeBytes(of: UInt64(firstRecord), toByteOffset: 40, as: UInt64.self)
    page.storeBytes(of: epoch, toByteOffset: 48, as: UInt64.self)
    let flags = hasSuccessor ? Self.successorFlag : 0
    page.storeBytes(of: flags, toByteOffset: 56, as: UInt64.self)
    let covered = UnsafeRawBufferPointer(rebasing: page[16..<Self.coveredEnd])
    page.storeBytes(of: CRC32C.checksum(covered), toByteOffset: 12, as: UInt32.self)
  }

  package init(
    firstPosition: Int, segmentBytes: Int, identity: UInt64, firstRecord: Int, epoch: UInt64
  ) {
    self.firstPosition = firstPosition
    self.segmentBytes = segmentBytes
    self.identity = identity
    self.firstRecord = firstRecord
    self.epoch = epoch
  }

  package init(_ page: UnsafeRawBufferPointer) throws(Problem) {
    guard page.count >= Self.coveredEnd, page.prefix(8).elementsEqual(Self.magic) else {
      throw .notASegment
    }
    let version = page.load(fromByteOffset: 8, as: UInt32.self)
    if let stranger = JournalFormat.stranger(version) { throw .stranger(stranger) }
    let covered = UnsafeRawBufferPointer(rebasing: page[16..<Self.coveredEnd])
    guard version > 0,
      page.load(fromByteOffset: 12, as: UInt32.self) == CRC32C.checksum(covered)
    else { throw .damaged }
    firstPosition = Int(truncatingIfNeeded: page.load(fromByteOffset: 16, as: UInt64.self))
    segmentBytes = Int(truncatingIfNeeded: page.load(fromByteOffset: 24, as: UInt64.self))
    identity = page.load(fromByteOffset: 32, as: UInt64.self)
    firstRecord = Int(truncatingIfNeeded: page.load(fromByteOffset: 40, as: UInt64.self))
    epoch = page.load(fromByteOffset: 48, as: UInt64.self)
    hasSuccessor =
      page.load(fromByteOffset: 56, as: UInt64.self) & Self.successorFlag != 0
    guard makesSense else { throw .damaged }
  }

  /// A right checksum does not make numbers that can be counted with.
  private var makesSense: Bool {
    (4096...Self.segmentBytesMax).contains(segmentBytes) && segmentBytes % 4096 == 0
      && (0...Self.positionMax).contains(firstPosition) && firstPosition % segmentBytes == 0
      && firstRecord >= firstPosition
      && firstRecord - firstPosition <= segmentBytes + 2 * Record.sizeMax && epoch < 1 << 62
  }
}
