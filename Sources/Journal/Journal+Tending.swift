import Base

/// What the journal does because time passes: it looks for space, makes holes, merges files, and tries
/// again what failed.
extension Journal {
  /// Free space is looked at so often while the journal is used, and while there is too little of it.
  static let spaceLookMilliseconds: Int64 = 1000
  static let shortageLookMilliseconds: Int64 = 250

  /// When the journal has something to do though nobody asks for anything, in monotonic milliseconds; nil
  /// while it has nothing to do at any time. What its threads do is none of it: they say so when it is done.
  public var nextDue: Int64? {
    var due = spaceProblem == nil ? Int64.max : nextSpaceLookAt
    guard failure == nil else { return due == .max ? nil : due }
    if postponed != nil { due = min(due, files.spareCount > 0 ? 0 : commitBackoff.nextAt) }
    if hasSpaceToReturn { due = min(due, nextHolesAt ?? 0) }
    if laneFiles.mayBeSparse, !isSpilling { due = min(due, nextMergeAt) }
    if !isCommitting, let checkpointDue { due = min(due, checkpointDue) }
    if spillCutoff(now: .max) != nil { due = min(due, nextSpillAt) }
    return due == .max ? nil : due
  }

  /// Does what is due of that, but rounds and checkpoints, which the broker begins. `now` is monotonic
  /// milliseconds.
  public func tend(now: Int64) {
    returnHoles(now: now)
    mergeLaneFiles(now: now)
    lookForSpace(now: now)
    // A spare segment that was made or recycled meanwhile is what it waits for.
    guard let batch = postponed?.batch, files.spareCount > 0 || commitBackoff.isDue(at: now) else {
      return
    }
    postponed = nil
    if Sabotage.is(.losesPostponedBatch) {
      durablePosition = batch.end
      return
    }
    submit(batch)
  }

  /// Lane files take space as well as segments, and so do others.
  private func lookForSpace(now: Int64) {
    guard now >= nextSpaceLookAt else { return }
    nextSpaceLookAt =
      now + (spaceProblem == nil ? Self.spaceLookMilliseconds : Self.shortageLookMilliseconds)
    background.refill(now: now)
  }
}
