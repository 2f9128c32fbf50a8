import IO

/// A moment until which something is waited for.
struct Deadline {
  /// Monotonic nanoseconds; nil is never.
  private let nanoseconds: Int64?

  /// So many milliseconds from now; -1 is never.
  init(milliseconds: Int32) {
    nanoseconds =
      milliseconds < 0 ? nil : Clock.monotonicNanoseconds() + Int64(milliseconds) * 1_000_000
  }

  var hasPassed: Bool { remainingMilliseconds == 0 }

  /// What `poll` wants: rounded up, at least 0, and -1 for ever.
  var remainingMilliseconds: Int32 {
    guard let nanoseconds else { return -1 }
    let rest = nanoseconds - Clock.monotonicNanoseconds()
    return Int32(clamping: max(0, (rest + 999_999) / 1_000_000))
  }
}
