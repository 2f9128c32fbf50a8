import Journal

/// What the broker does by itself because time passes: what is due in its timetable, the journal's
/// tending, and what is tried again. All of it happens at the end of a turn, and `nextDue` says when it
/// wants one.
extension Broker {
  /// Empty queues give back their memory in rounds of so many milliseconds.
  private static let idleMilliseconds: Int64 = 250
  /// Queues that are looked at each time.
  private static let idleLooks = 8192
  static let unreadableMilliseconds: Int64 = 2000

  /// When the broker has something to do though nobody asks for anything, in monotonic milliseconds; nil
  /// while it has nothing to do at any time. Work that is underway (`hasChores`) is not part of it.
  public var nextDue: Int64? {
    var due = deadlines.next ?? .max
    if let nextIdleLook { due = min(due, nextIdleLook) }
    if !unreadable.isEmpty { due = min(due, nextReadAt) }
    if let journalDue = journal.nextDue { due = min(due, journalDue) }
    return due == .max ? nil : due
  }

  /// More is due than this turn had steps or time for: the next one is to come without waiting.
  public var hasDue: Bool { deadlines.hasDue(at: time) }

  /// Does what is due but for the journal's part.
  func tend() {
    deadlines.advance(to: time)
    lookAtIdleQueues()
    readAgain()
  }

  /// What could not be read is tried again.
  private func readAgain() {
    guard !unreadable.isEmpty, time >= nextReadAt else { return }
    nextReadAt = time + Self.unreadableMilliseconds
    let queues = unreadable
    unreadable = []
    journal.forgetFailures()
    for queue in queues { queue.tryAgain() }
  }

  // MARK: Idle queues

  /// Queues that have had no message for a while give back what they kept for the next ones. Each is looked
  /// at twice behind the last message of any queue.
  private func lookAtIdleQueues() {
    guard let due = nextIdleLook else {
      if isIdleLookWanted { nextIdleLook = time + Self.idleMilliseconds }
      return
    }
    // Whoever walks over the list goes on where it was.
    guard time >= due, !isWalking else { return }
    if isIdleLookWanted {
      isIdleLookWanted = false
      idleLooksLeft = 2 * holding.count
    }
    let count = min(Self.idleLooks, holding.count)
    for _ in 0..<count {
      if idleIndex >= holding.count { idleIndex = 0 }
      let queue = holding[idleIndex]
      // The one that takes its place is looked at next.
      if queue.trimIfIdle() { letGo(queue) } else { idleIndex += 1 }
    }
    idleLooksLeft -= count
    let isDone = !isIdleLookWanted && (idleLooksLeft <= 0 || holding.isEmpty)
    nextIdleLook = isDone ? nil : time + Self.idleMilliseconds
  }
}
