import Base

/// How many blocks are alive in each segment, from the oldest segment on that the log still needs.
struct SegmentLiveness {
  let segmentBytes: Int
  /// Index of the oldest segment that was not given up: its first position over the segment size.
  private(set) var first: Int
  /// Blocks alive in segment `first + i`.
  private var counts: [Int] = []

  init(segmentBytes: Int, first: Int) {
    self.segmentBytes = segmentBytes
    self.first = first
  }

  mutating func opened(_ block: Block) {
    for index in range(block) {
      while index - first >= counts.count { counts.append(0) }
      counts[index - first] += 1
    }
  }

  mutating func freed(_ block: Block) {
    for index in range(block) {
      counts[index - first] -= 1
      invariant(counts[index - first] >= 0, "a block was freed twice in segment \(index)")
    }
  }

  /// The oldest segment with something alive in it, and at most the one of the byte before `position`:
  /// the last segment stays, so that one that is missing behind it is known to be.
  func firstLive(notAbove position: Int) -> Int {
    let limit = max(first, max(0, position - 1) / segmentBytes)
    var index = first
    while index < limit, index - first < counts.count, counts[index - first] == 0 { index += 1 }
    if Sabotage.is(.recyclesLiveSegment) { index += 1 }
    return min(index, limit)
  }

  /// Gives up every segment before `index`.
  mutating func drop(before index: Int) {
    let count = min(index - first, counts.count)
    guard count > 0 else { return }
    invariant(counts[..<count].allSatisfy { $0 == 0 }, "a live segment was given up")
    counts.removeFirst(count)
    first = index
  }

  private func range(_ block: Block) -> ClosedRange<Int> {
    let last = block.start + max(block.used, block.capacity) - 1
    return block.start / segmentBytes...last / segmentBytes
  }
}

/// Counters since the start; bytes are those of records with their headers and padding.
public struct JournalStatistics: Equatable, Sendable {
  public var commits = 0
  public var bytesCommitted = 0
  public var blocksReadBack = 0
  public var blocksDropped = 0
  public var checkpoints = 0
  public var checkpointBytes = 0
  public var segmentsRecycled = 0
  public var spills = 0
  /// Records that were put together in the memory of their block, and not copied into it.
  public var draftsAppended = 0
  /// Lane files that were merged with others.
  public var laneFilesMerged = 0
  /// Written to lane files.
  public var bytesSpilled = 0

  /// Bytes written for a byte of the log: 1 as long as messages are consumed promptly.
  public var writeAmplification: Double {
    bytesCommitted == 0 ? 1 : 1 + Double(bytesSpilled) / Double(bytesCommitted)
  }
}
