import AMQP
import Base
import Filters
import Journal

/// Messages that leave their queues without having been consumed, and go on to an exchange.
///
/// Leaving the one queue and arriving in the others is one group of the log, so that a crash leaves the
/// message in exactly one of the places. Most are sent on at once. Those that wait (for the disk, or because
/// they died of another one's arrival) are locked in their queues meanwhile, and are looked at where
/// everything outstanding is.
final class DeadLetters {
  // Unsafe but sound: the broker owns this.
  private unowned(unsafe) let broker: Broker
  private let journal: Journal
  /// In the order in which they died; the consumer is always nil.
  var pending = Unacknowledged()
  private var reasons = Ring<DeathReason>()
  private var nextTag: UInt64 = 1
  /// One is being sent on, and may cause others to leave.
  private var isSending = false
  /// What leaves has to wait, since a group is being written that it is no part of.
  private var isHolding = false
  private var hasRunOut = false
  private var memo = LetterMemo()
  /// Of the letters that were alike last.
  private var model: LetterModel?
  /// Copies of letters beyond one of each, since the start. Each costs about a step.
  private(set) var copies = 0
  private static let sentPerTurn = 1024
  /// Letters in one group of the log, and bytes of bodies from which on it has no more.
  private static let groupLetters = 64
  private static let groupBytes = 64 << 10
  /// Queues that the letters of one group go to.
  private static let groupTargets = 1024

  init(_ broker: Broker) {
    self.broker = broker
    journal = broker.journal
    pending.meter = DeliveryMeter(broker)
  }

  /// Some can be sent on in the next turn.
  var hasMore: Bool { hasRunOut && pending.count > 0 }

  /// A message that was taken from its lane, and is not locked, leaves it.
  func bury(_ entry: Entry, of lane: Lane, for reason: DeathReason) {
    let wasDelivered = reason != .expired
    guard isSentOn(entry, of: lane) else {
      return lane.settle(entry, afterDelivery: wasDelivered)
    }
    // A commit has counted the letters of queues that send all on, and no others.
    let isCounted = !journal.isInGroup || lane.queue.settings?.deadLetters != nil
    if isCounted, mayPass, canSend(entry), let record = journal.pointer(entry.location) {
      return send(entry, record, of: lane, for: reason) {
        lane.settle(entry, afterDelivery: wasDelivered)
      }
    }
    var entry = entry
    lane.lock(&entry, forDelivery: wasDelivered)
    hold(entry, of: lane, for: reason)
  }

  /// By its queue, or by a header of its own.
  func isSentOn(_ entry: Entry, of lane: Lane) -> Bool {
    entry.namesTarget || lane.queue.settings?.deadLetters != nil
  }

  /// Nobody has to go before. What dies in a commit is a part of that, whoever waits.
  private var mayPass: Bool {
    !isSending && !isHolding && (pending.count == 0 || journal.isInGroup)
  }

  /// A locked message leaves its queue. Its record is where `kept` says if its block may have left memory.
  func buryLocked(
    _ entry: Entry, of lane: Lane, for reason: DeathReason, kept: UnsafeRawPointer? = nil
  ) {
    guard !lane.isDeleted, isSentOn(entry, of: lane) else {
      return lane.settleLocked(entry)
    }
    if mayPass, canSend(entry), let record = kept ?? journal.pointer(entry.location) {
      return send(entry, record, of: lane, for: reason) { lane.settleLocked(entry) }
    }
    var entry = entry
    if broker.isWalking { broker.walked(&entry, of: lane) }
    hold(entry, of: lane, for: reason)
  }

  private func hold(_ entry: Entry, of lane: Lane, for reason: DeathReason) {
    pending.append(
      PendingDelivery(tag: nextTag, entry: entry, lane: .passUnretained(lane), consumer: nil))
    reasons.append(reason)
    nextTag += 1
    hasRunOut = true
  }

  /// A log that has failed does not learn that a message moves: it stays until the restart. What the log does
  /// not have goes on.
  private func canSend(_ entry: Entry) -> Bool { journal.failure == nil || !entry.isDurable }

