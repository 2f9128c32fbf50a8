import AMQP
import Base
import Journal

/// Messages for destinations that are not plain, and messages that expire: each destination is asked what it
/// makes of them. Other messages for a route of plain destinations never come here.
extension Broker {
  /// Stores a message once and puts an entry into every queue of the route that has room. Returns whether
  /// all of them had. With `mark`, streams remember what they have of its producer.
  func storeWithSettings(
    names: RawSpan, properties: RawSpan, body: RawSpan, _ draft: RecordDraft?, in route: Route,
    isPersistent: Bool, mark: ProducerMark? = nil
  ) throws(BrokerError) -> Bool {
    let arrival = Arrival(
      isPersistent: isPersistent, priority: MessageView.priority(in: properties),
      life: MessageView.life(in: properties),
      marks: DeadLetterTarget.isNamed(in: properties) ? .namesTarget : [], size: body.byteCount)
    // A log that has failed gets nothing more, and streams have all that they have from it.
    if journal.failure != nil, route.keepingCount > 0 {
      return try storeWithSettings(
        names: names, properties: properties, body: body, draft, in: route.only { !$0.keepsAll },
        isPersistent: isPersistent)
    }
    guard route.mayRefuse else {
      guard route.count > 0 else { return true }
      try store(arrival, names, properties, body, draft, in: route, mark)
      return true
    }
    let (wanted, remembrances) = try withoutRepeated(route, names, properties)
    var open = wanted
    var full: Set<ObjectIdentifier> = []
    for destination in wanted.destinations {
      let destination = destination.takeUnretainedValue()
      guard destination.isFull(for: arrival.size) else { continue }
      full.insert(ObjectIdentifier(destination))
      guard let target = destination.refusedTarget else { continue }
      deadLetters.send(refused: names, properties: properties, body: body, by: target)
    }
    if !full.isEmpty {
      open = wanted.only { !full.contains(ObjectIdentifier($0)) }
    }
    guard open.count > 0 else { return wanted.count == 0 }
    if remembrances.isEmpty {
      try store(arrival, names, properties, body, draft, in: open, mark)
    } else {
      try prepare(open, for: arrival)
      journal.together {
        put(arrival, names, properties, body, draft, in: open)
        if let mark { tell(mark, open) }
        remember(remembrances.lazy.filter { !full.contains($0.queue) }.map(\.remembrance))
      }
      tellTaken(arrival, open)
    }
    return open.count == wanted.count
  }

  private func store(
    _ arrival: Arrival, _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan,
    _ draft: RecordDraft?, in route: Route, _ mark: ProducerMark?
  ) throws(BrokerError) {
    try prepare(route, for: arrival)
    if let mark, route.keepingCount > 0 {
      // A message and its sequence are one in the log.
      journal.together {
        put(arrival, names, properties, body, draft, in: route)
        tell(mark, route)
      }
    } else {
      put(arrival, names, properties, body, draft, in: route)
    }
    tellTaken(arrival, route)
  }

  private func tell(_ mark: ProducerMark, _ route: Route) {
    for destination in route.destinations {
      destination._withUnsafeGuaranteedRef { $0.stored(mark) }
    }
  }

  private func prepare(_ route: Route, for arrival: Arrival) throws(BrokerError) {
    for destination in route.destinations {
      try destination.takeUnretainedValue().prepare(priority: arrival.priority)
    }
  }

  private func tellTaken(_ arrival: Arrival, _ route: Route) {
    for destination in route.destinations {
      destination._withUnsafeGuaranteedRef { $0.taken(arrival) }
    }
  }

  /// Stores the message, and what each of the destinations, which are prepared for it, has of it.
  private func put(
    _ arrival: Arrival, _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan,
    _ draft: RecordDraft?, in open: Route
  ) {
    let places = open.placeCount(isPersistent: arrival.isPersistent)
    let message =
      if let draft {
        appendMessage(
          draft, names: names, properties: properties, destinations: places, isDurable: places > 0)
      } else {
        appendMessage(
          names: names, properties: properties, body: body, destinations: places,
          isDurable: places > 0)
      }
    journal.retain(message.location.block, count: open.count)
    var place = message.rest
    for destination in open.destinations {
      destination._withUnsafeGuaranteedRef { destination in
        let survives = arrival.isPersistent ? destination.isDurable : destination.keepsAll
        destination.take(message, arrival, at: survives ? place : nil)
        if survives { place += MessagePlace.size }
      }
    }
  }

  /// The date so many milliseconds from now.
  func date(in milliseconds: Int64) -> Int64 {
    milliseconds > .max - now ? .max : now + milliseconds
  }
}

extension Queue {
  /// Messages that one call drops at most.
  private static let droppedAtOnce = 256

  /// It has more than its limits let it have.
  var isOverfull: Bool {
    guard let settings else { return false }
    let count = readyCount + (Sabotage.is(.dropsOneTooMany) ? 1 : 0)
    return count > settings.lengthMax || readyBytes > settings.bytesMax
  }

  /// One more message of this size would be too much.
  func wouldOverflow(with size: Int) -> Bool {
    guard let settings else { return false }
    let count = readyCount - (Sabotage.is(.exceedsLength) ? 1 : 0)
    return count >= settings.lengthMax || readyBytes > settings.bytesMax - size
  }

  /// The next messages leave until there are as many as there may be. Returns false when more are to go
  /// in a later turn; those that are on disk are read before.
  func dropHead() -> Bool {
    guard let settings, settings.dropsHead, !isHeld else { return true }
    var left = Self.droppedAtOnce
    while isOverfull, hasReady {
      guard left > 0 else { return false }
      left -= 1
      guard lane.isNextInMemory() else { return true }
      let lane = lane
      broker.bury(lane.take(), of: lane, for: .maxLength)
    }
    return true
  }

  /// Bytes of a body that were counted leave, or come.
  func count(bytes: Int) { readyBytes += bytes }
}
