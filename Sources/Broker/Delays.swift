import AMQP
import Base
import Filters
import Journal

/// The messages of a virtual host that wait for their time, and go on to the queues of their exchange then.
///
/// They are those of a queue that nobody consumes from, in a lane for each place of a wheel of due times: they
/// are logged, spilled and recovered as all others, so that any number of them takes no more memory than as
/// many that wait in a queue, and looking for what is due costs what is due. Moving to a finer place, and going
/// on to queues, is one group of the log with leaving the place before: a crash leaves a message in exactly
/// one of them.
///
/// A message says itself when it is due: its delay, from when it was stored first.
final class Delays: Timed {
  var timetablePlace = TimetablePlace()
  /// Has the lanes.
  let queue: Queue
  // Unsafe but sound: the broker owns the virtual host, which owns this.
  private unowned(unsafe) let broker: Broker
  private let journal: Journal
  private var wheel: DelayWheel
  /// By the indices of their places; nil where there never was a message.
  private var lanes: [Lane?] = Array(repeating: nil, count: DelayWheel.placeCount)
  /// Counts messages, to tell those apart that come in the same millisecond.
  private var number: UInt16 = 0
  /// Lanes whose place another has: their messages move to where they belong before anything else.
  private var displaced: [Lane] = []

  /// Messages, and bytes of them, that move as one group.
  private static let groupMax = 64
  private static let groupBytes = 256 << 10
  private static let stepsPerMessage = 4

  init(_ queue: Queue) {
    self.queue = queue
    broker = queue.broker
    journal = queue.journal
    wheel = DelayWheel(at: broker.now)
    for lane in queue.lanes { lanes[Int(lane.priority)] = lane }
    queue.delays = self
  }

  // MARK: Coming

  /// Stores a message that is due in so many milliseconds. Its place is told to the log if it is a new one.
  func store(
    names: RawSpan, properties: RawSpan, body: RawSpan, _ draft: RecordDraft? = nil,
    for milliseconds: Int64, isPersistent: Bool
  ) throws(BrokerError) {
    let lane = try lane(for: broker.now + milliseconds)
    let isDurable = isPersistent && lane.isDurable
    let destinations = isDurable ? 1 : 0
    let message =
      if let draft {
        broker.appendMessage(
          draft, names: names, properties: properties, destinations: destinations,
          isDurable: isDurable)
      } else {
        broker.appendMessage(
          names: names, properties: properties, body: body, destinations: destinations,
          isDurable: isDurable)
      }
    number &+= 1
    mark(message, UInt64(bitPattern: broker.now) | UInt64(number) << 48)
    enqueue(message, in: lane, isDurable: isDurable)
    if !Sabotage.is(.leavesDelayedWaiting) { expect() }
  }

  /// Sets what tells the message from others, with the time when it was stored first.
  private func mark(_ message: Broker.StoredMessage, _ id: UInt64) {
    UnsafeMutableRawPointer(mutating: message.record).storeBytes(
      of: id, toByteOffset: MessageRecord.storedAtOffset, as: UInt64.self)
  }

  private func enqueue(_ message: Broker.StoredMessage, in lane: Lane, isDurable: Bool) {
    journal.retain(message.location.block)
    if isDurable {
      MessagePlace(lane: lane.id, sequence: lane.nextSequence).write(at: message.rest)
    }
    lane.enqueue(message.location, flags: isDurable ? .durable : [])
    queue.touch()
  }

  /// The lane of what is due at a date.
  private func lane(for date: Int64) throws(BrokerError) -> Lane {
    // Nothing is due before, so that what comes has the finest place that there is.
    if wheel.next().map({ $0.at > broker.now }) ?? true { wheel.advance(to: broker.now) }
    let place = wheel.place(for: date)
    let lane: Lane
    if let known = lanes[place.index] { lane = known } else { lane = try newLane(at: place) }
    wheel.fill(place)
    return lane
  }

  private func newLane(at place: DelayWheel.Place) throws(BrokerError) -> Lane {
    let lane = Lane(
      id: try broker.takeLaneID(isDurable: true), role: .delayed, priority: UInt32(place.index),
      isDurable: true, broker: broker)
    lanes[place.index] = lane
    queue.add(lane)
    broker.catalog.append(lane)
    return lane
  }

  /// It is called when the next place comes.
  private func expect() {
    guard let next = wheel.next() else { return }
    broker.deadlines.armEarlier(self, at: max(broker.time, broker.dates.time(of: next.at)))
  }

