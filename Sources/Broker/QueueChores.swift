extension Queue {
  /// Deletes all messages that are ready now; returns how many. The requests of `peer` wait until it
  /// is done.
  func purge(for peer: Peer) -> Int {
    let count = readyCount
    guard count > 0 else { return 0 }
    let purge = QueuePurge(
      self, laneCount: lane.count - doomedCount, upTo: nextSequence - 1, for: peer)
    swap(&returned, &purge.returned)
    doomedCount += purge.laneCount
    hold()
    broker.chores.begin(purge, for: peer)
    return count
  }

  /// Deletes some of the first messages of the lane, which are being purged.
  func purgeLane(_ limit: Int, upTo last: UInt64, _ steps: inout Int) -> Int {
    let count = lane.removeFirst(limit, upTo: last, &steps, entry: settle, run: settle)
    doomedCount -= count
    return count
  }

  func purged() {
    logProgress()
    letGo()
  }

  /// The queue is deleted: its consumers end and its messages go, without a word to the log, which
  /// knows that the queue is gone.
  func drop() {
    markDeleted()
    if rounds.count > 0 || lane.count > 0 || !returned.isEmpty {
      broker.chores.begin(QueueEnd(self), for: nil)
    }
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
    while steps > 0, !returned.isEmpty {
      steps -= 1
      journal.release(returned.removeFirst().location.block)
    }
    _ = lane.removeFirst(
      .max, upTo: .max, &steps, entry: { journal.release($0.location.block) },
      run: { journal.release($0.block, count: Int($0.count)) })
    countEntries()
    return returned.isEmpty && lane.count == 0
  }
}

/// The messages of a queue that are being purged. Those that are given back or published meanwhile
/// stay.
final class QueuePurge: Chore {
  private let queue: Queue
  /// Had been given back.
  var returned = Returned()
  /// Messages of the lane that are still to go: the first ones.
  private(set) var laneCount: Int
  private let last: UInt64
  private weak var peer: Peer?

  init(_ queue: Queue, laneCount: Int, upTo last: UInt64, for peer: Peer) {
    self.queue = queue
    self.laneCount = laneCount
    self.last = last
    self.peer = peer
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0, !returned.isEmpty {
      steps -= 1
      queue.settle(returned.removeFirst())
    }
    // A queue that was deleted gives up its lane itself.
    if queue.isDeleted { laneCount = 0 }
    laneCount -= queue.purgeLane(laneCount, upTo: last, &steps)
    guard returned.isEmpty, laneCount == 0 else { return false }
    queue.purged()
    if queue.isDurable { peer?.worked() }
    return true
  }
}

/// The consumers and messages of a queue that was deleted.
final class QueueEnd: Chore {
  private static let stepsPerConsumer = 5

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
