import Base
import Journal

/// Writes what exists and is durable into a checkpoint, in slices between turns.
///
/// What existed when it began, and is still there when its turn comes, is written; what was declared
/// since then is not: the log from the beginning on says it, and what was deleted. Of the messages of a
/// lane it says the state at the moment when its queue's turn came; the settlements since then, and all
/// before that the log still has, are read over it. What was moved into lane files and has left its lane
/// may be anywhere and change its place while it is looked for: each such change is noted.
final class CatalogSnapshot: Chore {
  private enum Part {
    case exchanges
    case exchangeBindings
    case destinations
    case outstanding
  }

  private enum DestinationPart {
    /// The messages of one of its lanes behind this sequence.
    case lane(Int, behind: UInt64)
    /// How often messages of that lane came back.
    case counts(Int, DeliveryCounts.Place?)
    /// The pieces before this one are still to come; those that come meanwhile are in the log.
    case pieces(Int)
    case bindings
  }

  // Unsafe but sound: the broker owns this, and outlives it.
  private unowned(unsafe) let broker: Broker
  private let journal: Journal
  private let catalog: Catalog
  private let number: Int
  /// Numbers from here on were given since it began.
  private let newQueues: UInt32
  private let newExchanges: UInt32
  private let newLanes: UInt32

  private var part = Part.exchanges
  /// The objects before this one in the catalog's list are still to come. One of those that were seen
  /// takes the place of one that is deleted, and is not to be written twice: recovery would keep one of
  /// the two for ever, with the state of then.
  private var index: Int
  /// Whose bindings are being taken; by its place it would be another one when something is deleted.
  private var exchange: Exchange?
  private var current: (destination: Destination, part: DestinationPart)?
  /// What an exchange or a queue remembers; values before `next` were taken.
  private var remembered: (holder: SeenValues.Holder, all: [SeenValue], next: Int)?
  /// The messages that an exchange keeps; those before `next` were taken.
  private var kept: (exchange: UInt32, all: [KeptMessage], next: Int)?
  /// The bindings before this one are still to come.
  private var bindingIndex = Int.max
  /// Lanes with messages in lane files.
  private var moved: [Lane] = []
  private var walk: OutstandingWalk?
  private var bytes: [UInt8] = []
  private var alive: [ClosedRange<UInt64>] = []
  private var outstanding: [(lane: UInt32, sequence: UInt64)] = []

  private static let pieceBytes = 128 << 10
  private static let rangesMax = 1024
  private static let outstandingMax = 4096
  private static let stepsPerRecord = 3
  private static let entriesPerStep = 16
  private static let keptBytesPerStep = 1024

  /// Begins at the log's present end.
  init(_ broker: Broker) {
    invariant(broker.mover == nil, "a checkpoint begins while messages move")
    self.broker = broker
    journal = broker.journal
    catalog = broker.catalog
    number = journal.beginCheckpoint(now: broker.time)
    newQueues = broker.queueNumbers.nextDurable
    newExchanges = broker.exchangeNumbers.nextDurable
    newLanes = broker.laneNumbers.nextDurable
    index = catalog.exchanges.count
    catalog.appendIDs(
      queue: newQueues, exchange: newExchanges, lane: newLanes, to: &bytes)
  }

  func advance(_ steps: inout Int) -> Bool {
    guard journal.isMakingCheckpoint(number) else {
      journal.abandonCheckpoint()
      broker.snapshot = nil
      return true
    }
    while steps > 0 {
      if bytes.count >= Self.pieceBytes { handOver() }
      if remembered != nil {
        takeRemembered(&steps)
        continue
      }
      if kept != nil {
        takeKept(&steps)
        continue
      }
      switch part {
      case .exchanges: takeExchange(&steps)
      case .exchangeBindings: takeExchangeBinding(&steps)
      case .destinations: takeDestination(&steps)
      case .outstanding:
        let isOver = walk?.advance(&steps) { entry, lane in note(entry, of: lane) } ?? true
        guard isOver else { return false }
        finish()
        return true
      }
    }
    return false
  }

