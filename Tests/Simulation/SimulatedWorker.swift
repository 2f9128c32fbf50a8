import Base
import Glibc
import IO

/// Does jobs on a thread of its own, but only when the scheduler says so, and only as far as the next
/// operation on the disk: there others may go first. One thread runs at a time, so that a seed always
/// gives the same run; that is why the state here needs no lock.
final class SimulatedWorker: Worker, @unchecked Sendable {
  let name: String
  private let disk: VirtualDisk
  private var jobs: [@Sendable () -> Void] = []
  private var isInJob = false
  private var thread: Thread?
  private var isEnding = false
  /// The process is gone, though what is left of it may still be told to end.
  private var isAbandoned = false
  private let mayRun = Semaphore()
  private let hasPaused = Semaphore()

  init(name: String, disk: VirtualDisk) {
    self.name = name
    self.disk = disk
  }

  var hasWork: Bool { isInJob || !jobs.isEmpty }

  func submit(_ job: @escaping @Sendable () -> Void) {
    if isAbandoned { return }
    invariant(!isEnding, "a job for a worker that was stopped")
    jobs.append(job)
  }

  func drain() {
    while hasWork { step() }
  }

  func stop() {
    drain()
    end()
  }

  /// Goes on to the next operation on the disk, or to the end of a job.
  func step() {
    if thread == nil { start() }
    disk.running = self
    mayRun.signal()
    hasPaused.wait()
    disk.running = nil
  }

  /// The process is gone: what it had to do is not done, and what it does finds no disk.
  func abandon() {
    jobs.removeAll()
    isAbandoned = true
    while isInJob { step() }
    if !isEnding { end() }
  }

  /// On the worker's thread, before an operation on the disk.
  func pause() {
    hasPaused.signal()
    mayRun.wait()
  }

  private func start() {
    do throws(SystemError) {
      thread = try Thread(name: name) { [self] in run() }
    } catch {
      invariantFailed("\(error)")
    }
  }

  private func run() {
    while true {
      mayRun.wait()
      if isEnding { break }
      if !jobs.isEmpty {
        isInJob = true
        jobs.removeFirst()()
        isInJob = false
      }
      hasPaused.signal()
    }
  }

  private func end() {
    isEnding = true
    guard let thread = thread.take() else { return }
    mayRun.signal()
    thread.join()
  }
}

/// A count that threads wait for.
private final class Semaphore: @unchecked Sendable {
  private let raw: UnsafeMutablePointer<sem_t>

  init() {
    raw = .allocate(capacity: 1)
    sem_init(raw, 0, 0)
  }

  deinit {
    sem_destroy(raw)
    raw.deallocate()
  }

  func signal() { sem_post(raw) }

  func wait() {
    while sem_wait(raw) != 0 {}
  }
}
