import Base

/// Shows, in slices between turns, the messages that have left their lanes and are not settled: what
/// was given back to some lanes, what channels have not acknowledged, and what waits to be sent on. A message
/// that changes its place meanwhile may be missed, or shown twice; whoever must not miss one is told by
/// `Broker.walked` of each that does.
struct OutstandingWalk {
  // Unsafe but sound: a walk is the broker's.
  private unowned(unsafe) let broker: Broker
  private var lanes: [Lane]
  /// Those whose channels are still to come.
  private var peers: [Peer]
  /// Of one of them, or at last those that are being closed.
  private var channels: [Channel] = []
  private var hasClosing = false
  private var letters: DeadLetters?
  /// Where it goes on in the last of the lanes, or of the channels.
  private var bound = UInt64.max
  private var tag: UInt64 = 0

  private static let entriesPerStep = 16
  /// So many at most before the steps are counted.
  private static let entriesMax = 4096

  init(_ broker: Broker, returnedTo lanes: [Lane]) {
    self.broker = broker
    self.lanes = lanes
    letters = broker.deadLetters
    peers = broker.peers
  }

  /// Returns whether everything was shown.
  mutating func advance(
    _ steps: inout Int, _ body: (inout Entry, Lane) -> Void
  ) -> Bool {
    while steps > 0, let lane = lanes.last {
      var count = 0
      let last = lane.returned.walk(below: bound, atMost: Self.limit(steps)) { entry in
        count += 1
        body(&entry, lane)
      }
      steps -= 1 + count / Self.entriesPerStep
      bound = last ?? .max
      if last == nil { lanes.removeLast() }
    }
    while steps > 0, takeChannels(&steps), let channel = channels.last {
      if walk(&channel.unacknowledged, &steps, body) { channels.removeLast() }
    }
    while steps > 0, let current = letters {
      if walk(&current.pending, &steps, body) { letters = nil }
    }
    return lanes.isEmpty && channels.isEmpty && hasClosing && letters == nil
  }

  /// Takes the channels of the next connection, or those that are being closed: they come last, or one that
  /// begins to close in front of the walk would be missed. Returns whether there are any.
  private mutating func takeChannels(_ steps: inout Int) -> Bool {
    while channels.isEmpty, !hasClosing {
      if let peer = peers.popLast() {
        channels = peer.channels
      } else {
        hasClosing = true
        channels = broker.closingChannels
      }
      steps -= 1 + channels.count / Self.entriesPerStep
    }
    return !channels.isEmpty
  }

  /// Returns whether all of a list was shown.
  private mutating func walk(
    _ list: inout Unacknowledged, _ steps: inout Int, _ body: (inout Entry, Lane) -> Void
  ) -> Bool {
    var count = 0
    let last = list.walk(behind: tag, atMost: Self.limit(steps)) { delivery in
      count += 1
      guard let lane = delivery.lane?.takeUnretainedValue() else { return }
      body(&delivery.entry, lane)
    }
    steps -= 1 + count / Self.entriesPerStep
    tag = last ?? 0
    return last == nil
  }

  private static func limit(_ steps: Int) -> Int {
    min(entriesMax, min(steps, entriesMax) * entriesPerStep)
  }
}

extension Broker {
  /// A message is about to change its place: from its lane, or from where it was given back to, to a
  /// channel, or back.
  func walked(_ entry: inout Entry, of lane: Lane) {
    if Sabotage.is(.missesWhatMoves) { return }
    snapshot?.note(entry, of: lane)
    selector?.note(entry, of: lane)
    mover?.relocate(&entry, of: lane)
  }
}
