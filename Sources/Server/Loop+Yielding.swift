/// A turn that has taken long takes no more requests, also not the rest of what it has read: a batch of
/// input holds thousands of requests, each of which may lead to much. The rest stands in the connection's
/// `leftover`, and nothing more is read from it meanwhile.
extension Loop {
  func yield(_ connection: Connection) {
    hasMore = true
    guard !connection.isYielding else { return }
    connection.isYielding = true
    yielding.append(connection)
  }

  /// A turn has begun: they go on in their order, the first in any case.
  func resumeYielding() {
    let waiting = yielding
    yielding = []
    var next = 0
    while next < waiting.count, next == 0 || !broker.isTurnLong() {
      let connection = waiting[next]
      next += 1
      connection.isYielding = false
      guard !connection.isClosed, connection.conversation.resumeInTurn() else { continue }
      // Whoever is held back goes on when the log has caught up.
      if !connection.isThrottled { resume(connection) }
    }
    guard next < waiting.count else { return }
    yielding.insert(contentsOf: waiting[next...], at: 0)
    hasMore = true
  }
}
