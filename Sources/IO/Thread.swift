import CSystem
import Glibc

/// A thread of our own. One that nobody joins gives back what it took when it ends.
public struct Thread: ~Copyable, Sendable {
  private let handle: pthread_t

  /// Starts a thread that runs `body`; `name` is what tools such as `top -H` show, at most 15 bytes.
  public init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let box = Unmanaged.passRetained(ThreadBody(name: name, body: body))
    var handle = pthread_t()
    let failed = pthread_create(
      &handle, nil,
      { argument in
        let box = Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue()
        system_name_thread(String(box.name.prefix(15)))
        box.body()
        return nil
      }, box.toOpaque())
    guard failed == 0 else {
      box.release()
      throw SystemError("start thread \(name)", code: failed)
    }
    self.handle = handle
  }

  deinit {
    pthread_detach(handle)
  }

  /// Others may have the processor of the calling thread.
  public static func giveWay() { sched_yield() }

  /// Waits until the thread has ended.
  public consuming func join() {
    pthread_join(handle, nil)
    discard self
  }
}

private final class ThreadBody: Sendable {
  let name: String
  let body: @Sendable () -> Void

  init(name: String, body: @escaping @Sendable () -> Void) {
    self.name = name
    self.body = body
  }
}
