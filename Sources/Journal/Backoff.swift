/// When something that failed is tried again: soon, then less and less often. Times are monotonic
/// milliseconds, so that nobody who sets the clock can stop it.
struct Backoff {
  private var interval = first
  /// It is tried again from then on.
  private(set) var nextAt = Int64.min

  private static let first: Int64 = 250
  static let intervalMax: Int64 = 8000

  func isDue(at now: Int64) -> Bool { now >= nextAt }

  mutating func failed(at now: Int64) {
    nextAt = now + interval
    interval = min(2 * interval, Self.intervalMax)
  }

  mutating func succeeded() { self = Backoff() }
}
