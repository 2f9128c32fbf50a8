import AMQP
import Base
import Journal

/// Messages for queues with settings, and messages that expire: which lane they go to, whether there is
/// room, what has to leave for them, and when they are over. Other messages for a route of queues without
/// any settings never come here.
extension Broker {
  /// Stores a message once and puts an entry into every queue of the route that has room. Returns whether
  /// all of them had.
  func storeWithSettings(
    names: RawSpan, properties: RawSpan, body: RawSpan, _ draft: RecordDraft?, in route: Route,
    isPersistent: Bool
  ) throws(BrokerError) -> Bool {
    let priority = MessageView.priority(in: properties)
    let life = MessageView.life(in: properties)
    let marks: Entry.Flags = DeadLetterTarget.isNamed(in: properties) ? .namesTarget : []
    let size = body.byteCount
    guard route.mayRefuse else {
      guard route.count > 0 else { return true }
      for queue in route.queues { try prepareLane(of: queue, forPriority: priority) }
      put(names, properties, body, draft, in: route, isPersistent, priority: priority, life, marks)
      for queue in route.queues { queue._withUnsafeGuaranteedRef { stored(size, in: $0, life) } }
      return true
    }
    let (wanted, remembrances) = try withoutRepeated(route, names, properties)
    var open = wanted
    var full: Set<ObjectIdentifier> = []
    for queue in wanted.queues {
      let queue = queue.takeUnretainedValue()
      guard isFull(queue, for: size) else { continue }
      full.insert(ObjectIdentifier(queue))
      guard queue.settings?.sendsRefusedOn == true else { continue }
      deadLetters.send(refused: names, properties: properties, body: body, by: queue)
    }
    if !full.isEmpty {
      open = wanted.only { !full.contains(ObjectIdentifier($0)) }
    }
    guard open.count > 0 else { return wanted.count == 0 }
    for queue in open.queues { try prepareLane(of: queue, forPriority: priority) }
    if remembrances.isEmpty {
      put(names, properties, body, draft, in: open, isPersistent, priority: priority, life, marks)
    } else {
      journal.together {
        put(names, properties, body, draft, in: open, isPersistent, priority: priority, life, marks)
        remember(remembrances.lazy.filter { !full.contains($0.queue) }.map(\.remembrance))
      }
    }
    for queue in open.queues { queue._withUnsafeGuaranteedRef { stored(size, in: $0, life) } }
    return open.count == wanted.count
  }

  private func prepareLane(
    of queue: Unmanaged<Queue>, forPriority priority: UInt8
  ) throws(BrokerError) {
    let hasLane = queue._withUnsafeGuaranteedRef {
      $0.levels == nil || $0.lane(forPriority: priority) != nil
    }
    if !hasLane { try queue.takeUnretainedValue().prepareLane(forPriority: priority) }
  }

  /// Stores the message, and an entry for each of the queues, which have lanes for it.
  private func put(
    _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan, _ draft: RecordDraft?,
    in open: Route, _ isPersistent: Bool, priority: UInt8, _ life: Int64?, _ marks: Entry.Flags
  ) {
    let isDurable = isPersistent && open.durableCount > 0
    let destinations = isDurable ? open.durableCount : 0
    let message =
      if let draft {
        appendMessage(
          draft, names: names, properties: properties, destinations: destinations,
          isDurable: isDurable)
      } else {
        appendMessage(
          names: names, properties: properties, body: body, destinations: destinations,
          isDurable: isDurable)
      }
    journal.retain(message.location.block, count: open.count)
    var place = message.rest
    for queue in open.queues {
      queue._withUnsafeGuaranteedRef { queue in
        let isDurable = isDurable && queue.isDurable
        enqueue(message, in: queue, isDurable, at: place, priority: priority, life, marks)
        if isDurable { place += MessagePlace.size }
      }
    }
  }

  private func enqueue(
    _ message: StoredMessage, in queue: Queue, _ isDurable: Bool,
    at place: UnsafeMutableRawPointer, priority: UInt8, _ life: Int64?, _ marks: Entry.Flags
  ) {
    guard let lane = queue.lane(forPriority: priority) else {
      invariantFailed("a message has a priority that its queue has no lane for")
    }
    if isDurable {
      MessagePlace(lane: lane.id, sequence: lane.nextSequence).write(at: place)
    }
    var flags = marks
    if isDurable { flags.insert(.durable) }
    if queue.settings?.countsBytes == true { flags.insert(.counted) }
    if let whole = queue.life(life) {
      flags.insert(.expires)
      lane.enqueue(
        message.location, flags: flags, expiringAt: whole > .max - now ? .max : now + whole)
    } else {
      lane.enqueue(message.location, flags: flags)
    }
    queue.filled(lane)
  }

  private func stored(_ size: Int, in queue: Queue, _ life: Int64?) {
    if let life = queue.life(life) {
      queue.expect(life > .max - now ? .max : now + life)
      // Who can take it at once gets it.
      if life == 0 { deliveries.serve(queue) }
    }
    guard let settings = queue.settings else { return }
    if settings.countsBytes { queue.readyBytes += size }
    guard settings.dropsHead, queue.isOverfull else { return }
    deliveries.serve(queue)
    _ = queue.dropHead()
  }

  /// The queue refuses one more message, of this size. Whoever can take what is ready takes it before.
  private func isFull(_ queue: Queue, for size: Int) -> Bool {
    guard !queue.isDeleted, let settings = queue.settings, settings.refusesPublishes else {
      return queue.isDeleted
    }
    guard queue.wouldOverflow(with: size) else { return false }
    deliveries.serve(queue)
    return queue.wouldOverflow(with: size)
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
