import Base
import Synchronization

/// Does jobs away from the caller, one at a time and in their order. `ThreadWorker` does them on a
/// thread of its own; a simulator does them when its scheduler says so.
public protocol Worker: AnyObject, Sendable {
  func submit(_ job: @escaping @Sendable () -> Void)
  /// Returns when all jobs that were submitted are done. Only one thread may wait.
  func drain()
  /// Ends the worker after the jobs that were submitted; it takes no more.
  func stop()
}

/// A thread that does jobs.
public final class ThreadWorker: Worker {
  /// An array of bare closures would box each one.
  private struct Job: Sendable {
    let run: @Sendable () -> Void
  }

  private struct State {
    var jobs: [Job] = []
    var isStopping = false
  }

  private let state = Mutex(State())
  private let work: Wakeup
  private let drained: Wakeup
  private let ended: Wakeup

  /// `name` is what tools such as `top -H` show, at most 15 bytes.
  public init(name: String) throws(SystemError) {
    work = try Wakeup()
    drained = try Wakeup()
    ended = try Wakeup()
    _ = try Thread(name: name) { [self] in
      run()
      ended.signal()
    }
  }

  public func submit(_ job: @escaping @Sendable () -> Void) {
    let job = Job(run: job)
    let wasIdle = state.withLock { state in
      invariant(!state.isStopping, "a job for a worker that was stopped")
      state.jobs.append(job)
      return state.jobs.count == 1
    }
    if wasIdle { work.signal() }
  }

  public func drain() {
    submit { [self] in drained.signal() }
    drained.wait()
  }

  public func stop() {
    state.withLock { $0.isStopping = true }
    work.signal()
    ended.wait()
  }

  private func run() {
    var jobs: [Job] = []
    while true {
      work.wait()
      let isStopping = state.withLock { state in
        swap(&jobs, &state.jobs)
        return state.isStopping
      }
      for job in jobs { job.run() }
      jobs.removeAll(keepingCapacity: true)
      if isStopping { return }
    }
  }
}
