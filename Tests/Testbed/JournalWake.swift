import IO

/// What the journal's threads signal and a test waits for.
package final class JournalWake: Sendable {
  private let wakeup: Wakeup

  package init() throws(SystemError) {
    wakeup = try Wakeup()
  }

  package func signal() { wakeup.signal() }

  /// Whether it was signalled since it was asked, or waited for.
  package func take() -> Bool { wakeup.take() }

  /// Gives up after a time that no disk needs, so that a lost signal shows as a failure.
  package func wait() { wakeup.wait(timeoutMilliseconds: 60_000) }
}
