import Glibc
import IO
import Synchronization

/// Runs asynchronous work from a synchronous main thread. The first SIGINT or SIGTERM cancels the
/// work, which then ends in order; another one, later, ends the process at once.
enum InterruptibleTask {
  /// Signals that follow the first one sooner are the same request: timeout(1) and others send one
  /// to the process and one to its group.
  private static let impatienceNanoseconds: Int64 = 500_000_000

  static func run(
    _ work: @escaping @Sendable () async throws(Failure) -> ExitCode
  ) throws(Failure) -> ExitCode {
    let (result, signal): (Result<ExitCode, Failure>, Int32?)
    do throws(SystemError) {
      let signals = try SignalQueue([SIGINT, SIGTERM])
      let completion = Completion(wakeup: try Wakeup())
      let task = Task.detached {
        do throws(Failure) {
          completion.finish(.success(try await work()))
        } catch {
          completion.finish(.failure(error))
        }
      }
      (result, signal) = try wait(completion, signals, task)
    } catch {
      throw Failure("\(error)")
    }
    do throws(Failure) {
      return ending(try result.get(), by: signal)
    } catch {
      throw Failure(error.text, code: ending(error.code, by: signal))
    }
  }

  /// Work that was cut short says so; by which signal is known here.
  private static func ending(_ code: ExitCode, by signal: Int32?) -> ExitCode {
    code == .interrupted && signal == SIGTERM ? .terminated : code
  }

  private static func wait(
    _ completion: Completion, _ signals: borrowing SignalQueue, _ task: Task<Void, Never>
  ) throws(SystemError) -> (Result<ExitCode, Failure>, Int32?) {
    var waits = [
      pollfd(fd: completion.wakeup.descriptor.raw, events: Int16(POLLIN), revents: 0),
      pollfd(fd: signals.descriptor.raw, events: Int16(POLLIN), revents: 0),
    ]
    var first: (signal: Int32, time: Int64)?
    while true {
      guard poll(&waits, nfds_t(waits.count), -1) >= 0 || errno == EINTR else {
        throw SystemError("poll")
      }
      if let result = completion.result { return (result, first?.signal) }
      guard let signal = signals.next() else { continue }
      let now = Clock.monotonicNanoseconds()
      if let first, now - first.time > impatienceNanoseconds { _exit(128 + signal) }
      first = first ?? (signal, now)
      task.cancel()
    }
  }
}

/// The result of the work, and the wake-up for whoever waits for it.
private final class Completion: Sendable {
  let wakeup: Wakeup
  private let state = Mutex<Result<ExitCode, Failure>?>(nil)

  init(wakeup: consuming Wakeup) { self.wakeup = wakeup }

  var result: Result<ExitCode, Failure>? { state.withLock { $0 } }

  func finish(_ result: Result<ExitCode, Failure>) {
    state.withLock { $0 = result }
    wakeup.signal()
  }
}
