import Base
import Journal

/// The messages of one lane while the log is being read: those that moved into lane files before
/// the checkpoint, and behind them those of the log: entries in the order of their sequences, those that
/// were settled marked, and dropped once they are in front.
package final class RecoveringLane {
  private var entries = Ring<Entry>()
  private var blocks: [LaneBlock] = []
  /// The messages of `blocks` that are alive.
  package var alive: SequenceSet {
    if !found.isEmpty { sortAlive() }
    return sorted
  }
  private var sorted = SequenceSet()
  /// Ranges that are alive as well, in any order.
  private var found: [ClosedRange<UInt64>] = []
  package private(set) var movedUpTo: UInt64 = 0
  package private(set) var nextSequence: UInt64 = 1
  package var deliveredUpTo: UInt64 = 0

  package init() {}

  /// What is left of a lane.
  struct Remains {
    /// Messages of lane files that stand before or in a block of which some have left.
    var opened: [Entry] = []
    /// Sequences between those that nobody has.
    var gone: [ClosedRange<UInt64>] = []
    var runs: [LaneRun] = []
    var entries: [Entry] = []

    var count: Int { opened.count + runs.reduce(0) { $0 + Int($1.count) } + entries.count }
  }

  /// What the checkpoint says.
  package func setState(_ record: LaneStateRecord) {
    nextSequence = record.nextSequence
    deliveredUpTo = record.deliveredUpTo
    movedUpTo = record.movedUpTo
  }

  /// What of it is in lane files and alive.
  package func addAlive(_ ranges: RecordList<SequenceRange>) {
    for range in ranges where range.count > 0 {
      found.append(range.first...range.first + range.count - 1)
    }
  }

  private func sortAlive() {
    found += sorted.ranges
    sorted = SequenceSet()
    for range in found.sorted(by: { $0.lowerBound < $1.lowerBound }) { sorted.append(range) }
    found = []
  }

  /// Blocks come in the order of their files, and so of their sequences.
  func append(_ block: LaneBlock) {
    guard block.last <= movedUpTo else { return }
    blocks.append(block)
  }

  /// A message of the log; false if it has moved.
  package func append(_ entry: Entry) -> Bool {
    guard entry.sequence > movedUpTo else { return false }
    entries.append(entry)
    nextSequence = max(nextSequence, entry.sequence + 1)
    return true
  }

  /// Settles the messages of a range; `body` gets each entry.
  package func settle(first: UInt64, count: UInt64, _ body: (Entry) -> Void) {
    guard count > 0 else { return }
    // Also of messages that need not survive: what comes now must not have their sequences.
    nextSequence = max(nextSequence, first + count)
    if first <= movedUpTo, !Sabotage.is(.skipsMovedSettlementAtReplay) {
      if !found.isEmpty { sortAlive() }
      sorted.remove(first...min(first + count - 1, movedUpTo))
    }
    var index = lowerBound(first)
    while index < entries.count, entries[index].sequence - first < count {
      if !entries[index].isSettled {
        body(entries[index])
        entries[index].flags.insert(.settled)
      }
      index += 1
    }
    while let front = entries.first, front.isSettled {
      _ = entries.removeFirst()
    }
  }

  /// What is left of the log's entries, in order.
  func remainingEntries() -> [Entry] {
    var result: [Entry] = []
    while !entries.isEmpty {
      let entry = entries.removeFirst()
      if !entry.isSettled { result.append(entry) }
    }
    return result
  }

  /// As `remainingEntries`, without taking them out.
  package func forEachRemaining(_ body: (Entry) -> Void) {
    for index in 0..<entries.count where !entries[index].isSettled { body(entries[index]) }
  }

  /// What is left, in order; reads the blocks of which a part is left, and those before them.
  func remains(_ journal: Journal) throws(JournalError) -> Remains {
    var remains = Remains()
    let alive = alive
    blocks.sort { $0.first < $1.first }
    let lastPart = blocks.lastIndex { alive.overlap($0.first...$0.last) == .part } ?? -1
    for (index, block) in blocks.enumerated() where block.durableCount > 0 {
      guard alive.overlap(block.first...block.last) != .none else { continue }
      if index <= lastPart {
        try open(block, journal, &remains)
      } else {
        let slot = journal.adopt(block, count: block.durableCount)
        remains.runs.append(
          LaneRun(
            block: slot, skip: 0, count: UInt32(block.durableCount),
            isFiltered: block.durableCount < block.count, first: block.first, last: block.last,
            earliestExpiry: block.earliestExpiry))
      }
    }
    remains.entries = remainingEntries()
    return remains
  }

  private func open(
    _ block: LaneBlock, _ journal: Journal, _ remains: inout Remains
  ) throws(JournalError) {
    let slot = journal.adopt(block, count: 1)
    try journal.readNow(slot)
    var count = 0
    var next = block.first
    journal.forEachInLane(slot, from: 0) { entry in
      guard entry.isDurable else { return }
      if entry.sequence > next { remains.gone.append(next...entry.sequence - 1) }
      next = entry.sequence + 1
      guard alive.contains(entry.sequence) else { return }
      remains.opened.append(Entry(entry))
      count += 1
    }
    if next <= block.last { remains.gone.append(next...block.last) }
    journal.retain(slot, count: count)
    journal.release(slot)
    // Slow consumers can have left a message in each of many blocks.
    journal.trim()
  }

  private func lowerBound(_ sequence: UInt64) -> Int {
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].sequence < sequence { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
