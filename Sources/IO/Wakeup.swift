import CSystem
import Glibc

/// Wakes a thread that waits in a poller or on this alone. Any thread may signal.
public struct Wakeup: ~Copyable, Sendable {
  public let descriptor: FileDescriptor

  public init() throws(SystemError) {
    let raw = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    guard raw >= 0 else { throw SystemError("eventfd") }
    descriptor = FileDescriptor(owning: raw)
  }

  public func signal() {
    var one: UInt64 = 1
    _ = retrying { write(descriptor.raw, &one, 8) }
  }

  /// Forgets the signals so far.
  public func clear() { _ = take() }

  /// Forgets the signals so far, and returns whether there were any.
  public func take() -> Bool {
    var count: UInt64 = 0
    return retrying { read(descriptor.raw, &count, 8) } == 8
  }

  /// Waits for a signal, at most `timeoutMilliseconds` (-1: for ever), and clears it.
  public func wait(timeoutMilliseconds: Int32 = -1) {
    var event = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
    _ = retrying { poll(&event, 1, timeoutMilliseconds) }
    clear()
  }
}
