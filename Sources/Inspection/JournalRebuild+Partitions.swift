import Base
import Broker
import IO
import Journal

/// Segments of partitions in the new journal.
extension JournalRebuild {
  private func makeDirectory() throws(JournalError) {
    guard !hasPartitions else { return }
    hasPartitions = true
    let path = files.path(PartitionFiles.directory)
    try system { () throws(SystemError) in try files.disk.makeDirectories(path) }
  }

  func finishPartitions() throws(JournalError) {
    guard hasPartitions else { return }
    let path = files.path(PartitionFiles.directory)
    try system { () throws(SystemError) in try files.disk.syncDirectory(path) }
  }

  /// Keeps a segment as it is.
  func link(_ found: FoundSegment) throws(JournalError) {
    try makeDirectory()
    for name in [found.name, PartitionFiles.index(found.partition, base: found.segment.base)] {
      let (old, new) = (survey.path(name), files.path(name))
      try system { () throws(SystemError) in try FileSystem.link(old, as: new) }
    }
  }

  /// Makes a segment of batches that follow each other in one that is damaged.
  func copy(
    _ run: [SegmentScan.Batch], of found: FoundSegment
  ) throws(JournalError) -> PartitionSegment {
    try makeDirectory()
    let base = run[0].first
    let batches = try created(PartitionFiles.batches(found.partition, base: base))
    let index = try created(PartitionFiles.index(found.partition, base: base))
    var entries: [UInt8] = []
    var position = 0
    var timeMax = Int64.min
    for batch in run {
      let bytes = try survey.bytes(
        of: found.partition, base: found.segment.base,
        batch.position..<batch.position + batch.bytes)
      let place = position
      try system { () throws(SystemError) in try batches.write(at: place, bytes) }
      timeMax = max(timeMax, batch.timeMax)
      entries.append(littleEndian: batch.first)
      entries.append(littleEndian: UInt64(position))
      entries.append(littleEndian: UInt64(bitPattern: timeMax))
      position += batch.bytes
    }
    try system { () throws(SystemError) in
      try index.write(at: 0, entries)
      try batches.sync()
      try index.sync()
    }
    return PartitionSegment(
      base: base, end: run[run.count - 1].end, bytes: position, batchCount: run.count,
      timeMax: timeMax)
  }

  private func created(_ name: String) throws(JournalError) -> any DiskFile {
    let path = files.path(name)
    return try system { () throws(SystemError) in
      try files.disk.open(path, .readWrite, creates: true)
    }
  }

  /// So many bytes of records are in memory at once.
  private static let recordBytesMax = 8 << 20

  /// Makes segments of records of the log that follow each other.
  func add(
    _ partition: UInt32, from first: UInt64, _ positions: [Int], _ declared: StreamDeclaration
  ) throws(JournalError) -> [PartitionSegment] {
    try makeDirectory()
    var segments: [PartitionSegment] = []
    var index = 0
    while index < positions.count {
      var records: [RecordView] = []
      var memory: [UnsafeMutableRawBufferPointer] = []
      defer { for copy in memory { copy.deallocate() } }
      var bytes = 0
      let start = index
      while index < positions.count, bytes < Self.recordBytesMax {
        try survey.readRecord(at: positions[index]) { record in
          let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: record.size, alignment: 8)
          copy.copyMemory(from: UnsafeRawBufferPointer(start: record.base, count: record.size))
          memory.append(copy)
          records.append(
            RecordView(
              position: record.position, base: UnsafeRawPointer(copy.baseAddress!),
              size: record.size))
        }
        bytes += records[records.count - 1].size
        index += 1
      }
      let selection = PartitionSelection(
        id: partition, first: first + UInt64(start), records: [], segment: segments.last,
        segmentBytesMax: declared.segmentBytesMax, form: declared.form)
      var writer = PartitionWriter(selection, files: files)
      let whole = records
      let moved = try system { () throws(SystemError) in
        try writer.write(whole, damagedAt: nil)
      }
      for segment in moved.segments {
        if segments.last?.base == segment.base { segments.removeLast() }
        segments.append(segment)
      }
    }
    return segments
  }
}
