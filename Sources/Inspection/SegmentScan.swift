import Base
import Batches
import IO
import Journal

/// Reads a segment of a partition batch by batch, past damage.
struct SegmentScan {
  /// A sound batch.
  struct Batch: Equatable {
    let position: Int
    let bytes: Int
    let first: UInt64
    /// One behind its last record's offset.
    let end: UInt64
    let timeMax: Int64
  }

  /// Sound batches that follow each other without a gap in the offsets.
  private(set) var runs: [[Batch]] = []
  /// Bytes that are no sound batch.
  private(set) var damage: [Range<Int>] = []
  /// The file is shorter than what is to be in it.
  private(set) var isCut = false
  /// Each batch has its entry in the index.
  private(set) var isIndexSound = true

  private let reader: SegmentReader
  private let index: [IndexEntry]
  private let limit: Int
  private let offsetMax: UInt64

  private struct IndexEntry: Equatable {
    let offset: UInt64
    let position: UInt64
    let timeMax: Int64
  }

  /// Of what the checkpoint says of it: what is behind does not count.
  init(_ survey: JournalSurvey, _ partition: UInt32, _ segment: PartitionSegment)
    throws(JournalError)
  {
    try self.init(
      survey, partition, base: segment.base, bytes: segment.bytes, offsetMax: segment.end)
    isIndexSound = isIndexSound && index.count >= segment.batchCount
  }

  /// Of a whole file of which nothing says where it ends.
  init(_ survey: JournalSurvey, _ partition: UInt32, base: UInt64) throws(JournalError) {
    try self.init(survey, partition, base: base, bytes: nil, offsetMax: 1 << 55)
  }

  private init(
    _ survey: JournalSurvey, _ partition: UInt32, base: UInt64, bytes: Int?, offsetMax: UInt64
  ) throws(JournalError) {
    let disk = LenientDisk(disk: survey.disk)
    let name = PartitionFiles.batches(partition, base: base)
    let path = survey.path(name)
    let size = survey.hasFile(name) ? try Self.size(disk, path) : 0
    reader = SegmentReader(try disk.opened(path))
    limit = bytes.map { min($0, size) } ?? size
    isCut = limit < bytes ?? 0
    self.offsetMax = offsetMax
    index = try Self.index(disk, survey, PartitionFiles.index(partition, base: base))
    try scan(base)
    if isCut { damage.append(limit..<max(limit, bytes ?? 0)) }
  }

  var isSound: Bool { damage.isEmpty && runs.count <= 1 && isIndexSound }
  var recordCount: Int {
    runs.reduce(0) { $0 + Int($1[$1.count - 1].end - $1[0].first) }
  }

  private static func size(_ disk: LenientDisk, _ path: String) throws(JournalError) -> Int {
    let file = try disk.opened(path)
    return try system { () throws(SystemError) in try file.size }
  }

