/// Knows of a message that comes to a lane whether all before it leave sooner. If so it leaves when it is the
/// first, and nobody has to look for it; otherwise it is an early one.
struct ExpiryOrder: BitwiseCopyable {
  /// None of the messages up to `sequence` expires later, as a date; `.max` if one may never do.
  private var latest = Int64.min
  /// The last message that was seen. Those that do not expire are not shown.
  private var sequence: UInt64 = 0

  init() {}

  /// The lane has no message.
  mutating func reset(before next: UInt64) {
    latest = .min
    sequence = next &- 1
  }

  /// Something may stay for ever.
  mutating func reset(behindImmortal last: UInt64) {
    latest = .max
    sequence = last
  }

  /// Recovery shows all messages of a lane one after the other, with dates; whether one before lives longer.
  mutating func isEarlyAtRecovery(_ date: Int64, of next: UInt64) -> Bool {
    sequence = next
    let isEarly = date < latest
    latest = max(latest, date)
    return isEarly
  }

  /// A message comes that expires at a date; whether one before it lives longer.
  mutating func isEarly(_ date: Int64, of next: UInt64) -> Bool {
    // One that does not expire came between.
    if sequence &+ 1 != next { latest = .max }
    return isEarlyAtRecovery(date, of: next)
  }
}
