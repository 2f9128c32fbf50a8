import Base
import Journal

/// Some of the messages that wait for their time.
public struct DelayedPage {
  public internal(set) var messages: [DelayedMessage] = []
  /// Where the next page begins; nil if this is the last one.
  public internal(set) var next: DelayedCursor?
  /// So many wait, whether or not they are meant.
  public internal(set) var waitingCount = 0
  /// The messages of a place cannot be read.
  public internal(set) var isIncomplete = false
}

/// What became of cancelling messages that waited for their time.
public struct DelayedCancellation {
  public internal(set) var count = 0
  /// Of those that were named, what does not wait, or waits no longer.
  public internal(set) var missing: Set<DelayedID> = []
  /// The messages of a place cannot be read: those that were meant among them are not cancelled.
  public internal(set) var isIncomplete = false
  /// The log has failed: whether a restart brings them back is not known.
  public internal(set) var failure: String?
}

extension VirtualHost {
  /// Finds some of the messages that wait for their time, at most so many; `done` gets them in the order of their
  /// times.
  public func listDelayed(
    _ selection: DelayedSelection, from cursor: DelayedCursor, atMost limit: Int, for peer: Peer,
    _ done: @escaping (DelayedPage) -> Void
  ) {
    let limit = min(limit, BrokerLimits.delayedPageMax)
    let listing = DelayedListing(
      DelayedWalk(self, selection, from: cursor), self, atMost: limit, for: peer, done)
    broker.chores.begin(listing, for: peer)
  }

  /// Takes out messages that wait for their time, but for those that come meanwhile; `done` gets how many they were,
  /// once the log durably has it.
  public func cancelDelayed(
    _ selection: DelayedSelection, for peer: Peer,
    _ done: @escaping (DelayedCancellation) -> Void
  ) {
    broker.chores.begin(DelayedCancelling(self, selection, for: peer, done), for: peer)
  }
}

/// Collects a page.
private final class DelayedListing: Chore {
  private let walk: DelayedWalk
  private let vhost: VirtualHost
  private let limit: Int
  private let peer: Peer
  private let done: (DelayedPage) -> Void
  private var page = DelayedPage()

  private static let stepsPerMessage = 8

  init(
    _ walk: DelayedWalk, _ vhost: VirtualHost, atMost limit: Int, for peer: Peer,
    _ done: @escaping (DelayedPage) -> Void
  ) {
    self.walk = walk
    self.vhost = vhost
    self.limit = limit
    self.peer = peer
    self.done = done
  }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0, !peer.isClosed {
      let before = page.messages.count
      let step = walk.advance(&steps) { view, _ in
        guard page.messages.count < limit else {
          page.next = walk.cursor
          return false
        }
        page.messages.append(DelayedMessage(view))
        return true
      }
      steps -= Self.stepsPerMessage * (page.messages.count - before)
      switch step {
      case .goesOn: break
      case .waits: return false
      case .ended:
        finish()
        return true
      }
    }
    if peer.isClosed { finish() }
    return peer.isClosed
  }

  private func finish() {
    page.messages.sort { $0.id.due < $1.id.due }
    page.waitingCount = vhost.delays?.queue.readyCount ?? 0
    page.isIncomplete = walk.isIncomplete
    done(page)
  }
}

/// Takes messages out, wherever they wait.
private final class DelayedCancelling: Chore {
  private let vhost: VirtualHost
  private let broker: Broker
  private let selection: DelayedSelection
  private let peer: Peer
  private let done: (DelayedCancellation) -> Void
  private let walk: DelayedWalk
  private let beganAt: Int64
  private var result = DelayedCancellation()
  private var isPurging = false
  private var sequences: [UInt64] = []

  private static let stepsPerMessage = 2

  init(
    _ vhost: VirtualHost, _ selection: DelayedSelection, for peer: Peer,
    _ done: @escaping (DelayedCancellation) -> Void
  ) {
    self.vhost = vhost
    broker = vhost.broker
    self.selection = selection
    self.peer = peer
    self.done = done
    walk = DelayedWalk(vhost, selection, from: DelayedCursor())
    beganAt = broker.now
    result.missing = selection.ids ?? []
  }

  func advance(_ steps: inout Int) -> Bool {
    guard let delays = vhost.delays, !peer.isClosed, broker.journal.failure == nil else {
      return finish()
    }
    if selection.isAll { return purge(delays) }
    while steps > 0 {
      switch cancelSome(of: delays, &steps) {
      case .goesOn: if selection.ids != nil, result.missing.isEmpty { return finish() }
      case .waits: return false
      case .ended: return finish()
      }
    }
    return false
  }

  /// All go without being looked at.
  private func purge(_ delays: Delays) -> Bool {
    guard !delays.queue.isHeld else { return false }
    if isPurging { return finish() }
    isPurging = true
    result.count = delays.queue.purge(for: peer)
    return false
  }

  private func cancelSome(of delays: Delays, _ steps: inout Int) -> DelayedWalk.Step {
    let step = walk.advance(&steps) { view, sequence in
      // What comes meanwhile stays.
      guard view.storedAt <= beganAt else { return true }
      if selection.ids != nil { result.missing.remove(DelayedID(view)) }
      sequences.append(sequence)
      return true
    }
    guard let (place, lane) = walk.last, !sequences.isEmpty else { return step }
    steps -= Self.stepsPerMessage * sequences.count + lane.waiting.stepsToFind
    result.count += sequences.count
    delays.cancel(sequences, of: lane, at: place.place)
    sequences.removeAll(keepingCapacity: true)
    return step
  }

  /// Returns true, since nothing is left to be done.
  private func finish() -> Bool {
    result.isIncomplete = walk.isIncomplete
    let (done, result) = (done, result)
    broker.whenDurable { failure in
      var result = result
      result.failure = failure
      done(result)
    }
    return true
  }
}
