import CSystem
import Glibc

/// A descriptor that becomes readable at a chosen moment: finer than a poller's milliseconds.
public struct Timer: ~Copyable, Sendable {
  public let descriptor: FileDescriptor

  public init() throws(SystemError) {
    let raw = timerfd_create(CLOCK_MONOTONIC, Int32(TFD_CLOEXEC | TFD_NONBLOCK))
    guard raw >= 0 else { throw SystemError("timerfd_create") }
    descriptor = FileDescriptor(owning: raw)
  }

  /// Fires once at `nanoseconds` of the monotonic clock, at once if that has passed, instead of
  /// when it was armed for before.
  public func arm(atNanoseconds nanoseconds: Int64) {
    let moment = max(1, nanoseconds)
    var setting = itimerspec()
    setting.it_value.tv_sec = Int(moment / 1_000_000_000)
    setting.it_value.tv_nsec = Int(moment % 1_000_000_000)
    _ = timerfd_settime(descriptor.raw, Int32(TFD_TIMER_ABSTIME), &setting, nil)
  }

  /// Forgets that it fired.
  public func clear() {
    var count: UInt64 = 0
    _ = retrying { read(descriptor.raw, &count, 8) }
  }
}
