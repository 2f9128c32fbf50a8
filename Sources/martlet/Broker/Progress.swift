import Synchronization

/// Counts messages and, while somebody watches, shows how many there are and how fast they go, once
/// a second on one line.
final class Progress: Sendable {
  private let counter = Atomic(0)
  private let verb: String
  private let isShown: Bool
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant

  private static let clearLine = "\r\u{1B}[K"

  init(_ verb: String, _ notes: Notes) {
    self.verb = verb
    isShown = notes.isWatched
    start = clock.now
  }

  var count: Int { counter.load(ordering: .relaxed) }
  var elapsed: Duration { clock.now - start }

  func add() {
    counter.add(1, ordering: .relaxed)
  }

  /// `1,000 messages to "x" in 1.2 s, 833/s`; without time and speed where they say nothing.
  func summary(to target: String? = nil) -> String {
    let messages = HumanWords.count(count, "message") + (target.map { " to \($0)" } ?? "")
    guard count > 1, let rate = HumanWords.rate(count, in: elapsed) else { return messages }
    return "\(messages) in \(HumanWords.seconds(elapsed)), \(rate)"
  }

  /// Shows the progress until `work` is done.
  func shown<Result>(during work: () async -> Result) async -> Result {
    guard isShown else { return await work() }
    let display = Task { await show() }
    let result = await work()
    display.cancel()
    await display.value
    Console.say(Self.clearLine, terminator: "")
    return result
  }

  private func show() async {
    var last = 0
    while !Task.isCancelled {
      // Being cancelled while asleep is how this ends.
      do { try await Task.sleep(for: .seconds(1)) } catch { return }
      let now = count
      let messages = HumanWords.count(now, "message")
      Console.say(
        "\(Self.clearLine)\(verb) \(messages), \(HumanWords.grouped(now - last))/s",
        terminator: "")
      last = now
    }
  }
}
