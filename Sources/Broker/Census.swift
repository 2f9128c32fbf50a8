/// How many queues and streams there are, and messages in them.
public struct MessageCounts: Equatable {
  public var queues = 0
  public var ready = 0
  public var unacknowledged = 0

  public init() {}
}

/// Counts all messages. There may be a million queues, so that it goes on between turns, and what changes
/// meanwhile is counted as it was or as it is.
final class Census: Chore {
  private var vhosts: [VirtualHost]
  /// The next part of the last one's table.
  private var part = 0
  /// Of that table, and what was counted before it: it may be laid out anew meanwhile.
  private var partCount: Int?
  private var countsBefore = MessageCounts()
  private var counts = MessageCounts()
  private let body: (MessageCounts) -> Void

  init(_ vhosts: [VirtualHost], _ body: @escaping (MessageCounts) -> Void) {
    self.vhosts = vhosts
    self.body = body
  }

  func advance(_ steps: inout Int) -> Bool {
    while let vhost = vhosts.last {
      guard steps > 0 else { return false }
      steps -= 1
      if let partCount, partCount != vhost.destinations.partCount { counts = countsBefore }
      if partCount != vhost.destinations.partCount {
        partCount = vhost.destinations.partCount
        part = 0
      }
      guard part < vhost.destinations.partCount else {
        vhosts.removeLast()
        partCount = nil
        countsBefore = counts
        continue
      }
      let destinations = vhost.destinations.part(part)
      part += 1
      for destination in destinations.values {
        counts.queues += 1
        counts.ready += destination.readyCount
        counts.unacknowledged += destination.unacknowledgedCount
      }
      steps -= destinations.count
    }
    body(counts)
    return true
  }
}

extension Broker {
  /// Shows `body` how many queues there are, and messages in them: at once if that is little work.
  public func count(_ body: @escaping (MessageCounts) -> Void) {
    chores.begin(Census(Array(vhosts.values), body), for: nil)
  }
}
