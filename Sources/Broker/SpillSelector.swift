import Base
import Journal

/// Selects the messages that a round of spilling takes, by lane, in slices between turns.
///
/// First it finds for each lane how far the round goes: up to the last message that stands in an old
/// block. That may miss some, which the next round takes. Then it collects all messages up to there that
/// have not moved yet, wherever they are, and must not miss one, since recovery passes over what the log
/// has up to there: a message that changes its place meanwhile is noted. Some may be settled before the
/// round is written; the blocks of all are kept until then.
final class SpillSelector: Chore {
  private struct Selected {
    let lane: Lane
    /// All messages up to this sequence go with the round.
    var bound: UInt64
    /// They are being collected: what changes its place is noted.
    var isWatched = false
    var entries: [LaneEntry] = []
  }

  private enum Part {
    case bounds
    case outstandingBounds
    case waiting
    case outstanding
    case partitions
  }

  /// More messages, or lanes, are left to the next round.
  static let entriesMax = 1 << 19
  static let lanesMax = 1 << 14
  private static let entriesPerStep = 16

  // Unsafe but sound: the broker owns this, and outlives it.
  private unowned(unsafe) let broker: Broker
  private let journal: Journal
  private let cutoff: SpillCutoff
  private var part = Part.bounds
  private var lanes: [Selected] = []
  /// Places in `lanes` by the lanes' ids.
  private var places: [UInt32: Int] = [:]
  /// Messages up to the bounds of lanes.
  private var count = 0
  /// The queues before this one in the broker's list are still to come, or the lanes from it on.
  private var index: Int
  /// Of the queue that was last come to.
  private var candidates: [Lane] = []
  private var search: BoundSearch?
  private var behind: UInt64 = 0
  /// Lanes to which messages were given back.
  private var returned: [Lane] = []
  private var walk: OutstandingWalk?
  private var partitions: [(Partition, PartitionSelection)] = []
  /// Blocks of what was collected; each is kept.
  private var blocks: Set<UInt32> = []
  private var lastBlock: UInt32?
  private var isDurable = false
  /// A lane that stays in the log was passed over.
  private var passesOver = false

  init(_ broker: Broker, cutoff: SpillCutoff) {
    self.broker = broker
    journal = broker.journal
    self.cutoff = cutoff
    index = broker.holding.count
  }

  private var isFull: Bool { count >= Self.entriesMax || lanes.count >= Self.lanesMax }

  func advance(_ steps: inout Int) -> Bool {
    guard journal.failure == nil else {
      journal.endRound()
      end()
      return true
    }
    while steps > 0 {
      switch part {
      case .bounds: findBound(&steps)
      case .outstandingBounds:
        guard walk?.advance(&steps, extendBound) ?? true else { return false }
        part = .waiting
        index = 0
      case .waiting: collectWaiting(&steps)
      case .outstanding:
        guard walk?.advance(&steps, { add($0, of: $1) }) ?? true else { return false }
        part = .partitions
        index = 0
      case .partitions:
        guard index < broker.partitions.count, count < Self.entriesMax else {
          submit()
          return true
        }
        select(broker.partitions[index], &steps)
        index += 1
      }
    }
    return false
  }

  // MARK: Bounds

  private func findBound(_ steps: inout Int) {
    if search != nil { return goOn(&steps) }
    if let lane = candidates.popLast() { return consider(lane) }
    index = min(index, broker.holding.count) - 1
    guard index >= 0, !isFull else {
      part = .outstandingBounds
      walk = OutstandingWalk(broker, returnedTo: returned)
      return
    }
    steps -= 1
    let queue = broker.holding[index]
    if queue.messageCount == 0, !queue.isTouched {
      for lane in queue.lanes { lane.stayInLog() }
      return broker.letGo(queue)
    }
    candidates = queue.lanes
  }

  private func consider(_ lane: Lane) {
    // Its queue took the place of one that was deleted: a lane must not be there twice.
    if places[lane.id] != nil { return }
    if lane.staysInLog {
      lane.stayInLog()
      passesOver = passesOver || lane.staysInLog
      return
    }
    if lane.returned.count > 0 { returned.append(lane) }
    search = BoundSearch(lane, cutoff)
  }

  private func goOn(_ steps: inout Int) {
    let limit = Self.entriesPerStep * min(steps, 4096)
    guard let seen = search?.advance(journal, atMost: limit) else { return }
    steps -= 1 + seen / Self.entriesPerStep
    guard let search, search.isOver else { return }
    self.search = nil
    if search.bound > 0 { open(search.lane, bound: search.bound) }
    count += search.count
  }

  private func open(_ lane: Lane, bound: UInt64) {
    places[lane.id] = lanes.count
    lanes.append(Selected(lane: lane, bound: bound))
  }

  /// The message moves if its block is old enough; then all before it move too.
  private func extendBound(_ entry: inout Entry, of lane: Lane) {
    // What is out with a stream's reader is looked up anew if it comes back.
    if lane.isDeleted || lane.role == .reader { return broker.forget(&entry) }
    guard journal.isBefore(cutoff, entry.location.block) else { return }
    guard !lane.staysInLog else {
      passesOver = true
      return
    }
    if let place = places[lane.id] {
      lanes[place].bound = max(lanes[place].bound, entry.sequence)
    } else if !isFull {
      open(lane, bound: entry.sequence)
    }
  }

