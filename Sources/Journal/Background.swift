import Base
import Glibc
import IO
import Synchronization

/// The core's end of the background thread: prepares spare segments, writes checkpoints, recycles
/// segments. What fails here is reported to the operator and tried again; no confirm depends on it.
final class Background: Sendable {
  private struct State {
    var finished: CheckpointOutcome?
    var spilled: SpillOutcome?
    var spaceProblem: String?
    var problems = ProblemList()
    /// What could not be given back, for the core to have it tried again.
    var refused: [LaneFiles.Return] = []
    /// The last answer of `watch`, so that the operator is told of each change once.
    var watched: String?
    /// Whether it was noted that the log failed; nil until that is known.
    var isFailureMarked: Bool?
    /// After a spare segment could not be made.
    var backoff = Backoff()
    /// The time when the core last asked for something, in monotonic milliseconds.
    var now: Int64 = 0
    /// A look for missing spares is due already.
    var isRefilling = false
    var isStopping = false
  }

  private let state = Mutex(State())
  private let worker: any Worker
  let files: SegmentFiles
  private let settings: Journal.Settings
  private let lanes: any LaneRecords
  private let watch: @Sendable () -> String?
  private let wake: @Sendable () -> Void

  /// Spare segments kept ready; more are removed.
  static let sparesMin = 1
  static let sparesMax = 4

  /// `wake` is called on the background thread when something is to be taken.
  init(
    worker: any Worker, files: SegmentFiles, settings: Journal.Settings, lanes: any LaneRecords,
    watch: @escaping @Sendable () -> String?, wake: @escaping @Sendable () -> Void
  ) {
    self.worker = worker
    self.files = files
    self.settings = settings
    self.lanes = lanes
    self.watch = watch
    self.wake = wake
  }

  /// Why no segment can be prepared, such as a full disk; nil if one can.
  var spaceProblem: String? { state.withLock { $0.spaceProblem } }

  func submit(_ job: @escaping @Sendable () -> Void) { worker.submit(job) }

  func append(_ piece: [UInt8], to checkpoint: CheckpointWriter) {
    worker.submit { checkpoint.append(piece) }
  }

  func store(_ header: CheckpointHeader, of checkpoint: CheckpointWriter) {
    worker.submit { [self] in
      let outcome = checkpoint.store(header, isSynced: settings.isSynced)
      state.withLock { $0.finished = outcome }
      wake()
    }
  }

  /// How the checkpoint ended, once.
  func takeOutcome() -> CheckpointOutcome? {
    state.withLock { state in
      defer { state.finished = nil }
      return state.finished
    }
  }

  /// Writes a lane file. `now` is monotonic milliseconds.
  func spill(_ round: SpillRound, now: Int64) {
    state.withLock { $0.now = now }
    worker.submit { [self] in
      let outcome = SpillWriter(round, files: files, records: lanes).write()
      state.withLock { $0.spilled = outcome }
      wake()
      // It took space; publishers must be blocked before the reserve is gone.
      prepareSpares()
    }
  }

  /// How the round ended, once.
  func takeSpillOutcome() -> SpillOutcome? {
    state.withLock { state in
      defer { state.spilled = nil }
      return state.spilled
    }
  }

  /// Gives the space of dead blocks and files back to the file system. What is tried again was told already.
  func giveBack(_ returns: [LaneFiles.Return], isAgain: Bool = false) {
    worker.submit { [self] in
      // What is left when the broker stops is found again when it starts.
      for part in returns where !state.withLock({ $0.isStopping }) {
        do throws(SystemError) {
          try giveBack(part)
        } catch {
          state.withLock { state in
            if !isAgain { state.problems.add("space could not be given back: \(error)") }
            // What is not there takes no space.
            if error.code != ENOENT { state.refused.append(part) }
          }
          wake()
        }
      }
    }
  }

  /// What could not be given back since this was last asked.
  func takeRefused() -> [LaneFiles.Return] {
    state.withLock { state in
      defer { state.refused = [] }
      return state.refused
    }
  }

  private func giveBack(_ part: LaneFiles.Return) throws(SystemError) {
    switch part {
    case .file(let number, let isScratch):
      try files.disk.remove(files.path(LaneTable.name(number, isScratch: isScratch)))
    case .ranges(let number, let isScratch, let ranges):
      let path = files.path(LaneTable.name(number, isScratch: isScratch))
      let file = try files.disk.open(path, .readWrite)
      for range in ranges { try file.punch(at: range.lowerBound, count: range.count) }
    }
  }

  /// Problems of this thread that were not yet reported to the operator; each is returned once.
  func takeProblems() -> [String] { state.withLock { $0.problems.take() } }

  func note(_ problem: String) {
    state.withLock { $0.problems.add(problem) }
    wake()
  }

  func noteMarked(_ isMarked: Bool) {
    state.withLock { $0.isFailureMarked = isMarked }
    wake()
  }

  /// Whether it was noted that the log failed; nil until that is known.
  var isFailureMarked: Bool? { state.withLock { $0.isFailureMarked } }

  /// Makes the spare segments that are missing, or finds out why that cannot be done. `now` is monotonic
  /// milliseconds.
  func refill(now: Int64) {
    let isDue = state.withLock { state in
      state.now = now
      defer { state.isRefilling = true }
      return state.isRefilling
    }
    guard !isDue else { return }
    worker.submit { [self] in
      state.withLock { $0.isRefilling = false }
      look()
      prepareSpares()
    }
  }

  /// Ends the thread after what it was given; a checkpoint that was handed over is still written.
  func stop() {
    state.withLock { $0.isStopping = true }
    worker.stop()
  }

  /// Reports once what `watch` finds wrong around the journal, such as a directory that was moved.
  private func look() {
    let text = watch()
    let isNews = state.withLock { state in
      guard state.watched != text else { return false }
      state.watched = text
      if let text { state.problems.add(text) }
      return text != nil
    }
    if isNews { wake() }
  }

  private func prepareSpares() {
    var problem = lackOfSpace()
    var hasMade = false
    while files.spareCount < Self.sparesMin, problem == nil, !state.withLock({ $0.isStopping }) {
      // What it fails for, it fails for again; each try fills the file system for a moment.
      if let known = state.withLock({ $0.backoff.isDue(at: $0.now) ? nil : $0.spaceProblem }) {
        problem = known
        break
      }
      do throws(SystemError) {
        try files.prepareSpare()
        hasMade = true
        state.withLock { $0.backoff.succeeded() }
        problem = lackOfSpace()
      } catch {
        state.withLock { $0.backoff.failed(at: $0.now) }
        problem = "\(error)"
      }
    }
    let isNews = state.withLock { state in
      defer { state.spaceProblem = problem }
      return state.spaceProblem != problem
    }
    if isNews || hasMade { wake() }
  }

  /// The file system has less free than the reserve and a segment; once it had, it must have two
  /// segments more than the reserve.
  private func lackOfSpace() -> String? {
    let segments = state.withLock { $0.spaceProblem == nil } ? 1 : 2
    do throws(SystemError) {
      let free = try files.disk.freeBytes(files.directory)
      let (wanted, isTooMuch) = settings.diskReserveBytes.addingReportingOverflow(
        segments * settings.segmentBytes)
      guard isTooMuch || free < wanted else { return nil }
      return "the file system of \(files.directory) has less free space than disk-reserve asks for"
    } catch {
      return "\(error)"
    }
  }
}
