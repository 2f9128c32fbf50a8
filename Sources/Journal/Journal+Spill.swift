import Base
import IO

/// Which messages a round of spilling takes: all that stand in blocks before these.
public struct SpillCutoff: Equatable, Sendable {
  /// Blocks of the log that begin before this position.
  public internal(set) var log: Int
  /// Blocks of transient messages that were opened before this one.
  public internal(set) var memory: Int
}

/// What the broker gives up to a round: messages by their lanes.
public struct SpillSelection {
  public struct Lane: Sendable {
    public let id: UInt32
    /// In any order; some may be there more than once.
    public var entries: [LaneEntry]

    public init(id: UInt32, entries: [LaneEntry]) {
      self.id = id
      self.entries = entries
    }
  }

  public var lanes: [Lane] = []
  public var partitions: [PartitionSelection] = []
  /// The blocks of all that was selected; the broker keeps them.
  public let blocks: [UInt32]
  /// Some of it must survive.
  public let isDurable: Bool
  /// All that was selected is all that can move; what else is as old is of queues that stay where they
  /// are.
  public var leavesQueues = false

  public init(blocks: [UInt32], isDurable: Bool) {
    self.blocks = blocks
    self.isDurable = isDurable
  }
}

/// Messages of a lane that have moved together.
public struct MovedBlock {
  /// The block that has them now.
  public let block: UInt32
  /// The place of the first of them among the lane's entries.
  public let start: Int
  /// Where each of them stands in the block.
  public let offsets: [UInt32]
  /// As its table has it.
  public let earliestExpiry: UInt64

  public func location(_ index: Int) -> RecordLocation {
    RecordLocation(block: block, offset: offsets[index])
  }
}

/// A lane that has moved.
public struct MovedLane {
  /// What has moved, in the order of the sequences.
  public let entries: [LaneEntry]
  /// The record of the next message is damaged: what is wrong with it. From it on nothing has moved.
  public let damage: String?
  public let blocks: [MovedBlock]
}

/// A round that is being written.
struct PendingSpill {
  let number: UInt32
  let isScratch: Bool
  var cutoff = SpillCutoff(log: 0, memory: 0)
  /// Blocks whose memory is read by the round: those that are not on disk, or not yet.
  var kept: [UInt32] = []
  /// The files of which everything moves.
  var merges: [SpillRound.Merge] = []
}

/// Messages that are not consumed promptly move out of the log into lane files, so that the log stays
/// short whatever waits.
extension Journal {
  static let spillRetryMilliseconds: Int64 = 5000
  /// Publishers wait when so many windows of the log hold messages that have not moved yet.
  static let lagWindowsMax = 4

  /// What the next round should take; nil while there is none to begin. `now` is monotonic
  /// milliseconds.
  public func spillCutoff(now: Int64) -> SpillCutoff? {
    guard !isSpilling, failure == nil, now >= nextSpillAt else { return nil }
    var cutoff = SpillCutoff(log: 0, memory: 0)
    let end = min(durablePosition - settings.windowBytes, firstUnfinishedBlock)
    if let oldest = oldestLogBlock(), end - oldest >= settings.windowBytes / 4 {
      cutoff.log = min(end, oldest + settings.windowBytes / 2)
    }
    let movable = transientBytes - stayingBytes
    if movable > settings.transientBytesMax, let oldest = oldestTransientBlock() {
      let excess = movable - settings.transientBytesMax / 4 * 3
      cutoff.memory = min(
        oldest + min(excess, max(settings.windowBytes / 2, BlockMemory.usualBytes)),
        transientTail.base == nil ? transientStart : transientTail.start)
    }
    return cutoff.log > 0 || cutoff.memory > 0 ? cutoff : nil
  }

  /// Whether a message in this block is one that the round takes.
  @inline(__always)
  public func isBefore(_ cutoff: SpillCutoff, _ index: UInt32) -> Bool {
    let block = blocks[Int(index)]
    if block.isOpen { return false }
    switch block.home {
    case .log: return block.start < cutoff.log
    case .memory: return block.start < cutoff.memory
    case .lane, .page, .nowhere: return false
    }
  }

