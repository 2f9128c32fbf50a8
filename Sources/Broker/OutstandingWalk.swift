import Base

/// Shows, in slices between turns, the messages that have left their lanes and are not settled: what
/// was given back to some queues, and what channels have not acknowledged. A message that changes its
/// place meanwhile may be missed, or shown twice; whoever must not miss one is told by
/// `Broker.walked` of each that does.
struct OutstandingWalk {
  private var queues: [Queue]
  private var channels: [Channel]
  /// Where it goes on in the last of the queues, or of the channels.
  private var bound = UInt64.max
  private var tag: UInt64 = 0

  private static let entriesPerStep = 16
  /// So many at most before the steps are counted.
  private static let entriesMax = 4096

  init(_ broker: Broker, returnedTo queues: [Queue]) {
    self.queues = queues
    channels = broker.closingChannels
    for peer in broker.peers { channels += peer.channels }
  }

  /// Returns whether everything was shown.
  mutating func advance(
    _ steps: inout Int, _ body: (inout Entry, Queue) -> Void
  ) -> Bool {
    while steps > 0, let queue = queues.last {
      var count = 0
      let last = queue.returned.walk(below: bound, atMost: Self.limit(steps)) { entry in
        count += 1
        body(&entry, queue)
      }
      steps -= 1 + count / Self.entriesPerStep
      bound = last ?? .max
      if last == nil { queues.removeLast() }
    }
    while steps > 0, let channel = channels.last {
      var count = 0
      let last = channel.unacknowledged.walk(behind: tag, atMost: Self.limit(steps)) { delivery in
        count += 1
        guard let queue = delivery.queue?.takeUnretainedValue() else { return }
        body(&delivery.entry, queue)
      }
      steps -= 1 + count / Self.entriesPerStep
      tag = last ?? 0
      if last == nil { channels.removeLast() }
    }
    return queues.isEmpty && channels.isEmpty
  }

  private static func limit(_ steps: Int) -> Int {
    min(entriesMax, min(steps, entriesMax) * entriesPerStep)
  }
}

extension Broker {
  /// A message of a queue is about to change its place: from the lane, or from where it was given back
  /// to, to a channel, or back.
  func walked(_ entry: inout Entry, of queue: Queue) {
    if Sabotage.is(.missesWhatMoves) { return }
    snapshot?.note(entry, of: queue)
    selector?.note(entry, of: queue)
    mover?.relocate(&entry, of: queue)
  }
}
