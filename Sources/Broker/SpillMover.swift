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
  private let queues: [Queue]
  private let moved: [MovedLane]
  /// The lane and the block in it that are next.
  private var index = 0
  private var block = 0
  /// Messages of the lane that still waited in it.
  private var waiting = 0
  /// Lanes of which some messages had left.
  private var taken: [UInt32: Int] = [:]
  private var takenQueues: [Queue] = []
  private var walk: OutstandingWalk?

  private static let entriesPerStep = 16

  init(_ broker: Broker, _ queues: [Queue], _ moved: [MovedLane]) {
    self.broker = broker
    journal = broker.journal
    self.queues = queues
    self.moved = moved
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0, index < moved.count { moveBlock(&steps) }
    guard steps > 0 else { return false }
    if walk == nil { walk = OutstandingWalk(broker, returnedTo: takenQueues) }
    if !taken.isEmpty, !Sabotage.is(.keepsStaleLocation) {
      guard walk?.advance(&steps, { relocate(&$0, of: $1) }) ?? true else { return false }
    }
    broker.mover = nil
    journal.finishSpill(moved)
    return true
  }

  private func moveBlock(_ steps: inout Int) {
    let lane = moved[index]
    let queue = queues[index]
    steps -= 1
    guard !queue.isDeleted, block < lane.blocks.count else {
      if !queue.isDeleted { endLane(queue, lane) }
      index += 1
      block = 0
      waiting = 0
      return
    }
    let count = lane.blocks[block].offsets.count
    waiting += queue.move(lane, block)
    block += 1
    steps -= count / Self.entriesPerStep
  }

  private func endLane(_ queue: Queue, _ lane: MovedLane) {
    queue.lane.restored()
    if let damage = lane.damage { queue.stayInLog(since: damage) }
    guard waiting < lane.entries.count else { return }
    taken[queue.id] = index
    takenQueues.append(queue)
  }

  /// The message has left its lane: it stands in the new block.
  func relocate(_ entry: inout Entry, of queue: Queue) {
    guard let index = taken[queue.id], journal.isUnmoved(entry.location.block),
      let place = moved[index].place(of: entry.sequence)
    else { return }
    journal.retain(place.block)
    journal.release(entry.location.block)
    entry.location = place
  }
}

extension Queue {
  /// What still waits of a block of the round leaves memory; returns how many messages that were.
  fileprivate func move(_ moved: MovedLane, _ number: Int) -> Int {
    let block = moved.blocks[number]
    let end = block.start + block.offsets.count
    let last = moved.entries[end - 1].sequence
    movedUpTo = max(movedUpTo, last)
    // Those that were taken meanwhile were the first.
    let waiting = lane.removeUnmoved(upTo: last) { entry in
      journal.release(entry.location.block)
    }
    guard waiting > 0 else {
      lane.restored()
      return 0
    }
    let first = end - waiting
    journal.retain(block.block, count: waiting)
    let skip = Sabotage.is(.opensRunAtItsBeginning) ? 0 : first - block.start
    lane.append(
      LaneRun(
        block: block.block, skip: UInt32(skip), count: UInt32(waiting),
        first: moved.entries[first].sequence, last: last))
    return waiting
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
