import Base
import Journal

/// The messages that a round of spilling takes, by queue.
private struct SpillSelector {
  struct Lane {
    let queue: Queue
    /// Taken from the lane and not settled: unacknowledged or given back.
    var outstanding: [LaneEntry] = []
    var waiting: [LaneEntry] = []
    /// All messages up to this sequence go with the round.
    var bound: UInt64 = 0
  }

  /// More messages are left to the next round.
  static let entriesMax = 1 << 19

  let journal: Journal
  let cutoff: SpillCutoff
  var lanes: [UInt32: Lane] = [:]
  var count = 0

  var isFull: Bool { count >= Self.entriesMax }

  mutating func addWaiting(of queue: Queue) {
    var lane = Lane(queue: queue)
    lane.waiting = queue.lane.beginning(before: cutoff, in: journal)
    lane.bound = lane.waiting.last?.sequence ?? 0
    count += lane.waiting.count
    lanes[queue.id] = lane
  }

  /// The message moves if its block is old enough; then all before it move too.
  mutating func extendBound(_ entry: Entry, of queue: UInt32) {
    guard let bound = lanes[queue]?.bound, entry.sequence > bound,
      journal.isBefore(cutoff, entry.location.block)
    else { return }
    lanes[queue]?.bound = entry.sequence
  }

  mutating func addOutstanding(_ entry: Entry, of queue: UInt32) {
    if Sabotage.is(.leavesOutstandingBehind) { return }
    guard let bound = lanes[queue]?.bound, entry.sequence <= bound,
      journal.isUnmoved(entry.location.block)
    else { return }
    lanes[queue]?.outstanding.append(entry.inLane)
    count += 1
  }

  func selection() -> (queues: [Queue], selection: SpillSelection) {
    let chosen = lanes.values.filter { !$0.outstanding.isEmpty || !$0.waiting.isEmpty }
      .sorted { $0.queue.id < $1.queue.id }
    let selected = chosen.map { lane in
      SpillSelection.Lane(
        id: lane.queue.id,
        entries: lane.outstanding.sorted { $0.sequence < $1.sequence } + lane.waiting)
    }
    return (chosen.map(\.queue), SpillSelection(selected))
  }
}

extension Lane {
  /// The messages up to the last one that stands in a block before the cutoff.
  borrowing func beginning(before cutoff: SpillCutoff, in journal: Journal) -> [LaneEntry] {
    var count = 0
    var countBefore = 0
    // Messages of the log and messages in memory are each in order, and may stand between others.
    var log = cutoff.log > 0
    var memory = cutoff.memory > 0
    var last: UInt32?
    var isBefore = false
    forEachUnmoved { entry in
      let block = entry.location.block
      if last != block {
        last = block
        isBefore = journal.isBefore(cutoff, block)
        if !isBefore {
          if journal.isInLog(block) { log = false } else { memory = false }
        }
      }
      count += 1
      if isBefore { countBefore = count }
      return log || memory
    }
    var entries: [LaneEntry] = []
    entries.reserveCapacity(countBefore)
    guard countBefore > 0 else { return entries }
    forEachUnmoved { entry in
      entries.append(entry.inLane)
      return entries.count < countBefore
    }
    return entries
  }
}

/// Messages that are not consumed promptly move from the log into lane files.
extension Broker {
  /// Begins a round if one is due.
  func spill() {
    guard let cutoff = journal.spillCutoff(now: time) else { return }
    var selector = SpillSelector(journal: journal, cutoff: cutoff)
    letGoOfEmptyQueues()
    for queue in holding where !selector.isFull { selector.addWaiting(of: queue) }
    forEachOutstanding { entry, queue in
      if queue.isDeleted { forget(&entry) } else { selector.extendBound(entry, of: queue.id) }
    }
    forEachOutstanding { entry, queue in selector.addOutstanding(entry, of: queue.id) }
    let (queues, selection) = selector.selection()
    spilling = queues
    journal.spill(selection, cutoff: cutoff, now: time)
  }

  /// A message of a deleted queue is never read again.
  private func forget(_ entry: inout Entry) {
    guard entry.location.block != journal.forgotten else { return }
    journal.retain(journal.forgotten)
    journal.release(entry.location.block)
    entry.location = RecordLocation(block: journal.forgotten, offset: 0)
  }

  /// What has left its lane and is not settled.
  func forEachOutstanding(_ body: (inout Entry, Queue) -> Void) {
    for queue in holding {
      for index in queue.returned.indices { body(&queue.returned[index], queue) }
    }
    for peer in peers.values {
      for channel in peer.channels {
        channel.unacknowledged.change { delivery in
          guard let queue = delivery.queue?.takeUnretainedValue() else { return }
          body(&delivery.entry, queue)
        }
      }
    }
  }

  private func letGoOfEmptyQueues() {
    for queue in holding where queue.messageCount == 0 && !queue.isTouched { letGo(queue) }
  }

  /// A round is over: entries refer to the new blocks, and what still waits in its lane has none.
  func finishSpill(_ moved: [MovedLane]) {
    var taken: [UInt32: MovedLane] = [:]
    for (queue, lane) in zip(spilling, moved) where !queue.isDeleted {
      let waiting = queue.moveLane(lane)
      if waiting < lane.lane.entries.count { taken[queue.id] = lane }
    }
    if !taken.isEmpty, !Sabotage.is(.keepsStaleLocation) {
      forEachOutstanding { entry, queue in
        guard let place = taken[queue.id]?.place(of: entry.sequence),
          journal.isUnmoved(entry.location.block)
        else { return }
        journal.retain(place.block)
        journal.release(entry.location.block)
        entry.location = place
      }
    }
    spilling = []
    journal.finishSpill(moved)
  }
}

extension Queue {
  /// Messages that still wait in the lane leave memory; returns how many there are.
  fileprivate func moveLane(_ moved: MovedLane) -> Int {
    let entries = moved.lane.entries
    guard let last = entries.last else { return 0 }
    movedUpTo = max(movedUpTo, last.sequence)
    let waiting = lane.removeUnmoved(upTo: last.sequence) { entry in
      journal.release(entry.location.block)
    }
    // Those that were taken meanwhile were the first.
    let taken = entries.count - waiting
    for block in moved.blocks {
      let end = block.start + block.offsets.count
      guard end > taken else { continue }
      let first = max(block.start, taken)
      journal.retain(block.block, count: end - first)
      let skip = Sabotage.is(.opensRunAtItsBeginning) ? 0 : first - block.start
      lane.append(
        LaneRun(
          block: block.block, skip: UInt32(skip), count: UInt32(end - first),
          first: entries[first].sequence, last: entries[end - 1].sequence))
    }
    return waiting
  }
}

extension MovedLane {
  /// Where the message with this sequence stands now; nil if it was not in the round.
  fileprivate func place(of sequence: UInt64) -> RecordLocation? {
    let entries = lane.entries
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
