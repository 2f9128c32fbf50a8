import Base

/// What is dead in lane files goes back to the file system, and files of which little is left become
/// one.
extension Journal {
  /// Segments from the oldest that is needed on.
  public var segmentCount: Int {
    (max(endPosition, 1) - 1) / settings.segmentBytes - segments.first + 1
  }
  public var laneFileCount: Int { laneFiles.count }
  /// Bytes of messages in lane files that somebody needs.
  public var laneBytes: Int { laneFiles.aliveBytes }

  static let holesMilliseconds: Int64 = 5000
  /// A file with no more than this alive is merged with others, once there are enough.
  static let sparseBytesMax = 1 << 20
  static let mergedFilesMax = 256
  static let mergeRetryMilliseconds: Int64 = 60_000
  /// All files are looked at for it no more often, since there may be many.
  static let mergeLookMilliseconds: Int64 = 250

  /// Gives back the space of what has died, as far as the log durably says that it has.
  func returnSpace() {
    laneFiles.seal(at: endPosition)
    returnSettledSpace()
  }

  /// The log says what it says before this position after a power loss, too.
  public var syncedEnd: Int {
    settings.isSynced ? durablePosition : max(syncedPosition, checkpointedPosition)
  }

  private var returnPosition: Int { Sabotage.is(.returnsSpaceEarly) ? .max : syncedEnd }

  func returnSettledSpace() {
    guard laneFiles.hasSealed, failure == nil, !isClosing else { return }
    for number in laneFiles.settle(upTo: returnPosition) {
      if !laneFiles.isScratch(number), !Sabotage.is(.forgetsRemovalRecord) {
        LaneFileRemovedRecord.append(to: self, number: UInt64(number))
      }
      laneFiles.doom(number, at: Sabotage.is(.removesFileBeforeRecord) ? 0 : endPosition)
    }
    let returns = laneFiles.removable(upTo: returnPosition)
    if !returns.isEmpty { background.giveBack(returns) }
  }

  /// Makes holes into lane files where blocks are dead. A file in which much dies in a short time is
  /// gone before that, mostly. What could not be given back before is tried again.
  func returnHoles(now: Int64) {
    guard hasSpaceToReturn, failure == nil else { return }
    guard let due = nextHolesAt else {
      nextHolesAt = now + Self.holesMilliseconds
      return
    }
    guard now >= due else { return }
    nextHolesAt = nil
    if !refusedReturns.isEmpty { background.giveBack(refusedReturns.take(), isAgain: true) }
    let returns = laneFiles.takeHoles(bytesMin: settings.holeBytesMin)
    if !returns.isEmpty { background.giveBack(returns) }
  }

  /// Something died in lane files since holes were made, or could not be given back.
  var hasSpaceToReturn: Bool { laneFiles.hasDead || !refusedReturns.isEmpty }

  // MARK: Merging

  /// Begins a round that moves what is left of many files into one.
  func mergeLaneFiles(now: Int64) {
    guard laneFiles.mayBeSparse, !isSpilling, failure == nil, now >= nextMergeAt else { return }
    let sparse = laneFiles.sparse(bytesMax: Self.sparseBytesMax)
    guard sparse.count >= settings.sparseFilesMin else {
      laneFiles.mayBeSparse = false
      nextMergeAt = now + Self.mergeLookMilliseconds
      return
    }
    nextMergeAt = now
    let merges = sparse.prefix(Self.mergedFilesMax).map { number in
      SpillRound.Merge(
        file: number, path: lanePath(number),
        blocks: laneFiles.slots(number).map { neededBlock($0, of: number) })
    }
    let round = SpillRound(
      number: laneFiles.takeNumber(), lanes: [], sources: [:], merges: merges, isScratch: false)
    pendingSpill = PendingSpill(
      number: round.number, isScratch: false, merges: merges)
    background.spill(round, now: now)
  }

  private func neededBlock(_ slot: UInt32, of number: UInt32) -> SpillRound.Merge.Block {
    let block = blocks[Int(slot)]
    invariant(
      block.home == .lane && block.file == number,
      "lane file \(number) has a block that is not its own")
    return SpillRound.Merge.Block(slot: slot, offset: block.start, size: block.used)
  }

  func failMerge(_ reason: String) {
    problems.add("lane files could not be merged: \(reason)")
    nextMergeAt += Self.mergeRetryMilliseconds
  }

  /// Blocks have moved from file to file. The old files stay until a checkpoint names the new one.
  func finishMerge(_ pending: PendingSpill, _ outcome: SpillOutcome) {
    for (merge, moved) in zip(pending.merges, outcome.merged) {
      guard let moved else {
        problems.add("\(merge.path) is damaged and was not merged with others")
        laneFiles.keep(merge.file)
        continue
      }
      for (block, copy) in zip(merge.blocks, moved) {
        laneFiles.bind(copy.file, at: copy.offset, to: block.slot)
        let slot = blocks[Int(block.slot)]
        if slot.home == .lane, slot.file == merge.file, slot.start == block.offset {
          blocks[Int(block.slot)].file = copy.file
          blocks[Int(block.slot)].start = copy.offset
        } else {
          laneFiles.died(copy.file, at: copy.offset)
        }
      }
      laneFiles.retire(merge.file)
      if Sabotage.is(.removesMergedFileEarly) {
        background.giveBack([.file(merge.file, isScratch: false)])
      }
      statistics.laneFilesMerged += 1
    }
  }

  /// A checkpoint is durable that was made when these files were retired.
  func removeRetired(_ numbers: [UInt32]) {
    guard !numbers.isEmpty else { return }
    for number in numbers { laneFiles.forget(number) }
    background.giveBack(numbers.map { .file($0, isScratch: false) })
  }
}