  /// Where the first block begins that is open or being committed.
  private var firstUnfinishedBlock: Int {
    if let index = committingBlocks.first ?? closedBlocks.first {
      return blocks[Int(index)].start
    }
    return durableTail.base == nil ? endPosition : blocks[Int(durableTail.block)].start
  }

  public func isInLog(_ index: UInt32) -> Bool { blocks[Int(index)].isInLog }

  /// Whether the message stands in the log or in memory, and not in a lane file.
  public func isUnmoved(_ index: UInt32) -> Bool {
    let home = blocks[Int(index)].home
    return home == .log || home == .memory
  }

  /// The broker begins to select what a round takes; until `endRound`, or until it has taken the round
  /// that it then begins, there is no other.
  public func beginRound() { isInRound = true }

  /// Nothing was selected.
  public func endRound() { isInRound = false }

  /// Begins a round with what the broker selected for `cutoff`.
  public func spill(_ selection: SpillSelection, cutoff: SpillCutoff, now: Int64) {
    guard !selection.lanes.isEmpty || !selection.partitions.isEmpty else {
      return nothingMoves(selection, cutoff, now)
    }
    isInRound = true
    var sources: [UInt32: SpillRound.Source] = [:]
    var kept: [UInt32] = []
    for index in selection.blocks {
      let block = blocks[Int(index)]
      if block.home == .log, !block.isOpen, !block.isPending {
        sources[index] = .log(position: block.start, used: block.used, epoch: block.epoch)
      } else {
        sources[index] = .memory(block.base!)
        retain(index)
        blocks[Int(index)].isKept = true
        kept.append(index)
      }
    }
    let round = SpillRound(
      number: laneFiles.takeNumber(), lanes: selection.lanes, partitions: selection.partitions,
      sources: sources,
      isScratch: !selection.isDurable)
    pendingSpill = PendingSpill(
      number: round.number, isScratch: round.isScratch, cutoff: cutoff, kept: kept)
    nextSpillAt = now
    background.spill(round, now: now)
  }

  /// Nothing was selected. What was old may have been given up since the cutoff was taken.
  private func nothingMoves(_ selection: SpillSelection, _ cutoff: SpillCutoff, _ now: Int64) {
    endRound()
    if selection.leavesQueues { return raiseFloor(to: cutoff) }
    // Nothing of the broker's is there, but blocks are alive: only their counts can say so.
    if let oldest = oldestLogBlock(), oldest < cutoff.log {
      problems.add("nothing can be moved out of the log before position \(cutoff.log)")
    } else if let oldest = oldestTransientBlock(), oldest < cutoff.memory {
      problems.add("nothing can be moved out of memory")
    } else {
      return
    }
    nextSpillAt = now + Self.spillRetryMilliseconds
  }

  /// What stands before `cutoff` and is alive stays: rounds go on with what is behind it.
  private func raiseFloor(to cutoff: SpillCutoff) {
    spillFloor.log = max(spillFloor.log, cutoff.log)
    spillFloor.memory = max(spillFloor.memory, cutoff.memory)
    _ = logOrder.forget(before: spillFloor.log, blocks, .log)
    stayingBytes += transientOrder.forget(before: spillFloor.memory, blocks, .memory)
  }

