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
  public struct Lane {
    public let id: UInt32
    /// In the order of their sequences; each once.
    public var entries: [LaneEntry]

    public init(id: UInt32, entries: [LaneEntry]) {
      self.id = id
      self.entries = entries
    }
  }

  public var lanes: [Lane]

  public init(_ lanes: [Lane]) {
    self.lanes = lanes
  }
}

/// Messages of a lane that have moved together.
public struct MovedBlock {
  /// The block that has them now.
  public let block: UInt32
  /// The place of the first of them among the lane's entries that were selected.
  public let start: Int
  /// Where each of them stands in the block.
  public let offsets: [UInt32]

  public func location(_ index: Int) -> RecordLocation {
    RecordLocation(block: block, offset: offsets[index])
  }
}

/// A lane that has moved.
public struct MovedLane {
  public let lane: SpillSelection.Lane
  public let blocks: [MovedBlock]
}

/// A round that is being written.
struct PendingSpill {
  let selection: SpillSelection
  let number: UInt32
  let isScratch: Bool
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
    guard pendingSpill == nil, failure == nil, now >= nextSpillAt else { return nil }
    var cutoff = SpillCutoff(log: 0, memory: 0)
    let end = min(durablePosition - settings.windowBytes, firstUnfinishedBlock)
    if let oldest = oldestLogBlock(), end - oldest >= settings.windowBytes / 4 {
      cutoff.log = min(end, oldest + settings.windowBytes / 2)
    }
    if transientBytes > settings.transientBytesMax, let oldest = oldestTransientBlock() {
      let excess = transientBytes - settings.transientBytesMax / 4 * 3
      cutoff.memory = oldest + min(excess, max(settings.windowBytes / 2, BlockMemory.usualBytes))
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
    case .lane, .nowhere: return false
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

  /// Begins a round with what the broker selected for `cutoff`.
  public func spill(_ selection: SpillSelection, cutoff: SpillCutoff, now: Int64) {
    guard !selection.lanes.isEmpty else {
      // What was old may have been given up since the cutoff was taken.
      guard let oldest = oldestLogBlock(), oldest < cutoff.log else { return }
      // Nothing of the broker's is there, but blocks are alive: only their counts can say so.
      problems.add("nothing can be moved out of the log before position \(cutoff.log)")
      nextSpillAt = now + Self.spillRetryMilliseconds
      return
    }
    var sources: [UInt32: SpillRound.Source] = [:]
    var kept: [UInt32] = []
    for lane in selection.lanes {
      var last: UInt32?
      for entry in lane.entries where entry.location.block != last {
        last = entry.location.block
        guard sources[entry.location.block] == nil else { continue }
        let block = blocks[Int(entry.location.block)]
        if block.home == .log, !block.isOpen, !block.isPending {
          sources[entry.location.block] = .log(
            position: block.start, used: block.used, epoch: block.epoch)
        } else {
          sources[entry.location.block] = .memory(block.base!)
          retain(entry.location.block)
          blocks[Int(entry.location.block)].isKept = true
          kept.append(entry.location.block)
        }
      }
    }
    let isScratch = !selection.lanes.contains { $0.entries.contains(where: \.isDurable) }
    let round = SpillRound(
      number: laneFiles.takeNumber(),
      lanes: selection.lanes.map { SpillRound.Lane(id: $0.id, entries: $0.entries) },
      sources: sources, isScratch: isScratch)
    pendingSpill = PendingSpill(
      selection: selection, number: round.number, isScratch: isScratch, kept: kept)
    nextSpillAt = now
    background.spill(round)
  }

  /// Takes a round that is over; returns the lanes that have moved. The broker lets its entries refer
  /// to the new blocks, whose references are set by `retain`, and then calls `finishSpill`.
  func takeSpill() -> [MovedLane]? {
    guard let pending = pendingSpill, let outcome = background.takeSpillOutcome() else {
      return nil
    }
    pendingSpill = nil
    for block in pending.kept { keptBySpill.append(block) }
    if let failure = outcome.failure, !pending.merges.isEmpty {
      failMerge(failure)
      return nil
    }
    if let failure = outcome.failure {
      problems.add("messages could not be moved out of the log: \(failure)")
      nextSpillAt += Self.spillRetryMilliseconds
      isSpillFailing = true
      releaseKept()
      return nil
    }
    isSpillFailing = false
    statistics.spills += 1
    statistics.bytesSpilled += outcome.bytes
    laneFiles.add(
      pending.number, isScratch: pending.isScratch, outcome.blocks, areAlive: true)
    finishMerge(pending, outcome)
    return zip(pending.selection.lanes, outcome.lanes).map { lane, blocks in
      var start = 0
      return MovedLane(
        lane: lane,
        blocks: blocks.map { moved in
          defer { start += moved.block.count }
          return MovedBlock(
            block: addLaneBlock(moved.block), start: start, offsets: moved.offsets)
        })
    }
  }

  /// The broker's entries refer to the new blocks; those that nobody needs go at once.
  public func finishSpill(_ lanes: [MovedLane]) {
    for block in lanes.lazy.flatMap(\.blocks) where blocks[Int(block.block)].references == 0 {
      free(block.block)
    }
    releaseKept()
  }

  private func releaseKept() {
    for block in keptBySpill {
      blocks[Int(block)].isKept = false
      // It may have been passed over while it was kept.
      if blocks[Int(block)].isDroppable { noteResident(block) }
      release(block)
    }
    keptBySpill.removeAll()
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

  /// A round is being written.
  public var isSpilling: Bool { pendingSpill != nil }

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
