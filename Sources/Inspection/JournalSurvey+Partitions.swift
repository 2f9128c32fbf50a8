import Base
import Broker
import IO
import Journal

extension JournalSurvey {
  /// The two files of a segment of a partition, one of which may be missing.
  package struct PartitionFile {
    package let partition: UInt32
    package let base: UInt64
    /// Of the batches, and of the index; nil where there is no file.
    package fileprivate(set) var bytes: Int?
    package fileprivate(set) var indexBytes: Int?

    package var name: String { PartitionFiles.batches(partition, base: base) }
  }

  func readPartitions(_ names: JournalNames) throws(JournalError) {
    var found: [SegmentFile: PartitionFile] = [:]
    for (name, key) in names.partitionFiles {
      let path = path(name)
      let size = try system { () throws(SystemError) in try disk.open(path, .read).size }
      var file = found[key] ?? PartitionFile(partition: key.partition, base: key.base)
      if name.hasSuffix(".index") { file.indexBytes = size } else { file.bytes = size }
      found[key] = file
    }
    partitionFiles = found.values.sorted { ($0.partition, $0.base) < ($1.partition, $1.base) }
    if checkpoint == nil, segments.isEmpty, !partitionFiles.isEmpty {
      problems.append(
        JournalProblem("", "there are segments of streams, but neither log nor checkpoint"))
    }
  }

  /// The segments that the checkpoint has, as it says them.
  package var partitionSegments: [(partition: UInt32, segment: PartitionSegment)] {
    var found: [(partition: UInt32, segment: PartitionSegment)] = []
    forEachCheckpointRecord { view in
      guard case .partitionState(let state) = try? BrokerRecord(view) else { return }
      found += state.segments.map { (state.lane, PartitionSegment($0)) }
    }
    return found
  }

  /// Bytes of a segment's file, zero where there are none.
  func bytes(of partition: UInt32, base: UInt64, _ range: Range<Int>) throws(JournalError)
    -> [UInt8]
  {
    let file = try LenientDisk(disk: disk).opened(
      path(PartitionFiles.batches(partition, base: base)))
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: 16)
    defer { memory.deallocate() }
    _ = try system { () throws(SystemError) in try file.read(at: range.lowerBound, into: memory) }
    return Array(memory)
  }

  /// Goes over the segment's sound batches; `body` gets where each begins, its bytes, and its first and last
  /// offset. Returns the damaged places.
  package func readSegment(
    _ partition: UInt32, _ segment: PartitionSegment,
    _ body: (_ position: Int, _ bytes: Int, _ first: UInt64, _ last: UInt64) -> Void
  ) throws(JournalError) -> [Range<Int>] {
    let scan = try SegmentScan(self, partition, segment)
    for batch in scan.runs.joined() {
      body(batch.position, batch.bytes, batch.first, batch.end - 1)
    }
    return scan.damage
  }
}
