import Base
import Glibc

/// The kernel's clocks. The broker's core has none: it is told the time.
public enum Clock {
  /// Nanoseconds since some moment before the start of the process; never goes back.
  public static func monotonicNanoseconds() -> Int64 {
    read(CLOCK_MONOTONIC)
  }

  /// Milliseconds since 1970.
  public static func wallMilliseconds() -> Int64 {
    read(CLOCK_REALTIME) / 1_000_000
  }

  /// Both, for the broker's core.
  public static func moment() -> Moment {
    Moment(monotonic: monotonicNanoseconds() / 1_000_000, wall: wallMilliseconds())
  }

  /// Nanoseconds for which the calling thread had a processor, of its own and in the kernel. A call of the
  /// kernel, unlike the others.
  public static func threadProcessorNanoseconds() -> Int64 {
    read(CLOCK_THREAD_CPUTIME_ID)
  }

  private static func read(_ clock: clockid_t) -> Int64 {
    var now = timespec()
    clock_gettime(clock, &now)
    return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
  }
}
