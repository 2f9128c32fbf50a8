/// When each message of a run with a fixed rate is due: message m of all publishers together at
/// `start` + m / rate, publishers taking turns.
struct Pacer {
  let startNanoseconds: Int64
  let messagesPerSecond: Double
  let publishers: Int

  /// Waking up for less than this costs more than it spreads.
  private static let pauseNanosecondsMin: Int64 = 20_000

  /// How many messages publisher `index` should have published by `now`.
  func due(ofPublisher index: Int, now: Int64) -> Int {
    let all = dueOfAll(now: now)
    return all <= index ? 0 : (all - index - 1) / publishers + 1
  }

  /// When message `number` of publisher `index` is due, both from 0.
  func time(ofPublisher index: Int, message number: Int) -> Int64 {
    time(number * publishers + index)
  }

  /// Nanoseconds from one message of a publisher to its next.
  var stepNanoseconds: Int64 {
    Int64(1_000_000_000 * Double(publishers) / messagesPerSecond)
  }

  /// When to look again.
  func nextTime(after now: Int64) -> Int64 {
    max(time(dueOfAll(now: now)), now + Self.pauseNanosecondsMin)
  }

  /// How many messages all publishers together should have published by `now`.
  func dueOfAll(now: Int64) -> Int {
    let elapsed = Double(max(0, now - startNanoseconds))
    return Int(elapsed * messagesPerSecond / 1_000_000_000) + 1
  }

  private func time(_ message: Int) -> Int64 {
    startNanoseconds + Int64((Double(message) * 1_000_000_000 / messagesPerSecond).rounded(.up))
  }
}
