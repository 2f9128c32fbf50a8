import Base
import IO

/// What of a partition a round of spilling takes: records that follow each other.
public struct PartitionSelection: Sendable {
  public let id: UInt32
  /// The first record's offset.
  public let first: UInt64
  public let records: [RecordLocation]
  /// The segment that is written on; nil if there is none.
  public let segment: PartitionSegment?
  /// A segment that has become so large is followed by another.
  public let segmentBytesMax: Int
  public let form: any PartitionForm

  public init(
    id: UInt32, first: UInt64, records: [RecordLocation], segment: PartitionSegment?,
    segmentBytesMax: Int, form: any PartitionForm
  ) {
    self.id = id
    self.first = first
    self.records = records
    self.segment = segment
    self.segmentBytesMax = segmentBytesMax
    self.form = form
  }
}

/// A partition of which records have moved into segments.
public struct MovedPartition: Sendable {
  public let id: UInt32
  /// So many of those that were selected.
  public internal(set) var count = 0
  /// The segments that were written to, as they are now.
  public internal(set) var segments: [PartitionSegment] = []
  /// Where the next record stands in the log, if it is damaged.
  var damagedPosition: Int?
  /// What is wrong with it.
  public internal(set) var damage: String?
}

/// Writes records of a partition behind those of its last segment; on the background thread.
///
/// The files are durable when this returns, and nobody has been told of their new ends: what a crash leaves
/// behind the old ones does not count, and the log still has it.
package struct PartitionWriter {
  private let files: SegmentFiles
  private let selection: PartitionSelection
  private var moved: MovedPartition
  private var segment: PartitionSegment
  private var open: (batches: any DiskFile, index: any DiskFile)?
  /// Index entries that are not written yet.
  private var entries: [UInt8] = []

  /// About so many bytes of records make a batch.
  static let batchBytes = 64 << 10

  package init(_ selection: PartitionSelection, files: SegmentFiles) {
    self.files = files
    self.selection = selection
    moved = MovedPartition(id: selection.id)
    segment =
      selection.segment
      ?? PartitionSegment(
        base: selection.first, end: selection.first, bytes: 0, batchCount: 0, timeMax: .min)
  }

  /// Whether a directory entry was made that is to become durable.
  private(set) var madeFile = false

  /// The records as they stand in memory, as far as they are sound.
  package mutating func write(
    _ records: [RecordView], damagedAt position: Int?
  ) throws(SystemError) -> MovedPartition {
    moved.damagedPosition = position
    var index = 0
    while index < records.count {
      if segment.bytes >= selection.segmentBytesMax { try roll() }
      var end = index
      var bytes = 0
      repeat {
        bytes += records[end].size
        end += 1
      } while end < records.count && bytes + records[end].size <= Self.batchBytes
      try write(Array(records[index..<end]))
      index = end
    }
    moved.count = records.count
    try close()
    return moved
  }

  private mutating func write(_ records: [RecordView]) throws(SystemError) {
    let offset = segment.end
    let batch = selection.form.batch(of: records, from: offset)
    let file = try opened()
    try file.write(at: segment.bytes, batch.bytes)
    segment.timeMax = max(segment.timeMax, batch.timeMax)
    for word in [offset, UInt64(segment.bytes), UInt64(bitPattern: segment.timeMax)] {
      withUnsafeBytes(of: word.littleEndian) { entries += $0 }
    }
    segment.bytes += batch.bytes.count
    segment.batchCount += 1
    segment.end += UInt64(records.count)
  }

  private mutating func opened() throws(SystemError) -> any DiskFile {
    if let open { return open.batches }
    let names = [
      PartitionFiles.batches(selection.id, base: segment.base),
      PartitionFiles.index(selection.id, base: segment.base),
    ].map(files.path)
    if segment.bytes == 0 {
      madeFile = true
      try files.disk.makeDirectories(files.path(PartitionFiles.directory))
    }
    let batches = try files.disk.open(names[0], .readWrite, creates: true)
    let index = try files.disk.open(names[1], .readWrite, creates: true)
    open = (batches, index)
    return batches
  }

  private mutating func roll() throws(SystemError) {
    try close()
    segment = PartitionSegment(
      base: segment.end, end: segment.end, bytes: 0, batchCount: 0, timeMax: .min)
  }

  /// What was written to the segment is durable.
  private mutating func close() throws(SystemError) {
    guard let (batches, index) = open else { return }
    let written = entries.count / PartitionFiles.indexEntryBytes
    try index.write(
      at: (segment.batchCount - written) * PartitionFiles.indexEntryBytes, entries)
    try batches.sync()
    try index.sync()
    entries = []
    open = nil
    moved.segments.append(segment)
  }
}