  // MARK: Those that wait

  /// Sends on those that can be.
  func advance() {
    hasRunOut = false
    var left = Self.sentPerTurn
    while let next = pending.first {
      guard left > 0, !broker.isTurnLong() || left > Self.sentPerTurn - 64 else {
        hasRunOut = true
        return
      }
      let before = copies
      let goesOn = advance(next)
      left -= 1 + copies - before
      guard goesOn else { return }
    }
  }

  /// Whether the first one of those that wait has left them.
  private func advance(_ next: PendingDelivery) -> Bool {
    guard let lane = next.lane?.takeUnretainedValue() else { return true }
    let (entry, block) = (next.entry, next.entry.location.block)
    if lane.isDeleted {
      _ = removeFirst()
      lane.settleLocked(entry)
      broker.forgetIfDone(lane.queue)
      return true
    }
    guard canSend(entry) else { return false }
    if let record = journal.pointer(entry.location) {
      let reason = removeFirst()
      send(entry, record, of: lane, for: reason) {
        lane.settleLocked(entry, afterDelivery: reason != .expired)
      }
      return true
    }
    if journal.damage(of: block) != nil || journal.hasFailed(block) {
      // As any message that cannot be read.
      _ = removeFirst()
      lane.giveBack(entry)
      return true
    }
    journal.load(block)
    return false
  }

  private func removeFirst() -> DeathReason {
    _ = pending.removeFirst()
    return reasons.removeFirst()
  }

  /// What leaves while `body` stores messages waits for its turn.
  func whileHolding(_ body: () -> Void) {
    isHolding = true
    body()
    isHolding = false
  }

  // MARK: Sending

  /// Stores the message where the queue's dead letters go, as one with its leaving, which `leave` notes.
  private func send(
    _ entry: Entry, _ record: UnsafeRawPointer, of lane: Lane, for reason: DeathReason,
    leave: () -> Void
  ) {
    if let model = model(for: lane.queue, reason), let letter = model.letter(of: record) {
      return move(isLogged: entry.isDurable, of: lane) {
        store(letter, as: model)
        leave()
      }
    }
    sendAnew(entry, record, of: lane, for: reason, leave: leave)
  }

  private func sendAnew(
    _ entry: Entry, _ record: UnsafeRawPointer, of lane: Lane, for reason: DeathReason,
    leave: () -> Void
  ) {
    let queue = lane.queue
    let view = MessageView(record)
    let names = view.names
    let properties = view.properties(behind: names)
    let body = view.body(behind: properties)
    isSending = true
    defer { isSending = false }
    guard
      let letter = memo.letter(
        names: names.bytes, properties: properties.bytes, of: queue, for: reason, now: broker.now),
      let (route, isOfThisOne) = route(of: letter, body, in: queue.vhost)
    else { return leave() }
    if memo.isAlike, !isOfThisOne {
      model = LetterModel(
        of: letter, names: names.bytes, properties: properties.bytes, queue, reason,
        now: broker.now, along: route)
    }
    move(isLogged: entry.isDurable, of: lane) {
      store(letter, body, in: route)
      leave()
    }
  }

  /// What leaves a lane and arrives elsewhere is one in the log, if that has it.
  @inline(__always)
  private func move(isLogged: Bool, of lane: Lane, _ body: () -> Void) {
    guard isLogged else { return body() }
    journal.together {
      body()
      if !Sabotage.is(.losesDeath) { lane.logProgress() }
    }
  }

  // MARK: Those that are alike

  @inline(__always)
  private func model(for queue: Queue, _ reason: DeathReason) -> LetterModel? {
    guard let model, journal.failure == nil, model.holds(for: queue, reason, now: broker.now) else {
      return nil
    }
    return model
  }

