extension Queue {
  func purged() {
    for lane in lanes { lane.logProgress() }
    letGo()
  }

  /// Ends one of the consumers of a deleted queue; false when there is none.
  func endConsumer() -> Bool {
    guard let consumer = rounds.any else { return false }
    remove(consumer)
    consumer.channel.queueDeleted(consumer)
    return true
  }

  /// Gives up some messages of a deleted queue; true when there are no more.
  func dropMessages(_ steps: inout Int) -> Bool {
    var isOver = true
    for lane in lanes where isOver { isOver = lane.dropMessages(&steps) }
    if isOver { gaveUp() } else { countEntries() }
    return isOver
  }
}

/// The messages of a queue that are being purged. Those that are given back or published meanwhile
/// stay.
final class QueuePurge: Chore {
  private let queue: Queue
  private var lanes: [LanePurge]
  private weak var peer: Peer?

  init(_ queue: Queue, for peer: Peer) {
    self.queue = queue
    self.peer = peer
    lanes = queue.lanes.map { LanePurge($0) }
  }

  func advance(_ steps: inout Int) -> Bool {
    while let lane = lanes.last {
      guard lane.advance(&steps) else { return false }
      lanes.removeLast()
    }
    queue.purged()
    if queue.isDurable { peer?.worked() }
    return true
  }
}

/// The messages of a lane that are being purged.
final class LanePurge {
  private let lane: Lane
  /// Had been given back.
  var returned = Returned()
  /// Messages that waited and are still to go: the first ones.
  private(set) var count: Int
  private let last: UInt64

  init(_ lane: Lane) {
    self.lane = lane
    count = lane.waiting.count - lane.doomedCount
    last = lane.nextSequence - 1
    lane.doom(to: self)
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0, !returned.isEmpty {
      steps -= 1
      lane.settle(returned.removeFirst())
    }
    // A queue that was deleted gives up its lanes itself.
    if lane.isDeleted { count = 0 }
    count -= lane.purge(count, upTo: last, &steps)
    return returned.isEmpty && count == 0
  }
}

/// The consumers and messages of a queue that was deleted.
final class QueueEnd: Chore {
  private static let stepsPerConsumer = 7

  private let queue: Queue

  init(_ queue: Queue) {
    self.queue = queue
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0 {
      guard queue.endConsumer() else { return queue.dropMessages(&steps) }
      steps -= Self.stepsPerConsumer
    }
    return false
  }
}

extension Lane {
  /// Gives up some messages of a deleted queue; true when there are no more.
  func dropMessages(_ steps: inout Int) -> Bool {
    while steps > 0, !returned.isEmpty {
      steps -= 1
      journal.release(returned.removeFirst().location.block)
    }
    _ = waiting.removeFirst(
      .max, upTo: .max, &steps, entry: { journal.release($0.location.block) },
      run: { journal.release($0.block, count: Int($0.count)) })
    return returned.isEmpty && waiting.count == 0
  }
}