  /// What it waited for may have come: a message was read back, or the queue is held no longer.
  func look() {
    broker.deadlines.armEarlier(self, at: broker.time)
  }

  // MARK: Recovery

  /// Recovery has filled the queue's lanes: the wheel goes on where it was, or where the first of what is
  /// overdue belongs.
  func recovered() throws(JournalError) {
    lanes = Array(repeating: nil, count: DelayWheel.placeCount)
    var found: [(lane: Lane, place: DelayWheel.Place, at: Int64)] = []
    for lane in queue.lanes where lane.hasReady {
      let place = DelayWheel.Place(index: Int(lane.priority))
      if let due = try firstDue(of: lane), place.isOf(due) {
        found.append((lane, place, DelayWheel.trigger(place, of: due)))
      } else {
        displaced.append(lane)
      }
    }
    let first = Sabotage.is(.movesOverdueOutOfOrder) ? nil : found.map(\.at).min()
    wheel = DelayWheel(at: min(first ?? .max, broker.now))
    for (lane, place, at) in found {
      // Where a clock has gone back, the place may be that of an earlier time.
      if lanes[place.index] == nil, wheel.trigger(of: place) == at {
        lanes[place.index] = lane
        wheel.fill(place)
      } else if !Sabotage.is(.losesDelayedAtRecovery) {
        displaced.append(lane)
      }
    }
    for lane in queue.lanes where !lane.hasReady { takePlace(lane) }
    if displaced.isEmpty { expect() } else { look() }
  }

  /// An empty lane is its place's, if that has none.
  private func takePlace(_ lane: Lane) {
    if lanes[Int(lane.priority)] == nil { lanes[Int(lane.priority)] = lane }
  }

  /// When the first message of a lane is due; nil if it cannot be read.
  private func firstDue(of lane: Lane) throws(JournalError) -> Int64? {
    guard let block = lane.nextBlock else { return nil }
    if !journal.isResident(block) {
      do throws(JournalError) {
        try journal.readNow(block)
      } catch {
        guard journal.damage(of: block) != nil else { throw error }
        return nil
      }
    }
    return lane.nextInMemory().map { MessageDelay.due(MessageView($0.record)) }
  }

  // MARK: Going