  /// Sends on the first of a channel's deliveries that were rejected, up to a tag, as far as they come one behind
  /// the other from one lane and are like the last letter: they are one group of the log, of at most so many.
  /// Returns how many went; the next one is to be sent on by itself.
  func sendAlike(of channel: Channel, upTo last: UInt64, atMost limit: Int) -> Int {
    guard mayPass, !journal.isInGroup, let first = channel.unacknowledged.first, first.tag <= last,
      let lane = first.lane?.takeUnretainedValue(), !lane.isDeleted,
      let model = model(for: lane.queue, .rejected),
      let record = journal.pointer(first.entry.location), model.letter(of: record) != nil
    else { return 0 }
    let isLogged = first.entry.isDurable
    let count = min(limit, Self.groupLetters, max(1, Self.groupTargets / model.route.count))
    var sent = 0
    var bytes = 0
    move(isLogged: isLogged, of: lane) {
      while sent < count, bytes < Self.groupBytes, let next = channel.unacknowledged.first,
        next.tag <= last, next.lane?.toOpaque() == first.lane?.toOpaque(),
        next.entry.isDurable == isLogged, let record = journal.pointer(next.entry.location),
        let letter = model.letter(of: record)
      {
        store(letter, as: model)
        channel.settle(channel.unacknowledged.removeFirst())
        bytes += letter.bodyBytes
        sent += 1
      }
    }
    return sent
  }

  @inline(__always)
  private func store(_ letter: LetterModel.Letter, as model: LetterModel) {
    broker.store(letter, as: model)
    copies &+= model.route.count - 1
  }

  /// As `send`, of a message that was refused and is in no queue.
  func send(refused names: RawSpan, properties: RawSpan, body: RawSpan, by queue: Queue) {
    guard !isSending, journal.failure == nil,
      let letter = memo.letter(
        names: names, properties: properties, of: queue, for: .maxLength, now: broker.now)
    else { return }
    body.withUnsafeBytes { body in
      guard let (route, _) = route(of: letter, body, in: queue.vhost) else { return }
      isSending = true
      store(letter, body, in: route)
      isSending = false
    }
  }

  /// With it comes whether it is the way of this letter only. Nil when there is no such exchange, or it leads
  /// nowhere.
  private func route(
    of letter: DeadLetter, _ body: UnsafeRawBufferPointer, in vhost: VirtualHost
  ) -> (Route, isOfThisOne: Bool)? {
    guard let exchange = vhost.exchanges[letter.exchange] else { return nil }
    let route: Route
    do throws(BrokerError) {
      route = try self.route(of: letter, body, from: exchange, in: vhost)
    } catch {
      // Too many steps: as for a publisher, it reaches nobody.
      return nil
    }
    func isOpen(_ target: Destination) -> Bool {
      !target.isDeleted && !letter.wentRound(target.name)
    }
    let areOpen = route.destinations.allSatisfy { $0._withUnsafeGuaranteedRef(isOpen) }
    let open = areOpen ? route : route.only(isOpen)
    return open.isEmpty ? nil : (open, route.needsMessage || !areOpen)
  }

  private func route(
    of letter: DeadLetter, _ body: UnsafeRawBufferPointer, from exchange: Exchange,
    in vhost: VirtualHost
  ) throws(BrokerError) -> Route {
    let (names, properties) = (letter.names, letter.properties)
    if letter.keys.count == 1, !exchange.isInternal {
      let route = try vhost.cachedRoute(names.span.bytes)
      if !route.needsMessage { return route }
    }
    let message = FilteredMessage(
      names: names.span.bytes, properties: properties.span.bytes, headers: letter.headers,
      body: body.bytes)
    return try vhost.route(exchange, keys: letter.keys, message, refusesDelay: false)
  }

  private func store(_ letter: DeadLetter, _ body: UnsafeRawBufferPointer, in route: Route) {
    let (names, properties) = (letter.names, letter.properties)
    copies &+= max(0, route.count - 1)
    broker.storeMoved(
      names: names.span.bytes, properties: properties.span.bytes, body: body.bytes, in: route,
      isPersistent: letter.isPersistent && journal.failure == nil)
  }
}
