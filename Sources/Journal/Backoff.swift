/// When something that failed is tried again: at once, then less and less often. It counts the times
/// somebody asks, which the loop does a few times a second, so that no clock can stop it.
struct Backoff {
  private var interval = 1
  private var left = 0

  /// Eight seconds of the loop's time.
  static let intervalMax = 32

  mutating func isDue() -> Bool {
    guard left > 0 else { return true }
    left -= 1
    return false
  }

  mutating func failed() {
    left = interval - 1
    interval = min(2 * interval, Self.intervalMax)
  }

  mutating func succeeded() { self = Backoff() }
}