  func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
    guard !queue.isHeld, !queue.isDeleted else { return nil }
    while let lane = displaced.last {
      guard let isEmpty = drain(lane, isDue: false, &steps) else { return nil }
      guard isEmpty else { return time }
      displaced.removeLast()
      if !lane.hasReady { takePlace(lane) }
    }
    while let next = wheel.next(), next.at <= broker.now {
      wheel.advance(to: next.at)
      guard let lane = lanes[next.place.index] else {
        invariantFailed("a place holds something that has no lane")
      }
      guard let isEmpty = drain(lane, isDue: next.place.level == 0, &steps) else { return nil }
      guard isEmpty else { return time }
      wheel.empty(next.place)
    }
    queue.countEntries()
    return wheel.next().map { max(time + 1, broker.dates.time(of: $0.at)) }
  }

  /// Has the messages of a lane go on, or move to where they belong. Returns whether there are none left; nil
  /// when they cannot go before something else happens, which is told (`look`).
  private func drain(_ lane: Lane, isDue: Bool, _ steps: inout Int) -> Bool? {
    while lane.hasReady {
      guard steps > 0 else { return false }
      guard lane.nextInMemory() != nil else {
        guard let damage = lane.nextBlock.flatMap({ journal.damage(of: $0) }) else { return nil }
        setAside(lane, damage)
        return true
      }
      guard journal.failure == nil else { return nil }
      move(lane, isDue: isDue, &steps)
    }
    return true
  }

  /// The next messages of a lane go on, or to finer places, as one with their leaving.
  private func move(_ lane: Lane, isDue: Bool, _ steps: inout Int) {
    broker.deadLetters.whileHolding {
      journal.group {
        var bytes = 0
        for _ in 0..<Self.groupMax {
          guard steps > 0, bytes < Self.groupBytes, let next = lane.nextInMemory() else { break }
          let view = MessageView(next.record)
          bytes += view.bodySize
          steps -= Self.stepsPerMessage + view.bodySize / Self.bytesPerStep
          let due = MessageDelay.due(view)
          let hasMoved =
            isDue && due <= broker.now || Sabotage.is(.deliversDelayedEarly)
            ? goOn(view, &steps) : refine(view, for: due, isDurable: next.entry.isDurable)
          guard hasMoved else { break }
          lane.settle(lane.take())
        }
        if !Sabotage.is(.delaysTwice) { lane.logProgress() }
      }
    }
  }

  private static let bytesPerStep = 4096

  /// Copies a message to a finer place, with the time when it was stored first. Returns false when there is
  /// no number for another lane: it is tried again.
  private func refine(_ view: MessageView, for due: Int64, isDurable: Bool) -> Bool {
    let names = view.names
    let properties = view.properties(behind: names)
    let lane: Lane
    do throws(BrokerError) {
      lane = try self.lane(for: due)
    } catch {
      return false
    }
    let message = broker.appendMessage(
      names: names.bytes, properties: properties.bytes, body: view.body(behind: properties).bytes,
      destinations: isDurable ? 1 : 0, isDurable: isDurable)
    mark(message, view.waitingID)
    enqueue(message, in: lane, isDurable: isDurable)
    return true
  }

  /// A message goes where its exchange's bindings lead now.
  private func goOn(_ view: MessageView, _ steps: inout Int) -> Bool {
    let names = view.names
    let properties = view.properties(behind: names)
    let body = view.body(behind: properties)
    let (name, key) = RouteMemo.split(names.bytes)
    guard let exchange = queue.vhost.exchanges[name] else { return true }
    let block = Self.block(properties.bytes)
    var kept = MessageDelay.negated(properties.bytes, headers: block.headers)
    do throws(BrokerError) {
      let selected = try SenderSelection(
        in: properties.bytes.extracting(block.headers), keysMax: broker.limits.routingKeysMax)
      if selected?.hasBlind == true {
        kept = SenderSelection.strippingBlind(from: kept.span.bytes)
      }
      let message = FilteredMessage(
        names: names.bytes, properties: kept.span.bytes,
        headers: Self.block(kept.span.bytes).headers, body: body.bytes)
      let route = try queue.vhost.route(
        exchange, keys: selected?.keys(with: key) ?? [key], message, hasWaited: true)
      guard !route.isEmpty else { return true }
      steps -= route.count
      broker.storeMoved(
        names: names.bytes, properties: kept.span.bytes, body: body.bytes, in: route,
        isPersistent: block.isPersistent)
    } catch {
      // Too many steps: as for a publisher, it reaches nobody.
    }
    return true
  }

  // MARK: Looking

  /// The next place that has messages, and its lane. Nil while it cannot be said what is where.
  func next(from start: DelayWheel.Filled) -> (filled: DelayWheel.Filled, lane: Lane)?? {
    guard displaced.isEmpty, !queue.isHeld else { return nil }
    guard let filled = wheel.first(from: start) else { return .some(nil) }
    guard let lane = lanes[filled.place.index] else {
      invariantFailed("a place holds something that has no lane")
    }
    return (filled, lane)
  }

  /// Messages of a place are cancelled; their sequences ascend.
  func cancel(_ sequences: [UInt64], of lane: Lane, at place: DelayWheel.Place) {
    lane.remove(sequences)
    lane.logProgress()
    queue.countEntries()
    if !lane.hasReady { wheel.empty(place) }
  }

  private static func block(_ properties: RawSpan) -> PropertyBlock {
    do throws(MalformedInput) {
      return try PropertyBlock(properties)
    } catch {
      invariantFailed("properties that were read when they came are malformed")
    }
  }

  /// A lane cannot be read any further: the others go on without it, until the journal was repaired.
  private func setAside(_ lane: Lane, _ damage: String) {
    queue.tell(damage)
    if let index = lanes.firstIndex(where: { $0 === lane }) { lanes[index] = nil }
  }
}

extension VirtualHost {
  /// What waits for its time here, from the first such message on.
  func neededDelays() throws(BrokerError) -> Delays {
    if let delays { return delays }
    guard let name = LaneRole.delayed.queueName else { invariantFailed("delays have no queue") }
    let ids = try broker.takeQueueIDs(isDurable: true)
    let queue = Queue(
      id: ids.queue, lane: ids.lane, role: .delayed, name: name, vhost: self,
      isDurable: true, isAutoDelete: false, owner: nil, arguments: FieldTable())
    insert(queue)
    _ = broker.catalog.append(queue)
    return adopt(Delays(queue))
  }
}

extension Lane {
  /// The next message and its record. Nil if there is none, or while it has to be read back, which the queue
  /// is told of.
  func nextInMemory() -> (entry: Entry, record: UnsafeRawPointer)? {
    guard hasReady, isNextInMemory(), let next = returned.first ?? waiting.first,
      let record = journal.pointer(next.location)
    else { return nil }
    return (next, record)
  }
}