  // MARK: Messages

  private func collectWaiting(_ steps: inout Int) {
    guard index < lanes.count else {
      part = .outstanding
      walk = OutstandingWalk(broker, returnedTo: lanes.map(\.lane))
      return
    }
    lanes[index].isWatched = true
    let lane = lanes[index].lane
    let bound = lanes[index].bound
    guard !lane.isDeleted else {
      steps -= 1
      index += 1
      behind = 0
      return
    }
    var left = Self.entriesPerStep * min(steps, 4096)
    var last: UInt64?
    lane.waiting.forEachUnmoved(behind: behind) { entry in
      guard entry.sequence <= bound else { return false }
      guard left > 0 else {
        last = behind
        return false
      }
      left -= 1
      behind = entry.sequence
      add(entry, at: index)
      return true
    }
    steps -= 1 + (Self.entriesPerStep * min(steps, 4096) - left) / Self.entriesPerStep
    if last == nil {
      index += 1
      behind = 0
    }
  }

  private func add(_ entry: Entry, of lane: Lane) {
    if Sabotage.is(.leavesOutstandingBehind) { return }
    guard let place = places[lane.id], lanes[place].isWatched,
      entry.sequence <= lanes[place].bound
    else { return }
    add(entry, at: place)
  }

  /// The message changes its place.
  func note(_ entry: Entry, of lane: Lane) { add(entry, of: lane) }

  private func add(_ entry: Entry, at place: Int) {
    let block = entry.location.block
    guard journal.isUnmoved(block) else { return }
    lanes[place].entries.append(entry.inLane)
    if entry.isDurable { isDurable = true }
    keep(block)
  }

  // MARK: Streams

  /// Takes what a partition has before the cutoff. Readers come back to it where it is then.
  private func select(_ partition: Partition, _ steps: inout Int) {
    steps -= 1
    if partition.index == 0 { partition.stream.rewindReaders(before: cutoff) }
    if partition.staysInLog { passesOver = true }
    guard let selection = partition.selection(before: cutoff, atMost: Self.entriesMax - count)
    else { return }
    partitions.append((partition, selection))
    count += selection.records.count
    steps -= selection.records.count / Self.entriesPerStep
    for location in selection.records { keep(location.block) }
  }

  /// The block stays until the round is written.
  private func keep(_ block: UInt32) {
    guard block != lastBlock else { return }
    lastBlock = block
    if blocks.insert(block).inserted { journal.retain(block) }
  }

  // MARK: The end

  private func submit() {
    var selection = SpillSelection(blocks: Array(blocks), isDurable: isDurable)
    selection.leavesQueues = passesOver && !isFull
    var spilling: [Lane] = []
    for selected in lanes where !selected.entries.isEmpty && !selected.lane.isDeleted {
      spilling.append(selected.lane)
      selection.lanes.append(SpillSelection.Lane(id: selected.lane.id, entries: selected.entries))
    }
    broker.spilling = spilling
    for (partition, selected) in partitions where partition.place != nil {
      broker.spillingPartitions.append(partition)
      selection.partitions.append(selected)
    }
    partitions = []
    lanes = []
    journal.spill(selection, cutoff: cutoff, now: broker.time)
    end()
  }

  private func end() {
    for block in blocks { journal.release(block) }
    blocks = []
    broker.selector = nil
  }
}

/// Looks in a lane for the last message that stands in a block before the cutoff.
private struct BoundSearch {
  let lane: Lane
  private let cutoff: SpillCutoff
  private(set) var isOver = false
  private(set) var bound: UInt64 = 0
  /// Messages up to the bound.
  private(set) var count = 0
  private var behind: UInt64 = 0
  private var seen = 0
  // Messages of the log and messages in memory are each in order, and may stand between others.
  private var log: Bool
  private var memory: Bool
  private var last: UInt32?
  private var isBefore = false

  init(_ lane: Lane, _ cutoff: SpillCutoff) {
    self.lane = lane
    self.cutoff = cutoff
    log = cutoff.log > 0
    memory = cutoff.memory > 0
  }

  /// Looks at so many messages at most; returns at how many.
  mutating func advance(_ journal: Journal, atMost limit: Int) -> Int {
    var left = limit
    var next = self
    next.isOver = true
    lane.waiting.forEachUnmoved(behind: behind) { entry in
      guard left > 0 else {
        next.isOver = false
        return false
      }
      left -= 1
      return next.look(at: entry, journal)
    }
    self = next
    return limit - left
  }

  private mutating func look(at entry: Entry, _ journal: Journal) -> Bool {
    behind = entry.sequence
    let block = entry.location.block
    if last != block {
      last = block
      isBefore = journal.isBefore(cutoff, block)
      if !isBefore {
        if journal.isInLog(block) { log = false } else { memory = false }
      }
    }
    seen += 1
    if isBefore {
      bound = entry.sequence
      count = seen
    }
    return log || memory
  }
}