  /// Takes a round that is over; returns the lanes that have moved. Each new block is kept until the
  /// broker, which lets its entries refer to them, calls `finishSpill`.
  ///
  /// A round waits for the checkpoint that is being made: of a queue whose turn came before, it would
  /// name blocks behind "moved up to". Their messages come from the log at a start, move once more, and
  /// are there twice when the next checkpoint names both files.
  func takeSpill() -> (lanes: [MovedLane], partitions: [MovedPartition])? {
    guard let pending = pendingSpill, !isMakingCheckpoint || !pending.merges.isEmpty,
      let outcome = background.takeSpillOutcome()
    else { return nil }
    pendingSpill = nil
    release(kept: pending.kept)
    if let failure = outcome.failure, !pending.merges.isEmpty {
      failMerge(failure)
      return nil
    }
    if let failure = outcome.failure {
      problems.add("messages could not be moved out of the log: \(failure)")
      nextSpillAt += Self.spillRetryMilliseconds
      isSpillFailing = true
      endRound()
      return nil
    }
    isSpillFailing = false
    statistics.spills += 1
    statistics.bytesSpilled += outcome.bytes
    if outcome.hasFile {
      laneFiles.add(
        pending.number, isScratch: pending.isScratch, outcome.blocks, areAlive: true)
    }
    guard pending.merges.isEmpty else {
      finishMerge(pending, outcome)
      return nil
    }
    let partitions = outcome.partitions.map { moved in
      var moved = moved
      moved.damage = moved.damagedPosition.map { setAside($0, pending) }
      return moved
    }
    let lanes = outcome.lanes.map { lane in
      var start = 0
      return MovedLane(
        entries: lane.entries, damage: lane.damagedPosition.map { setAside($0, pending) },
        blocks: lane.blocks.map { moved in
          defer { start += moved.block.count }
          let index = addLaneBlock(moved.block)
          retain(index)
          return MovedBlock(
            block: index, start: start, offsets: moved.offsets,
            earliestExpiry: moved.block.earliestExpiry)
        })
    }
    return (lanes, partitions)
  }

  /// A queue stays in the log from a damaged record on, with its segments, so that a start finds the
  /// damage and a repair can say what it was. All else goes on without it: what is older than this
  /// round and alive is that queue's.
  private func setAside(_ position: Int, _ round: PendingSpill) -> String {
    raiseFloor(to: round.cutoff)
    let file = files.path(SegmentFiles.name(position - position % settings.segmentBytes))
    return "the record at log position \(position), in \(file), is damaged"
  }

  /// The broker's entries refer to the new blocks; those that nobody needs go at once.
  public func finishSpill(_ lanes: [MovedLane]) {
    for block in lanes.lazy.flatMap(\.blocks) { release(block.block) }
    endRound()
  }

  private func release(kept: [UInt32]) {
    for block in kept {
      blocks[Int(block)].isKept = false
      // It may have been passed over while it was kept.
      if blocks[Int(block)].isDroppable { noteResident(block) }
      release(block)
    }
  }

  /// A slot for a block of a lane file; its bytes stay on disk until they are needed.
  private func addLaneBlock(_ block: LaneBlock) -> UInt32 {
    let index = takeSlot()
    let usual = BlockMemory.usualBytes
    let capacity =
      (usual / 2...usual).contains(block.size) ? usual : BlockMemory.padded(block.size)
    var slot = Block(home: .lane, start: block.offset, used: block.size, capacity: capacity)
    slot.file = block.file
    blocks[Int(index)] = slot
    laneFiles.bind(block.file, at: block.offset, to: index)
    return index
  }

  /// A round is being selected, written or taken.
  public var isSpilling: Bool { isInRound || pendingSpill != nil }

  // MARK: Lanes

  /// Recovery found that `count` messages of a block are alive.
  public func adopt(_ block: LaneBlock, count: Int) -> UInt32 {
    laneFiles.claim(block.file, at: block.offset)
    let index = addLaneBlock(block)
    retain(index, count: count)
    return index
  }

  /// Reads a block of a lane while recovery waits.
  public func readNow(_ index: UInt32) throws(JournalError) {
    try loadNow(index)
  }

  /// The messages of a lane's block from the `skip`-th on; the block is in memory.
  @inline(__always)
  public func forEachInLane(
    _ index: UInt32, from skip: Int, _ body: (LaneEntry) -> Void
  ) {
    let block = blocks[Int(index)]
    guard block.home == .lane, let base = block.base else {
      invariantFailed("a lane was opened that is not in memory")
    }
    let count = LaneBlockFormat.count(base)
    var place = skip
    while place < count {
      let (packed, offset) = LaneBlockFormat.entry(base, place)
      body(LaneEntry(packed: packed, location: RecordLocation(block: index, offset: offset)))
      place += 1
    }
  }

  // MARK: The oldest

  func oldestLogBlock() -> Int? { logOrder.oldest(blocks, .log) }

  private func oldestTransientBlock() -> Int? { transientOrder.oldest(blocks, .memory) }
}
