import Base

/// A round of spilling as the background thread gets it: what is to be copied into a new lane file.
///
/// Blocks of the log are read from their segments, which are recycled only after a checkpoint, by the
/// same thread. Sendable, unchecked: blocks in memory are kept by the core until the round is over,
/// and the records that are copied are written no more. The core appends only behind them, and the
/// checksums that the commit thread may still fill in are not looked at: a lane's copy has none.
struct SpillRound: @unchecked Sendable {
  enum Source {
    /// Bytes of the log; `checkedFrom` as in `Block`.
    case log(position: Int, used: Int, epoch: UInt32)
    case memory(UnsafeRawPointer)
  }

  /// A file whose blocks are copied as they are.
  struct Merge: Sendable {
    struct Block: Sendable {
      let slot: UInt32
      let offset: Int
      let size: Int
    }

    let file: UInt32
    let path: String
    let blocks: [Block]
  }

  let number: UInt32
  let lanes: [SpillSelection.Lane]
  var partitions: [PartitionSelection] = []
  let sources: [UInt32: Source]
  /// Files of which little is left; their blocks follow the lanes.
  var merges: [Merge] = []
  /// Nothing of it need survive.
  let isScratch: Bool
}

/// How a round ended.
struct SpillOutcome: Sendable {
  struct Block: Sendable {
    let block: LaneBlock
    /// Where each of its messages stands.
    let offsets: [UInt32]
  }

  struct Lane: Sendable {
    /// What was moved, in the order of the sequences.
    var entries: [LaneEntry] = []
    /// Where the record of the next one stands in the log, if it is damaged; from it on nothing was moved.
    var damagedPosition: Int?
    var blocks: [Block] = []
  }

  /// The lanes that were moved; those behind these were not, since the file was full.
  var lanes: [Lane] = []
  var partitions: [MovedPartition] = []
  /// There is a lane file.
  var hasFile = false
  /// Where the blocks of each merged file stand now; nil for a file that is damaged and stays.
  var merged: [[LaneBlock]?] = []
  var bytes = 0
  /// Why nothing was moved.
  var failure: String?

  /// All blocks of the file, in order.
  var blocks: [LaneBlock] {
    lanes.flatMap { $0.blocks.map(\.block) } + merged.compactMap(\.self).joined()
  }
}

/// How records are copied from the log into lane files: the broker leaves out the destinations.
public protocol LaneRecords: Sendable {
  /// Bytes with the header.
  func size(of record: RecordView) -> Int
  /// When the message of the record expires, in wall-clock milliseconds; else `LaneBlock.neverExpires`.
  func expiry(of record: RecordView) -> UInt64
  /// Bytes of what the message is about: the sum for a block stands in its table.
  func bodySize(of record: RecordView) -> Int
  /// Writes so many bytes to `place`; the checksum need not be set.
  func copy(_ record: RecordView, to place: UnsafeMutableRawPointer)
}

/// Records go into lanes as they are.
public struct WholeRecords: LaneRecords {
  public init() {}

  public func size(of record: RecordView) -> Int { record.size }

  public func expiry(of record: RecordView) -> UInt64 { LaneBlock.neverExpires }

  public func bodySize(of record: RecordView) -> Int { record.size - Record.headerSize }

  public func copy(_ record: RecordView, to place: UnsafeMutableRawPointer) {
    place.copyMemory(from: record.base, byteCount: record.size)
  }
}
