import Base
import Journal

/// What the broker has of all streams: their partitions, and files that are to go.
extension Broker {
  func add(_ partition: Partition) {
    partition.place = partitions.count
    partitions.append(partition)
  }

  func remove(_ partition: Partition) {
    guard let place = partition.place else { return }
    partition.place = nil
    let last = partitions.removeLast()
    guard last !== partition else { return }
    partitions[place] = last
    last.place = place
  }

  /// Segments go when the log durably says that nobody needs them: otherwise a crash could bring back a stream
  /// whose records are gone.
  func remove(segments: [UInt64], of partition: UInt32) {
    let files = segments.map { SegmentFile(partition: partition, base: $0) }
    leavingFiles.append((journal.endPosition, .files(files)))
  }

  /// All of deleted streams goes, with what a round that is being written makes of them.
  func removeSegments(of partitions: [UInt32]) {
    guard !isRecovering else { return }
    leavingFiles.append((journal.endPosition, .partitions(Set(partitions))))
  }

  /// The log is durable up to there.
  func removeFiles(upTo position: Int) {
    while let (wanted, files) = leavingFiles.first, wanted <= position {
      leavingFiles.removeFirst()
      journal.remove(files)
    }
  }

  /// All segments that streams know of are there.
  func requireSegments() throws(JournalError) {
    for partition in partitions {
      for segment in partition.segments {
        try journal.requireFiles(of: segment, in: partition.id)
      }
    }
  }

  /// What no stream knows of goes, once all streams are known.
  func removeUnknownSegments() {
    let known = partitions.flatMap { partition in
      partition.segments.map { SegmentFile(partition: partition.id, base: $0.base) }
    }
    journal.remove(.allBut(Set(known)))
  }
}