  private func handOver() {
    journal.appendToCheckpoint(bytes)
    bytes = []
  }

  private func finish() {
    flushOutstanding()
    handOver()
    broker.snapshot = nil
    journal.finishCheckpoint()
  }

  // MARK: Objects

  private func takeExchange(_ steps: inout Int) {
    index = min(index, catalog.exchanges.count) - 1
    guard index >= 0 else {
      part = .exchangeBindings
      index = catalog.exchanges.count
      return
    }
    let (exchange, vhost) = catalog.exchanges[index]
    steps -= Self.stepsPerRecord
    guard exchange.id < newExchanges, !exchange.isPredeclared, exchange.snapshotNumber != number
    else { return }
    exchange.snapshotNumber = number
    catalog.append(exchange, in: vhost, to: &bytes)
    begin(exchange.seen)
    if let recent = exchange.recent, recent.isDurable, recent.count > 0,
      !Sabotage.is(.forgetsRememberedInCheckpoint)
    {
      kept = (exchange.id, recent.all, 0)
    }
  }

  /// The persistent ones, in their order.
  private func takeKept(_ steps: inout Int) {
    guard let (exchange, all, next) = kept else { return }
    let message = all[next]
    let properties = message.properties
    if MessageView.isPersistent(properties.span.bytes) {
      catalog.append(message, of: exchange, to: &bytes)
    }
    steps -= Self.stepsPerRecord + message.bytes / Self.keptBytesPerStep
    kept?.next += 1
    if next + 1 == all.count { kept = nil }
  }

  private func begin(_ seen: SeenValues?) {
    if Sabotage.is(.forgetsRememberedInCheckpoint) { return }
    if let seen, seen.count > 0 { remembered = (seen.holder, seen.all, 0) }
  }

  /// In their order, so that the newest are kept. What is remembered meanwhile is in the log as well.
  private func takeRemembered(_ steps: inout Int) {
    guard let (holder, all, next) = remembered else { return }
    let end = min(all.count, next + max(1, steps / Self.stepsPerRecord))
    for index in next..<end { catalog.append(all[index], of: holder, to: &bytes) }
    steps -= Self.stepsPerRecord * (end - next)
    remembered?.next = end
    if end == all.count { remembered = nil }
  }

  private func takeExchangeBinding(_ steps: inout Int) {
    if let current = exchange {
      if current.isDeleted {
        bindingIndex = .max
      } else if take(current.incoming, &steps) {
        return
      }
      exchange = nil
      return
    }
    index = min(index, catalog.exchanges.count) - 1
    guard index >= 0 else {
      part = .destinations
      index = catalog.destinations.count
      return
    }
    steps -= 1
    exchange = catalog.exchanges[index].exchange
  }

  /// The next binding of those that lead to something; false if there is none. Those that are removed
  /// meanwhile leave a place that the last one takes, which was seen.
  private func take(_ bindings: BindingList, _ steps: inout Int) -> Bool {
    steps -= Self.stepsPerRecord
    bindingIndex = min(bindingIndex, bindings.count) - 1
    guard bindingIndex >= 0 else {
      bindingIndex = .max
      return false
    }
    let binding = bindings[bindingIndex]
    // What leads from or to what was deleted is taken out between turns.
    if binding.isDurable, !binding.source.isDeleted, !binding.destination.isDeleted {
      catalog.append(binding, to: &bytes)
    }
    return true
  }

  private func takeDestination(_ steps: inout Int) {
    guard let current else { return beginDestination(&steps) }
    guard !current.destination.isDeleted else {
      self.current = nil
      bindingIndex = .max
      alive = []
      return
    }
    switch current.part {
    case .lane(let index, let behind): takeLane(current.destination, index, behind: behind, &steps)
    case .counts(let index, let place): takeCounts(current.destination, index, place, &steps)
    case .pieces(let end):
      let index = min(end, current.destination.pieceCount) - 1
      guard index >= 0 else {
        self.current = (current.destination, .bindings)
        return
      }
      let records = current.destination.records(ofPiece: index, below: newLanes)
      steps -= Self.stepsPerRecord * (1 + records.count)
      for record in records { record.append(to: &bytes) }
      self.current = (current.destination, .pieces(index))
    case .bindings: if !take(current.destination.bindings, &steps) { self.current = nil }
    }
  }

