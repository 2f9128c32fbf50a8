import Base
import Journal

/// What gets what is left of a lane once the log was read.
protocol RecoveredLane: AnyObject {
  var id: UInt32 { get }
  func restore(_ remains: RecoveringLane.Remains, _ state: RecoveringLane)
}

/// The messages of one lane while the log is being read: those that moved into lane files before
/// the checkpoint, and behind them those of the log: entries in the order of their sequences, those that
/// were settled marked, and dropped once they are in front.
package final class RecoveringLane {
  private var entries = Ring<Entry>()
  /// When messages of `entries` expire, as dates; as many as those once one does.
  private var dates = Ring<Int64>()
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
  /// How often messages came back, by their sequences; some may be of none that is alive.
  package private(set) var counts: [UInt64: UInt32] = [:]
  /// Bytes of the bodies of `entries` by their sequences; nil where nobody counts them.
  private var sizes: [UInt64: UInt32]?

  /// How long messages live in the queue, in milliseconds; nil for ever.
  let messageTTL: Int64?

  /// Of a stream, whose records have the dates at which they were stored, and not at which they expire.
  let keepsAll: Bool

  package init() {
    messageTTL = nil
    keepsAll = false
  }

  init(countsBytes: Bool, messageTTL: Int64?, keepsAll: Bool = false) {
    self.messageTTL = messageTTL
    self.keepsAll = keepsAll
    if countsBytes { sizes = [:] }
  }

  /// What is left of a lane.
  struct Remains {
    /// Blocks of lane files, with those of their messages that have left from the middle.
    var runs: [(run: LaneRun, left: SequenceSet?)] = []
    /// Of the bodies of the messages of `runs`, where the queue counts bytes.
    var movedBytes = 0
    /// Sequences in blocks that were looked into that nobody has.
    var gone: [ClosedRange<UInt64>] = []
    var entries: [Entry] = []
    /// When they expire, as dates; `Returned.never` for those that do not.
    var dates: [Int64] = []

    var count: Int { runs.reduce(0) { $0 + Int($1.run.count) } + entries.count }
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

  /// What the checkpoint, or a record of the log, says.
  package func addCounts(_ added: RecordList<DeliveryCount>) {
    for count in added { counts[count.sequence] = max(counts[count.sequence] ?? 1, count.count) }
  }

  /// Those of messages that are in lane files, in their order.
  var movedCounts: [DeliveryCount] {
    let alive = alive
    return counts.keys.filter { $0 <= movedUpTo && alive.contains($0) }.sorted()
      .map { DeliveryCount(sequence: $0, count: counts[$0] ?? 0) }
  }

  private func forgetCounts(first: UInt64, count: UInt64) {
    guard count > UInt64(counts.count) else {
      for sequence in first..<first + count { counts[sequence] = nil }
      return
    }
    counts = counts.filter { $0.key < first || $0.key - first >= count }
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

  /// A message of the log that expires at a date; false if it has moved.
  package func append(_ entry: Entry, expiringAt date: Int64 = .max) -> Bool {
    guard entry.sequence > movedUpTo else { return false }
    if date != Returned.never, dates.isEmpty {
      for _ in 0..<entries.count { dates.append(Returned.never) }
    }
    if date != Returned.never || !dates.isEmpty { dates.append(date) }
    entries.append(entry)
    nextSequence = max(nextSequence, entry.sequence + 1)
    return true
  }

  /// How large the body of a message of the log is, which was appended.
  func note(size: UInt32, of sequence: UInt64) { sizes?[sequence] = size }

  /// The sum of the bodies of what is left; nil where nobody counts them.
  func bodyBytes(of remains: Remains) -> Int? {
    guard let sizes else { return nil }
    return remains.entries.reduce(remains.movedBytes) { $0 + Int(sizes[$1.sequence] ?? 0) }
  }

  /// Settles the messages of a range; `body` gets each entry.
  package func settle(first: UInt64, count: UInt64, _ body: (Entry) -> Void) {
    guard count > 0 else { return }
    // Also of messages that need not survive: what comes now must not have their sequences.
    nextSequence = max(nextSequence, first + count)
    if !counts.isEmpty { forgetCounts(first: first, count: count) }
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
      if !dates.isEmpty { _ = dates.removeFirst() }
    }
  }

  /// What is left of the log's entries, in order; `body` gets each, with the date when it expires.
  func takeRemaining(_ body: (Entry, Int64) -> Void) {
    while !entries.isEmpty {
      let entry = entries.removeFirst()
      let date = dates.isEmpty ? Returned.never : dates.removeFirst()
      if !entry.isSettled { body(entry, date) }
    }
  }

  /// As `remainingEntries`, without taking them out.
  package func forEachRemaining(_ body: (Entry) -> Void) {
    for index in 0..<entries.count where !entries[index].isSettled { body(entries[index]) }
  }

  /// What is left, in order. Of a block of which a part is left it is known without reading it how many
  /// messages these are, unless sequences are missing in it; how large they are is not.
  func remains(_ journal: Journal) throws(JournalError) -> Remains {
    var remains = Remains()
    let alive = alive
    blocks.sort { $0.first < $1.first }
    for block in blocks where block.durableCount > 0 {
      let range = block.first...block.last
      switch alive.overlap(range) {
      case .none: continue
      case .part where Sabotage.is(.forgetsExceptions): add(block, [range], journal, &remains)
      case .whole:
        add(block, [range], journal, &remains)
        remains.movedBytes += block.durableBytes
      case .part where block.isDense && sizes == nil:
        add(block, alive.intersection(range).ranges, journal, &remains)
      case .part where block.isDense:
        let left = alive.intersection(range).ranges
        remains.movedBytes += bytes(
          of: left, in: add(block, left, journal, &remains), block, journal)
      case .part: try look(into: block, journal, &remains)
      }
    }
    takeRemaining { entry, date in
      remains.entries.append(entry)
      remains.dates.append(date)
    }
    return remains
  }

  /// A block of which the durable messages in some ranges are left: all of it, or of a dense one.
  @discardableResult
  private func add(
    _ block: LaneBlock, _ left: [ClosedRange<UInt64>], _ journal: Journal,
    _ remains: inout Remains
  ) -> UInt32 {
    let isWhole = left == [block.first...block.last]
    let count = isWhole ? block.durableCount : left.reduce(0) { $0 + $1.count }
    let slot = journal.adopt(block, count: count)
    remains.runs.append(Self.run(block, slot, left, count))
    return slot
  }

  /// Bytes of the bodies of some messages of a block, which is read for that and dropped again. One that cannot be
  /// read counts whole: nobody gets its messages, which only a purge or a repair ends.
  private func bytes(
    of left: [ClosedRange<UInt64>], in slot: UInt32, _ block: LaneBlock, _ journal: Journal
  ) -> Int {
    if Sabotage.is(.countsWholeBlocksAtReplay) { return block.durableBytes }
    do throws(JournalError) {
      try journal.readNow(slot)
    } catch {
      journal.note(problem: "\(error)")
      return block.durableBytes
    }
    var bytes = 0
    var parts = left[...]
    journal.forEachInLane(slot, from: 0) { entry in
      while let part = parts.first, part.upperBound < entry.sequence { parts.removeFirst() }
      if parts.first?.contains(entry.sequence) == true { bytes += Self.bodySize(entry, journal) }
    }
    journal.trim()
    return bytes
  }

  private static func bodySize(_ entry: LaneEntry, _ journal: Journal) -> Int {
    journal.pointer(entry.location).map { MessageView($0).bodySize } ?? 0
  }

  private static func run(
    _ block: LaneBlock, _ slot: UInt32, _ left: [ClosedRange<UInt64>], _ count: Int
  ) -> (LaneRun, SequenceSet?) {
    let range = left[0].lowerBound...left[left.count - 1].upperBound
    var exceptions = SequenceSet()
    for (part, next) in zip(left, left.dropFirst()) {
      exceptions.append(part.upperBound + 1...next.lowerBound - 1)
    }
    let run = LaneRun(
      block: slot, skip: 0, count: UInt32(count), isFiltered: block.durableCount < block.count,
      hasExceptions: left.count > 1, first: range.lowerBound, last: range.upperBound,
      earliestExpiry: block.earliestExpiry)
    return (run, left.count > 1 ? exceptions : nil)
  }

  /// Finds out which of the messages of a block are left; its memory is dropped again.
  private func look(
    into block: LaneBlock, _ journal: Journal, _ remains: inout Remains
  ) throws(JournalError) {
    let slot = journal.adopt(block, count: 1)
    try journal.readNow(slot)
    var left = SequenceSet()
    var count = 0
    var next = block.first
    journal.forEachInLane(slot, from: 0) { entry in
      guard entry.isDurable else { return }
      if entry.sequence > next { remains.gone.append(next...entry.sequence - 1) }
      next = entry.sequence + 1
      guard alive.contains(entry.sequence) else { return }
      left.append(entry.sequence...entry.sequence)
      count += 1
      if sizes != nil { remains.movedBytes += Self.bodySize(entry, journal) }
    }
    if next <= block.last { remains.gone.append(next...block.last) }
    journal.retain(slot, count: count)
    journal.release(slot)
    if count > 0 { remains.runs.append(Self.run(block, slot, left.ranges, count)) }
    // Slow consumers can have left a message in each of many blocks.
    journal.trim()
  }

  private func lowerBound(_ sequence: UInt64) -> Int {
    (0..<entries.count).partition { entries[$0].sequence < sequence }
  }
}

extension LaneBlock {
  /// Every sequence from the first to the last is that of a durable message.
  fileprivate var isDense: Bool {
    durableCount == count && last - first == UInt64(count - 1)
  }
}
