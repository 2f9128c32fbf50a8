import Base
import IO
import Synchronization

/// The background thread: prepares spare segments, writes checkpoints, recycles segments. What goes
/// wrong here is tried again, and said; nothing confirmed depends on it.
final class Background: Sendable {
  private struct State {
    var checkpoint: CheckpointFile?
    var finished: CheckpointOutcome?
    var spaceProblem: String?
    var isStopping = false
  }

  private let state = Mutex(State())
  private let work: Wakeup
  private let ended: Wakeup

  /// Spare segments kept ready; more are removed.
  static let sparesMin = 1
  static let sparesMax = 4

  init(
    files: SegmentFiles, settings: Journal.Settings, wake: @escaping @Sendable () -> Void
  ) throws(SystemError) {
    work = try Wakeup()
    ended = try Wakeup()
    _ = try Thread(name: "background") { [self] in
      run(files, settings, wake)
      ended.signal()
    }
    work.signal()
  }

  /// Why no segment can be prepared, such as a full disk; nil if one can.
  var spaceProblem: String? { state.withLock { $0.spaceProblem } }

  func write(_ checkpoint: CheckpointFile) {
    state.withLock { $0.checkpoint = checkpoint }
    work.signal()
  }

  /// How the checkpoint ended, once.
  func takeOutcome() -> CheckpointOutcome? {
    state.withLock { state in
      defer { state.finished = nil }
      return state.finished
    }
  }

  /// Looks again whether spare segments are missing.
  func refill() {
    work.signal()
  }

  /// Ends the thread after what it is doing; a checkpoint that was handed over is still written.
  func stop() {
    state.withLock { $0.isStopping = true }
    work.signal()
    ended.wait()
  }

  private func run(
    _ files: SegmentFiles, _ settings: Journal.Settings, _ wake: () -> Void
  ) {
    while true {
      let hasProblem = state.withLock { $0.spaceProblem != nil }
      work.wait(timeoutMilliseconds: hasProblem ? 1000 : -1)
      let (checkpoint, isStopping) = state.withLock { state in
        defer { state.checkpoint = nil }
        return (state.checkpoint, state.isStopping)
      }
      if let checkpoint {
        let outcome = checkpoint.store(files)
        state.withLock { $0.finished = outcome }
        wake()
      }
      if isStopping { return }
      prepareSpares(files, settings, wake)
    }
  }

  private func prepareSpares(
    _ files: SegmentFiles, _ settings: Journal.Settings, _ wake: () -> Void
  ) {
    var problem = lackOfSpace(files, settings)
    while files.spareCount < Self.sparesMin, problem == nil, !state.withLock({ $0.isStopping }) {
      do throws(SystemError) {
        try files.prepareSpare()
        problem = lackOfSpace(files, settings)
      } catch {
        problem = "\(error)"
      }
    }
    let isNews = state.withLock { state in
      defer { state.spaceProblem = problem }
      return state.spaceProblem != problem
    }
    if isNews { wake() }
  }

  /// The file system has less free than the reserve and a segment; once it had, it must have two
  /// segments more than the reserve.
  private func lackOfSpace(_ files: SegmentFiles, _ settings: Journal.Settings) -> String? {
    let segments = state.withLock { $0.spaceProblem == nil } ? 1 : 2
    do throws(SystemError) {
      let free = try FileSystem.freeBytes(files.directory)
      let (wanted, isTooMuch) = settings.diskReserveBytes.addingReportingOverflow(
        segments * settings.segmentBytes)
      guard isTooMuch || free < wanted else { return nil }
      return "the file system of \(files.directory) has less free space than disk-reserve asks for"
    } catch {
      return "\(error)"
    }
  }
}