  private func beginDestination(_ steps: inout Int) {
    index = min(index, catalog.destinations.count) - 1
    guard index >= 0 else {
      part = .outstanding
      walk = OutstandingWalk(broker, returnedTo: moved)
      return
    }
    let destination = catalog.destinations[index]
    steps -= 2 * Self.stepsPerRecord
    guard destination.id < newQueues, destination.snapshotNumber != number else { return }
    destination.snapshotNumber = number
    for lane in destination.movingLanes where lane.id < newLanes {
      lane.snapshot = (number, lane.movedUpTo)
    }
    catalog.append(destination, newLanes: newLanes, to: &bytes)
    begin(destination.seen)
    current = (destination, .lane(0, behind: 0))
  }

  // MARK: Messages in lane files

  private func takeLane(
    _ destination: Destination, _ index: Int, behind: UInt64, _ steps: inout Int
  ) {
    guard index < destination.movingLanes.count else {
      current = (destination, .pieces(.max))
      return
    }
    let lane = destination.movingLanes[index]
    guard lane.snapshot.number == number, lane.snapshot.upTo > 0 else {
      current = (destination, .counts(index, .moved(behind: 0)))
      return
    }
    if behind == 0 { moved.append(lane) }
    var count = 0
    let last = lane.waiting.forEachMoved(
      behind: behind, upTo: lane.snapshot.upTo, atMost: Self.entriesPerStep * min(steps, 4096)
    ) { range in
      count += 1
      add(range, of: lane.id)
    }
    steps -= 1 + count / Self.entriesPerStep
    if let last {
      current = (destination, .lane(index, behind: last))
    } else {
      flushAlive(lane.id)
      current = (destination, .counts(index, .moved(behind: 0)))
    }
  }

  private func takeCounts(
    _ destination: Destination, _ index: Int, _ place: DeliveryCounts.Place?, _ steps: inout Int
  ) {
    let lane = destination.movingLanes[index]
    var place = place
    guard lane.snapshot.number == number, place != nil, let counts = lane.counts,
      !Sabotage.is(.leavesCountsOutOfCheckpoint)
    else {
      current = (destination, .lane(index + 1, behind: 0))
      return
    }
    let some = counts.some(from: &place)
    steps -= 1 + some.count / Self.entriesPerStep
    if !some.isEmpty { catalog.append(some, of: lane.id, to: &bytes) }
    current = (destination, .counts(index, place))
  }

  private func add(_ range: ClosedRange<UInt64>, of lane: UInt32) {
    if let last = alive.last, last.upperBound &+ 1 == range.lowerBound {
      alive[alive.count - 1] = last.lowerBound...range.upperBound
      return
    }
    if alive.count == Self.rangesMax { flushAlive(lane) }
    alive.append(range)
  }

  private func flushAlive(_ lane: UInt32) {
    if !alive.isEmpty { catalog.appendAlive(alive, of: lane, to: &bytes) }
    alive.removeAll(keepingCapacity: true)
  }

  /// The message has left its lane, or changes its place outside of it.
  func note(_ entry: Entry, of lane: Lane) {
    guard lane.snapshot.number == number, entry.sequence <= lane.snapshot.upTo, entry.isDurable
    else { return }
    outstanding.append((lane.id, entry.sequence))
    if outstanding.count == Self.outstandingMax { flushOutstanding() }
  }

  private func flushOutstanding() {
    outstanding.sort { ($0.lane, $0.sequence) < ($1.lane, $1.sequence) }
    // The lane that is being written has ranges of its own.
    let open = alive
    alive = []
    var last: UInt32?
    for (lane, sequence) in outstanding {
      if let last, last != lane { flushAlive(last) }
      last = lane
      if alive.last?.upperBound != sequence { add(sequence...sequence, of: lane) }
    }
    if let last { flushAlive(last) }
    alive = open
    outstanding.removeAll(keepingCapacity: true)
  }
}
