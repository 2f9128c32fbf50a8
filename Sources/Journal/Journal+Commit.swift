import Base
import IO

extension Journal {
  /// Bytes appended and not yet durable.
  public var uncommittedBytes: Int { endPosition - durablePosition }

  /// Whether a publisher should not be read from until a commit, or a round of spilling, has ended. `position`
  /// is where the log ended when it last led to a record, 0 if it never did: who has no part in what the log
  /// is behind with does not wait for it, unless that is twice as much as it should be: what a client leads to may
  /// be logged behind its request.
  public func isCongested(for position: Int) -> Bool {
    guard failure == nil else { return false }
    let isShare = position > durablePosition
    if uncommittedBytes > settings.uncommittedBytesMax * (isShare ? 1 : 2) { return true }
    guard isSpilling, !isSpillFailing else { return false }
    if transientBytes - stayingBytes > 2 * settings.transientBytesMax { return true }
    guard let oldest = oldestLogBlock(), position > oldest else { return false }
    // More waits to be moved than a round or two can take.
    return durablePosition - oldest > (1 + Self.lagWindowsMax) * settings.windowBytes
  }

  public var hasUncommitted: Bool { endPosition > durablePosition }

  /// Hands what gathered to the commit thread, unless it is still writing. `now` is wall-clock
  /// milliseconds.
  public func commit(now: Int64) {
    returnSpace()
    guard !isCommitting, failure == nil, postponed == nil, endPosition > sealedPosition else {
      return
    }
    invariant(!isInGroup, "a batch is taken in a group")
    if beginningEnd == nil { appendBatchRecord(now: now) }
    let slices = takeSlices(upTo: beginningEnd ?? .max)
    let batch = CommitBatch(
      start: sealedPosition, end: slices.reduce(sealedPosition) { $0 + $1.count }, epoch: epoch,
      slices: slices, beginsLife: beginningEnd != nil)
    beginningEnd = nil
    sealedPosition = batch.end
    statistics.commits += 1
    statistics.bytesCommitted += batch.end - batch.start
    submit(batch)
  }

  /// What of the log the next batch has: whole blocks that end before `limit`, and of the one behind them
  /// what stands before it.
  private func takeSlices(upTo limit: Int) -> [CommitBatch.Slice] {
    var slices: [CommitBatch.Slice] = []
    slices.reserveCapacity(closedBlocks.count + 1)
    var bytes = 0
    var taken = 0
    while taken < closedBlocks.count, bytes < settings.batchBytesMax {
      let block = blocks[Int(closedBlocks[taken])]
      guard block.start + block.used <= limit else { break }
      if let slice = slice(block, upTo: block.used) {
        slices.append(slice)
        bytes += slice.count
      }
      committingBlocks.append(closedBlocks[taken])
      taken += 1
    }
    closedBlocks.removeFirst(taken)
    guard bytes < settings.batchBytesMax else { return slices }
    if let index = closedBlocks.first {
      let block = blocks[Int(index)]
      if let slice = slice(block, upTo: limit - block.start) { slices.append(slice) }
    } else if durableTail.base != nil {
      let used = min(durableTail.used, limit - durableTail.start)
      if let slice = slice(blocks[Int(durableTail.block)], upTo: used) { slices.append(slice) }
    }
    return slices
  }

  /// What the other threads have done.
  public struct Progress {
    /// The durable position moved, or the log failed.
    public var hasCommitted = false
    /// Blocks that came into memory, or could not.
    public var loaded: [UInt32] = []
    /// Lanes that have moved into lane files.
    public var moved: (lanes: [MovedLane], partitions: [MovedPartition])?
  }

  /// Takes the results of the other threads. `now` is monotonic milliseconds.
  public func poll(now: Int64) -> Progress {
    takeCheckpointOutcome()
    problems.add(background.takeProblems())
    for part in background.takeRefused() { refusedReturns.add(part) }
    var progress = Progress()
    progress.loaded = takeLoaded()
    // A round waits for a checkpoint, which nobody goes on with when the log has failed.
    progress.hasCommitted = takeCommit(now: now)
    if isMarkingFailure, background.isFailureMarked != nil {
      isMarkingFailure = false
      progress.hasCommitted = true
    }
    progress.moved = takeSpill()
    return progress
  }

  private func takeCommit(now: Int64) -> Bool {
    guard let result = committer.takeResult() else { return false }
    isCommitting = false
    switch result {
    case .durable(let end):
      durablePosition = end
      unmarkFailure()
      takeClaims()
      stuckReason = nil
      commitBackoff.succeeded()
      for index in committingBlocks { finished(index) }
      committingBlocks.removeAll(keepingCapacity: true)
      handOverCheckpoint()
      returnSettledSpace()
      if files.spareCount < Background.sparesMin { background.refill(now: now) }
    case .postponed(let reason):
      if let batch = inFlight { postponed = (batch, reason) }
      stuckReason = reason
      commitBackoff.failed(at: now)
    case .failed(let reason):
      fail(reason)
    }
    return true
  }

  private func slice(_ block: Block, upTo used: Int) -> CommitBatch.Slice? {
    let from = max(block.start, sealedPosition)
    let count = block.start + used - from
    guard count > 0 else { return nil }
    return CommitBatch.Slice(
      base: block.base! + (from - block.start), position: from, count: count,
      blockStart: block.start)
  }

  func appendBatchRecord(now: Int64) {
    let claim = settings.isSynced ? durablePosition : syncedPosition
    BatchRecord.append(
      to: self, durableBefore: UInt64(claim), writtenAt: UInt64(bitPattern: now))
    claims.append((endPosition, claim))
  }

  private func takeClaims() {
    while let (end, claim) = claims.first, end <= durablePosition {
      provenPosition = claim
      _ = claims.removeFirst()
    }
  }

  /// A closed block became durable.
  private func finished(_ index: UInt32) {
    blocks[Int(index)].isPending = false
    if blocks[Int(index)].references == 0 {
      free(index)
    } else {
      noteResident(index)
    }
  }

  /// Why the log cannot take more, such as a full disk; nil if it can.
  public var spaceProblem: String? { background.spaceProblem ?? stuckReason }

  // MARK: Stopping

  /// Marks that nothing is in doubt, waits until everything is durable, and ends the threads.
  public func close(now: Int64) {
    finishCommits(now: now)
    if failure == nil, !settings.isSynced { syncAll() }
    isClosing = true
    if failure == nil { _ = append(kind: OwnRecord.Kind.stop.rawValue, payloadSize: 0) }
    finishCommits(now: now)
    if failure == nil, !settings.isSynced { syncAll() }
    committer.stop()
    background.stop()
    reader.stop()
  }

  private func finishCommits(now: Int64) {
    while failure == nil, postponed == nil, isCommitting || hasUncommitted {
      commit(now: now)
      committer.waitForResult()
      // No time passes for what would be tried again.
      _ = poll(now: 0)
    }
  }

  /// Makes durable what was only written, so that the log can say so.
  private func syncAll() {
    do throws(SystemError) {
      try files.sync(from: segments.first * settings.segmentBytes, to: durablePosition)
      syncedPosition = durablePosition
    } catch {
      fail("\(error)")
    }
  }
}