  private static func index(
    _ disk: LenientDisk, _ survey: JournalSurvey, _ name: String
  ) throws(JournalError) -> [IndexEntry] {
    guard survey.hasFile(name) else { return [] }
    let file = try disk.opened(survey.path(name))
    let size = try system { () throws(SystemError) in try file.size }
    let count = size / PartitionFiles.indexEntryBytes
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(8, count * PartitionFiles.indexEntryBytes), alignment: 8)
    defer { memory.deallocate() }
    _ = try system { () throws(SystemError) in try file.read(at: 0, into: memory) }
    return (0..<count).map { number in
      let place = number * PartitionFiles.indexEntryBytes
      return IndexEntry(
        offset: memory.load(fromByteOffset: place, as: UInt64.self),
        position: memory.load(fromByteOffset: place + 8, as: UInt64.self),
        timeMax: memory.load(fromByteOffset: place + 16, as: Int64.self))
    }
  }

  // MARK: Walking

  private mutating func scan(_ base: UInt64) throws(JournalError) {
    var (position, next, count) = (0, base, 0)
    var timeMax = Int64.min
    while position < limit {
      var found = try batch(at: position)
      if found?.first != next || found.map({ $0.end > offsetMax }) ?? true {
        found = try batch(behind: position, from: next)
        damage.append(position..<(found?.position ?? limit))
      }
      guard let batch = found else { return }
      if batch.first == next, !runs.isEmpty {
        runs[runs.count - 1].append(batch)
      } else {
        runs.append([batch])
      }
      timeMax = max(timeMax, batch.timeMax)
      let entry = IndexEntry(
        offset: batch.first, position: UInt64(batch.position), timeMax: timeMax)
      if count >= index.count || index[count] != entry { isIndexSound = false }
      count += 1
      position = batch.position + batch.bytes
      next = batch.end
    }
  }

  /// The first batch behind a damaged place that the index or the batch behind it vouches for: a batch's own
  /// checksum says nothing of its first offset.
  private func batch(behind start: Int, from next: UInt64) throws(JournalError) -> Batch? {
    for position in start + 1..<max(start + 1, limit) {
      guard try reader.mayBegin(at: position, upTo: limit), let found = try batch(at: position),
        found.first >= next, found.end <= offsetMax, try isVouchedFor(found)
      else { continue }
      return found
    }
    return nil
  }

  private func isVouchedFor(_ batch: Batch) throws(JournalError) -> Bool {
    let place = index.indices.partition { index[$0].offset < batch.first }
    if place < index.count, index[place].offset == batch.first,
      index[place].position == UInt64(batch.position)
    {
      return true
    }
    if batch.position + batch.bytes == limit { return batch.end == offsetMax }
    return try self.batch(at: batch.position + batch.bytes)?.first == batch.end
  }

  /// The batch at a place, if it is sound.
  private func batch(at position: Int) throws(JournalError) -> Batch? {
    guard limit - position >= BatchHeader.size,
      let head = BatchHeader(try reader.bytes(at: position, BatchHeader.size)),
      head.byteCount <= limit - position
    else { return nil }
    let bytes = try reader.bytes(at: position, head.byteCount)
    guard head.codec == 0, head.isPlausible, BatchHeader.isSound(bytes),
      head.lastOffset - head.baseOffset == UInt64(head.recordCount - 1)
    else { return nil }
    var next = head.baseOffset
    for record in BatchReader(bytes, head) {
      guard record.offset == next else { return nil }
      next += 1
    }
    guard next == head.lastOffset + 1 else { return nil }
    return Batch(
      position: position, bytes: head.byteCount, first: head.baseOffset, end: next,
      timeMax: head.timeMax)
  }
}

/// Reads a file in large pieces.
private final class SegmentReader {
  private let file: any DiskFile
  private var piece: UnsafeMutableRawBufferPointer
  private var start = 0
  private var count = 0

  private static let pieceBytes = 1 << 20

  init(_ file: any DiskFile) {
    self.file = file
    piece = .allocate(byteCount: Self.pieceBytes, alignment: 4096)
  }

  deinit { piece.deallocate() }

  /// Valid until the next call.
  func bytes(at position: Int, _ size: Int) throws(JournalError) -> UnsafeRawBufferPointer {
    if position < start || position + size > start + count {
      if size > piece.count {
        piece.deallocate()
        piece = .allocate(byteCount: size, alignment: 4096)
      }
      let memory = piece
      _ = try system { () throws(SystemError) in try file.read(at: position, into: memory) }
      (start, count) = (position, piece.count)
    }
    let place = position - start
    return UnsafeRawBufferPointer(rebasing: piece[place..<place + size])
  }

  /// Whether the byte that says the format is where a batch would have it.
  func mayBegin(at position: Int, upTo limit: Int) throws(JournalError) -> Bool {
    guard limit - position >= BatchHeader.size else { return false }
    return try bytes(at: position, BatchHeader.size)[16] == 2
  }
}
