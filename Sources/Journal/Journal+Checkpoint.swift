import Base

/// A checkpoint that is being made, waits for the log before it to become durable, or is being written.
struct PendingCheckpoint {
  let number: Int
  let writer: CheckpointWriter
  /// What the log says of the catalog from here on is not all in it.
  let begin: Int
  let replayFrom: Int
  /// Bytes that were handed over.
  var bytes = 0
  /// All was handed over.
  var header: CheckpointHeader?
  /// Lane files that it does not name any more.
  var retired: [UInt32] = []
  var isHandedOver = false
}

/// Checkpoints are made in pieces, between turns, while the log goes on. So what they say of one object
/// is of another moment than what they say of the next; `Specs/Architecture.md` has the reasons why
/// reading the log over them gives the right state all the same.
extension Journal {
  static let checkpointRetryMilliseconds: Int64 = 5000
  /// The next checkpoint is not begun before the log has grown, and so much of it can be recycled, or of
  /// lane files be given back, by so many times the bytes of the last, in the mean of the two.
  static let checkpointGrowth = 4

  /// Segments, or lane files, could be given up if the catalog were written down. `now` is monotonic
  /// milliseconds.
  public func wantsCheckpoint(now: Int64) -> Bool {
    guard let checkpointDue else { return false }
    return now >= checkpointDue
  }

  /// From when on a checkpoint is wanted, as things are, in monotonic milliseconds; nil if none is.
  var checkpointDue: Int64? {
    guard pendingCheckpoint == nil, failure == nil, isWorthCheckpoint else { return nil }
    if recyclableBytes > 0 || laneFiles.retiredCount > 0 { return nextCheckpointAt }
    // Where writes are not synced, only a checkpoint lets space of lane files go.
    guard !settings.isSynced, laneFiles.hasSealed else { return nil }
    return nextCheckpointAt + Self.checkpointRetryMilliseconds
  }

  /// What checkpoints cost is bounded by what is written, however large the catalog is: no byte of the
  /// log grows, or is recycled, twice, and a block of a lane file counts when it dies and when its file
  /// goes. If only growth counted, a log that is not written to would keep for good what moved out of it
  /// last; if lane files did not, it would have for good twice what was merged. Without space for more
  /// there is nothing to wait for.
  private var isWorthCheckpoint: Bool {
    let grown = endPosition - lastCheckpointBegin
    return grown + recyclableBytes + returnableBytes
      >= 2 * Self.checkpointGrowth * lastCheckpointBytes
      || spaceProblem != nil
  }

  /// Bytes of lane files that wait for a checkpoint: of files whose blocks were merged into another, and
  /// of all that has died where writes are not synced.
  private var returnableBytes: Int {
    laneFiles.retiredBytes + (settings.isSynced ? 0 : laneFiles.sealedBytes)
  }

  /// Bytes of the log in segments that a checkpoint made now would let go.
  private var recyclableBytes: Int {
    (segments.firstLive(notAbove: durablePosition) - segments.first) * settings.segmentBytes
  }

  /// Begins a checkpoint: what the broker says from now on goes into it, until `finishCheckpoint`. What
  /// the log needs of what is alive now stays until it is stored. Returns its number.
  public func beginCheckpoint(now: Int64) -> Int {
    nextCheckpointAt = now
    checkpointNumber += 1
    let first = segments.firstLive(notAbove: durablePosition)
    pendingCheckpoint = PendingCheckpoint(
      number: checkpointNumber, writer: CheckpointWriter(files, at: endPosition),
      begin: endPosition, replayFrom: first * settings.segmentBytes)
    lastCheckpointBegin = endPosition
    return checkpointNumber
  }

  public var isCheckpointing: Bool { pendingCheckpoint != nil }

  /// Whether the checkpoint is still being made.
  public func isMakingCheckpoint(_ number: Int) -> Bool {
    isMakingCheckpoint && pendingCheckpoint?.number == number
  }

  /// Whether any checkpoint is still being made.
  var isMakingCheckpoint: Bool {
    pendingCheckpoint.map { $0.header == nil } ?? false && failure == nil
  }

  /// Records for the checkpoint, whole ones.
  public func appendToCheckpoint(_ piece: [UInt8]) {
    guard let pending = pendingCheckpoint, !piece.isEmpty else { return }
    pendingCheckpoint?.bytes += piece.count
    background.append(piece, to: pending.writer)
  }

  /// The broker has said all; it is stored once the log is durable up to here.
  public func finishCheckpoint() {
    appendToCheckpoint(laneRecords())
    guard let pending = pendingCheckpoint else { return }
    var replayFrom = pending.replayFrom
    if Sabotage.is(.replaysFromSnapshotsEnd) {
      replayFrom = segments.firstLive(notAbove: durablePosition) * settings.segmentBytes
    }
    lastCheckpointBytes = pending.bytes
    pendingCheckpoint?.header = CheckpointHeader(
      identity: files.identity, position: endPosition, replayFrom: replayFrom,
      catalogPosition: Sabotage.is(.forgetsChangesDuringSnapshot) ? endPosition : pending.begin)
    pendingCheckpoint?.retired = laneFiles.retired
    handOverCheckpoint()
  }

  /// The broker will not say more, since the log failed.
  public func abandonCheckpoint() {
    pendingCheckpoint = nil
  }

  /// A whole checkpoint at once; for tests, and where the catalog is small.
  public func checkpoint(payload: [UInt8], now: Int64) {
    _ = beginCheckpoint(now: now)
    appendToCheckpoint(payload)
    finishCheckpoint()
  }

  /// The lane files that hold something, as the checkpoint has them.
  private func laneRecords() -> [UInt8] {
    var bytes: [UInt8] = []
    for number in laneFiles.listed {
      LaneFileRecord.raw(number: UInt64(number)).append(to: &bytes)
    }
    return bytes
  }

  func handOverCheckpoint() {
    guard let pending = pendingCheckpoint, let header = pending.header, !pending.isHandedOver,
      durablePosition >= header.position
    else { return }
    pendingCheckpoint?.isHandedOver = true
    background.store(header, of: pending.writer)
  }

  func takeCheckpointOutcome() {
    switch background.takeOutcome() {
    case .stored(let first, let recycled):
      segments.drop(before: first)
      removeRetired(pendingCheckpoint?.retired ?? [])
      checkpointedPosition = pendingCheckpoint?.header?.position ?? checkpointedPosition
      statistics.checkpoints += 1
      statistics.checkpointBytes += pendingCheckpoint?.bytes ?? 0
      statistics.segmentsRecycled += recycled
      pendingCheckpoint = nil
    case .failed(let reason):
      problems.add("a checkpoint could not be written: \(reason)")
      nextCheckpointAt += Self.checkpointRetryMilliseconds
      pendingCheckpoint = nil
    case nil:
      break
    }
  }
}
