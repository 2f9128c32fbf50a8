import Base
import Journal

/// Takes a round of spilling that is over, in slices between turns: what waits in lanes leaves memory,
/// block by block, and what has left its lane refers to the new blocks from now on. Until it does, it
/// refers to its old one, which stays as long; what changes its place meanwhile is seen to at once, so
/// that nothing is left behind: a message must not move twice.
final class SpillMover: Chore {
  // Unsafe but sound: the broker owns this, and outlives it.
  private unowned(unsafe) let broker: Broker
  private let journal: Journal
  private let lanes: [Lane]
  private let moved: [MovedLane]
  private let partitions: [Partition]
  private let movedPartitions: [MovedPartition]
  /// The partition that is next.
  private var partition = 0
  /// The lane and the block in it that are next.
  private var index = 0
  private var block = 0
  /// Messages of the lane that still waited in it.
  private var waiting = 0
  /// Lanes of which some messages had left.
  private var taken: [UInt32: Int] = [:]
  private var takenLanes: [Lane] = []
  private var walk: OutstandingWalk?

  private static let entriesPerStep = 16

  init(
    _ broker: Broker, _ lanes: [Lane], _ moved: [MovedLane], _ partitions: [Partition],
    _ movedPartitions: [MovedPartition]
  ) {
    self.partitions = partitions
    self.movedPartitions = movedPartitions
    self.broker = broker
    journal = broker.journal
    self.lanes = lanes
    self.moved = moved
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0, index < moved.count { moveBlock(&steps) }
    while steps > 0, partition < movedPartitions.count {
      let isDone =
        partitions[partition].place == nil
        || partitions[partition].move(movedPartitions[partition], &steps)
      if isDone { partition += 1 }
      steps -= 1
    }
    guard steps > 0, partition == movedPartitions.count else { return false }
    if walk == nil { walk = OutstandingWalk(broker, returnedTo: takenLanes) }
    if !taken.isEmpty, !Sabotage.is(.keepsStaleLocation) {
      guard walk?.advance(&steps, { relocate(&$0, of: $1) }) ?? true else { return false }
    }
    broker.mover = nil
    journal.finishSpill(moved)
    return true
  }

  private func moveBlock(_ steps: inout Int) {
    let round = moved[index]
    let lane = lanes[index]
    steps -= 1
    guard !lane.isDeleted, block < round.blocks.count else {
      if !lane.isDeleted { end(lane, round) }
      index += 1
      block = 0
      waiting = 0
      return
    }
    let count = round.blocks[block].offsets.count
    waiting += lane.move(round, block)
    block += 1
    steps -= count / Self.entriesPerStep
  }

  private func end(_ lane: Lane, _ round: MovedLane) {
    lane.waiting.restored()
    if let damage = round.damage { lane.stayInLog(since: damage) }
    guard waiting < round.entries.count else { return }
    taken[lane.id] = index
    takenLanes.append(lane)
  }

  /// The message has left its lane: it stands in the new block.
  func relocate(_ entry: inout Entry, of lane: Lane) {
    guard let index = taken[lane.id], journal.isUnmoved(entry.location.block),
      let place = moved[index].place(of: entry.sequence)
    else { return }
    journal.retain(place.block)
    journal.release(entry.location.block)
    entry.location = place
  }
}

extension Lane {
  /// What still waits of a block of the round leaves memory; returns how many messages that were.
  fileprivate func move(_ round: MovedLane, _ number: Int) -> Int {
    let block = round.blocks[number]
    let end = block.start + block.offsets.count
    let last = round.entries[end - 1].sequence
    moved(upTo: last)
    var first: UInt64?
    var left: [UInt64] = []
    let hasGaps = waiting.hasGaps || role == .delayed
    let count = waiting.removeUnmoved(upTo: last) { entry in
      if entry.cameBack { counts?.moves(entry.sequence) }
      if first == nil { first = entry.sequence }
      if hasGaps { left.append(entry.sequence) }
      journal.release(entry.location.block)
    }
    guard count > 0 else {
      waiting.restored()
      return 0
    }
    journal.retain(block.block, count: count)
    // Those that were taken meanwhile were the first, unless some expired or were cancelled between others.
    let isSuffix = round.entries[end - count].sequence == first
    var start = isSuffix ? end - count : block.start
    var gone: SequenceSet?
    if !isSuffix {
      while round.entries[start].sequence != first { start += 1 }
      gone = Self.gone(round.entries[start..<end], left)
    }
    if Sabotage.is(.opensRunAtItsBeginning) { start = block.start }
    waiting.append(
      LaneRun(
        block: block.block, skip: UInt32(start - block.start), count: UInt32(count),
        hasExceptions: gone != nil, first: round.entries[start].sequence, last: last,
        earliestExpiry: block.earliestExpiry), left: gone)
    if block.earliestExpiry != LaneBlock.neverExpires { queue.times?.look() }
    return count
  }

  /// What of a round's messages is not among those that are left.
  private static func gone(_ entries: ArraySlice<LaneEntry>, _ left: [UInt64]) -> SequenceSet {
    var gone = SequenceSet()
    var index = 0
    for entry in entries {
      if index < left.count, left[index] == entry.sequence {
        index += 1
      } else {
        gone.append(entry.sequence...entry.sequence)
      }
    }
    return gone
  }
}

extension MovedLane {
  /// Where the message with this sequence stands now; nil if it was not in the round.
  fileprivate func place(of sequence: UInt64) -> RecordLocation? {
    let index = entries.countFirst { $0.sequence < sequence }
    guard index < entries.count, entries[index].sequence == sequence else { return nil }
    let block = blocks[blocks.countFirst { $0.start + $0.offsets.count <= index }]
    return block.location(index - block.start)
  }
}

extension Array {
  /// How many elements, all at the beginning, fulfil the condition.
  fileprivate func countFirst(while isBefore: (Element) -> Bool) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if isBefore(self[middle]) { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
