import Base
import Journal

/// Messages whose time is over: none of them is delivered, and they leave when it has come, wherever in the queue
/// they stand. A queue whose messages live equally long has only its front's time to wait for; of others, lanes
/// know which messages do not leave as the first ones (`Lane+Early`).
extension Queue {
  /// Messages that leave where somebody asks for the next one; more leave in the timetable's slices.
  private static let droppedAtOnce = 256
  static let stepsPerMessage = 2
  /// After so many milliseconds it is looked again whether the log knows what is to be delivered.
  private static let logMilliseconds: Int64 = 10
  /// Messages that leave from the middle wait so long at most for others, so that many are one commit.
  static let earlyMilliseconds: Int64 = 25

  /// How long a message lives here that came with this life, in milliseconds; nil for ever.
  func life(_ own: Int64?) -> Int64? {
    guard let ttl = settings?.messageTTL else { return own }
    return min(own ?? .max, ttl)
  }

  /// What it has from now on, if it did not before.
  func neededTimes() -> QueueTimes {
    if let times { return times }
    let made = QueueTimes(self)
    times = made
    return made
  }

  /// A message came, or came back, that expires.
  func expect(_ date: Int64) {
    neededTimes().expect(date)
  }

  /// Another message may be the next one. Costs nothing while it is the same.
  @inline(never)
  func lookAtFront() {
    guard let times, !isDeleted, let sequence = lane.frontSequence,
      times.isNew(sequence, of: lane.id)
    else { return }
    switch lane.front(at: broker.now, mayFetch: true) {
    case .forever, .away: break
    case .over: times.look()
    case .until(let date): times.expect(date)
    }
  }

  /// Somebody asks for the next message: those whose time is over leave before. Returns false when more
  /// are to leave than at once.
  func makeFrontAlive() -> Bool {
    guard let times else { return true }
    var steps = Self.droppedAtOnce * Self.stepsPerMessage
    guard let next = dropExpired(&steps) else { return true }
    broker.deadlines.armEarlier(times, at: next)
    return next > broker.time
  }

  /// The next messages leave whose time is over, as far as the steps reach. Returns when it is to be called
  /// again; nil if not before something else happens, such as that a block was read, which is told (`look`).
  func dropExpired(_ steps: inout Int) -> Int64? {
    // Who lets it go has it looked at.
    guard !isHeld else { return nil }
    let before = steps
    var next: Int64?
    var mayFetch = true
    for lane in lanes where !isDeleted {
      let due = dropExpired(of: lane, &mayFetch, &steps)
      next = [next, due, dropEarly(of: lane, &steps)].compactMap(\.self).min()
      if steps <= 0 {
        next = broker.time
        break
      }
    }
    guard steps < before, !isDeleted else { return isDeleted ? nil : next }
    countEntries()
    // A turn that was kept for a message which has expired ends.
    if hasReady || waiter != nil { touch() }
    return next
  }

  /// Those that leave from the middle; returns as `dropExpired`.
  private func dropEarly(of lane: Lane, _ steps: inout Int) -> Int64? {
    guard !lane.isDeleted, lane.hasEarly else { return nil }
    let later = broker.now + Self.logMilliseconds
    switch lane.dropEarly(at: broker.now, keepingUntil: later, &steps) {
    case .until(nil), .away: return nil
    case .until(let date?):
      let step = Self.earlyMilliseconds
      let together = date > .max - step ? date : (date + step - 1) / step * step
      return max(broker.time + 1, broker.dates.time(of: together))
    case .more: return broker.time
    }
  }

  private func dropExpired(of lane: Lane, _ mayFetch: inout Bool, _ steps: inout Int) -> Int64? {
    while !isDeleted {
      switch lane.front(at: broker.now, mayFetch: mayFetch) {
      case .forever: return nil
      case .away:
        mayFetch = false
        return nil
      case .until(let date): return max(broker.time + 1, broker.dates.time(of: date))
      case .over:
        if lane.frontWaitsForLog, rounds.nextReady() != nil {
          lane.keepForLog()
          return broker.time + Self.logMilliseconds
        }
        guard steps > 0 else { return broker.time }
        let copies = broker.deadLetters.copies
        broker.bury(lane.take(), of: lane, for: .expired)
        steps -= Self.stepsPerMessage + broker.deadLetters.copies - copies
      }
    }
    return nil
  }
}

extension Lane {
  /// What is to become of the next message.
  enum Front {
    /// It does not expire, or there is none.
    case forever
    /// Its time is over; it is in memory.
    case over
    /// It, or some message behind it, expires at this date.
    case until(Int64)
    /// It is on disk. Its queue is told when it was read back.
    case away
  }

  private var next: Entry? { returned.first ?? waiting.first }

  /// The sequence of the next message; nil if there is none.
  var frontSequence: UInt64? { next?.sequence ?? waiting.nextRun?.first }

  /// Looks at the next message; it is read back if it has to be and may.
  func front(at now: Int64, mayFetch: Bool) -> Front {
    if let next {
      if !next.expires { return .forever }
    } else {
      guard let run = waiting.nextRun else { return .forever }
      if queue.settings?.messageTTL == nil {
        let earliest = run.earliestExpiry
        if earliest == LaneBlock.neverExpires { return .forever }
        if earliest > UInt64(now) { return .until(Int64(clamping: earliest)) }
      }
    }
    guard mayFetch || isFrontResident, isNextInMemory(), let next,
      let record = journal.pointer(next.location)
    else { return .away }
    guard next.expires else { return .forever }
    let date = expiry(of: record)
    return date <= now ? .over : .until(date)
  }

  private var isFrontResident: Bool {
    next.map { journal.pointer($0.location) != nil } ?? false
  }

  /// When a message expires here, as a date.
  func expiry(of record: UnsafeRawPointer) -> Int64 {
    let view = MessageView(record)
    let early: Int64 = Sabotage.is(.expiresEarly) ? 200 : 0
    let own = Int64(clamping: view.expiry) - early
    guard let ttl = queue.settings?.messageTTL else { return own }
    return min(own, view.storedAt + ttl)
  }

  /// The next message, which expires, must not be delivered any more; it leaves when the turn ends. One
  /// without any life may be taken in the turn in which it came, or as soon as the log allows it.
  @inline(never)
  func isOver(_ next: Entry) -> Bool {
    guard let record = journal.pointer(next.location) else { return false }
    let date = expiry(of: record)
    let now = queue.broker.now
    guard date <= now, !Sabotage.is(.deliversExpired) else { return false }
    if date == MessageView(record).storedAt, date == now || keptForLog.contains(next.sequence) {
      return false
    }
    queue.times?.look()
    return true
  }

  /// The next message has no life and would be taken at once, were it in the log that it may be.
  var frontWaitsForLog: Bool {
    guard isDurable, let next, next.isDurable, !horizon.covers(next.sequence),
      journal.failure == nil, let record = journal.pointer(next.location)
    else { return false }
    return expiry(of: record) == MessageView(record).storedAt
      && (MessageView(record).storedAt == queue.broker.now || keptForLog.contains(next.sequence))
  }
}
