import Base
import Broker

/// When the broker cannot take more messages: memory, disk, a log that failed.
extension Loop {
  /// Memory is used up to its limit, or no longer.
  func watchMemory() {
    // What blocked publishers have sent is not what blocks them: it goes when they go on.
    let bytes = broker.memoryBytesPinned() - blockedInputBytes
    let limit = broker.account.limitBytes
    let isHigh = bytes > limit || (isMemoryHigh && bytes > limit / 10 * 9)
    guard isHigh != isMemoryHigh else { return }
    isMemoryHigh = isHigh
    updateAlarm()
  }

  /// The file system has no room for another segment, or has again.
  func watchSpace() {
    let problem = broker.journal.spaceProblem
    guard problem != spaceProblem else { return }
    if let problem { log.error("the journal cannot grow: \(problem)") }
    spaceProblem = problem
    updateAlarm()
  }

  /// Requests that wait for a log which finds no space are answered with the reason, after a time in
  /// which space could have come. What they asked for may still happen.
  func watchStuckLog() {
    guard let reason = broker.journal.stuckReason else {
      stuckSince = nil
      return
    }
    let since = stuckSince ?? now
    stuckSince = since
    guard now - since >= settings.stuckMilliseconds else { return }
    for connection in paused {
      connection.conversation.logFailed(reason)
      settle(connection)
    }
  }

  func announceFailure() {
    guard !isFailureAnnounced, let reason = broker.journal.failure else { return }
    isFailureAnnounced = true
    log.error(
      "the journal failed: \(reason); nothing durable is accepted any more, restart the broker")
    for case let connection? in connections {
      connection.conversation.logFailed(reason)
      connection.isThrottled = false
      settle(connection)
    }
  }

  /// Listeners to events and traces have missed some.
  func announceDropped() {
    let (events, traces) = broker.takeDropped()
    if events > 0 {
      log.tell(
        .notTold, of: "\(Broker.eventExchange)",
        "\(events) events were dropped: more happened than could be told")
    }
    if traces > 0 {
      log.tell(
        .notTold, of: "\(Broker.traceExchange)",
        "\(traces) copies of traced messages were dropped: there is no memory for them")
    }
  }

  private func updateAlarm() {
    let reason: String? =
      switch (isMemoryHigh, spaceProblem != nil) {
      case (true, true): "low on memory & disk"
      case (true, false): "low on memory"
      case (false, true): "low on disk"
      case (false, false): nil
      }
    guard reason != broker.alarm else { return }
    broker.alarm = reason
    if let reason {
      log.warning("publishers are blocked: \(reason)")
    } else {
      log.info("publishers are no longer blocked")
      hasMore = true
      unblockAll()
    }
  }

  func unblockAll() {
    resumePaused { $0.conversation.unblock() }
  }
}
