import Base

/// When unacknowledged deliveries of a channel go back to their queues by themselves: those of consumers with an
/// `x-lock-timeout` or an `x-consumer-timeout`, and those of basic.get from queues with a lock time. A channel
/// without any has none of this.
///
/// What is due goes back in slices; queues to which something has come back are held until all of it has, so that
/// it is served in its old order.
final class ChannelLocks: Timed {
  var timetablePlace = TimetablePlace()
  // Unsafe but sound: the channel has this, and ends it before it goes.
  private unowned(unsafe) let channel: Channel
  private let broker: Broker
  /// One for each length of time; those that are empty take another one.
  private var rings: [LockRing] = []
  /// The ring that was used last.
  private var latest = 0
  private var singles = SingleLocks()
  /// The highest tag that went back.
  private(set) var expiredUpTo: UInt64 = 0
  /// Behind this tag it is to be seen what consumers have that timed out; nil if there is no such consumer.
  private var sweptUpTo: UInt64?
  private var held: [Queue] = []
  /// Queues that may go with the consumers that ended.
  private var left: [Queue] = []
  private var tags: [UInt64] = []
  /// What the account of memory has of it.
  private var counted = 0

  /// Deliveries of other lengths of time are noted one by one, since each length looks at what is between its own.
  private static let ringsMax = 64
  /// Deliveries that are looked at in a step, and that go back in one.
  private static let looksPerStep = 16
  private static let deliveriesPerStep = 4
  private static let batchMax = 64
  private static let stepsPerQueue = 12
  /// About what it takes without what is noted.
  private static let bytes = 256

  init(_ channel: Channel) {
    self.channel = channel
    broker = channel.broker
  }

  // MARK: Times

  /// The delivery leaves, and may stay out so long.
  func note(_ tag: UInt64, for milliseconds: Int64) {
    let time = broker.time
    guard let ring = ring(for: milliseconds) else { return set(tag, at: time + milliseconds) }
    guard ring.note(tag, at: time) else { return }
    broker.deadlines.armEarlier(self, at: time + milliseconds)
    count()
  }

  /// The delivery's time begins anew. False if none with this tag is out that has a time, or too many were
  /// prolonged.
  func prolong(_ tag: UInt64) -> Bool {
    guard let delivery = channel.unacknowledged.delivery(tag),
      let milliseconds = Self.milliseconds(of: delivery), !singles.isFull || singles.has(tag)
    else { return false }
    set(tag, at: broker.time + milliseconds)
    return true
  }

  private func set(_ tag: UInt64, at time: Int64) {
    singles.set(tag, at: time) { channel.unacknowledged.contains($0) }
    broker.deadlines.armEarlier(self, at: time)
    count()
  }

  /// Nil if there are too many lengths of time.
  private func ring(for milliseconds: Int64) -> LockRing? {
    if latest < rings.count, rings[latest].milliseconds == milliseconds { return rings[latest] }
    if let known = rings.firstIndex(where: { $0.milliseconds == milliseconds }) {
      latest = known
    } else {
      rings.removeAll(where: \.isEmpty)
      guard rings.count < Self.ringsMax || singles.isFull else { return nil }
      latest = rings.count
      rings.append(LockRing(milliseconds: milliseconds))
    }
    return rings[latest]
  }

  /// How long the delivery may stay out; nil for ever.
  private static func milliseconds(of delivery: PendingDelivery) -> Int64? {
    if let consumer = delivery.consumer?.takeUnretainedValue() {
      return consumer.lockTime?.milliseconds
    }
    return delivery.lane?.takeUnretainedValue().queue.lockTimes.ofGet
  }

  private func count() {
    let bytes = rings.reduce(Self.bytes + singles.byteCount) { $0 + $1.byteCount }
    guard bytes != counted else { return }
    channel.peer.deliveryMeter.add(bytes - counted)
    counted = bytes
  }

  /// The channel is closed, and gives back all that it has.
  func end() {
    broker.deadlines.cancel(self)
    while let queue = held.popLast() { queue.letGo() }
    while let queue = left.popLast() { queue.consumerLeft() }
    rings = []
    singles = SingleLocks()
    channel.peer.deliveryMeter.add(-counted)
    counted = 0
  }

  // MARK: What is due

  func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
    // What the client has asked for in time comes first.
    guard channel.work == nil else { return time + 1 }
    let isDone = expire(at: time, &steps) && sweep(&steps) && letGo(&steps)
    channel.creditLine.move()
    count()
    guard isDone else { return time }
    return (rings.map(\.due) + [singles.next]).compactMap(\.self).min()
  }

  private func expire(at time: Int64, _ steps: inout Int) -> Bool {
    while steps > 0, let tag = singles.takeDue(at: time) {
      steps -= 1
      if let delivery = channel.unacknowledged.delivery(tag) { giveBack(delivery, &steps) }
    }
    for ring in rings {
      while let last = ring.lastDue(at: time) {
        guard steps > 0 else { return false }
        let length = ring.milliseconds
        let end = giveBack(behind: ring.behind, upTo: last, &steps) { [singles] delivery in
          Self.milliseconds(of: delivery) == length && !singles.has(delivery.tag)
        }
        ring.passed(end ?? last)
      }
    }
    return steps > 0 || singles.next.map { $0 > time } ?? true
  }

  /// Consumers that timed out have nothing any more.
  private func sweep(_ steps: inout Int) -> Bool {
    while let tag = sweptUpTo {
      guard steps > 0 else { return false }
      sweptUpTo = giveBack(behind: tag, upTo: .max, &steps) { delivery in
        delivery.consumer?.takeUnretainedValue().isTimedOut == true
      }
    }
    return true
  }

  /// Gives some back of those that are meant. Returns the tag behind which to go on, nil at the end.
  private func giveBack(
    behind tag: UInt64, upTo last: UInt64, _ steps: inout Int,
    isMeant: (PendingDelivery) -> Bool
  ) -> UInt64? {
    var seen = 0
    var chosen: [UInt64] = []
    swap(&chosen, &tags)
    chosen.removeAll(keepingCapacity: true)
    let end = channel.unacknowledged.walk(behind: tag, atMost: Self.batchMax) { delivery in
      seen += 1
      if delivery.tag <= last, isMeant(delivery) { chosen.append(delivery.tag) }
    }
    steps -= 1 + seen / Self.looksPerStep + chosen.count / Self.deliveriesPerStep
    for tag in chosen {
      if let delivery = channel.unacknowledged.delivery(tag) { giveBack(delivery, &steps) }
    }
    tags = chosen
    guard let end, end < last else { return nil }
    return end
  }

  private func giveBack(_ delivery: PendingDelivery, _ steps: inout Int) {
    guard let lane = delivery.lane?.takeUnretainedValue(),
      channel.unacknowledged.remove(delivery.tag) != nil
    else { return }
    if lane.queue.hold(for: self) { held.append(lane.queue) }
    if let consumer = delivery.consumer?.takeUnretainedValue() { timeOut(consumer, &steps) }
    steps -= lane.stepsToTakeBack
    broker.lockCounts.deliveries += 1
    expiredUpTo = max(expiredUpTo, delivery.tag)
    channel.giveBack(delivery)
  }

  /// The consumer ends with all that it has. If it has ended before, its client is not told of anything, and
  /// keeps what it may still answer in time.
  private func timeOut(_ consumer: Consumer, _ steps: inout Int) {
    guard let time = consumer.lockTime, time.endsConsumer, !consumer.isTimedOut,
      consumer.place != .nowhere
    else { return }
    consumer.isTimedOut = true
    sweptUpTo = 0
    steps -= Self.stepsPerQueue
    if consumer.queue.isAutoDelete { left.append(consumer.queue) }
    broker.lockCounts.consumers += 1
    channel.timedOut(consumer, after: time.milliseconds)
  }

  /// All came back: the queues deliver again.
  private func letGo(_ steps: inout Int) -> Bool {
    while let queue = held.popLast() {
      queue.letGo()
      steps -= 1
      if steps <= 0 { break }
    }
    while steps > 0, held.isEmpty, let queue = left.popLast() {
      steps -= Self.stepsPerQueue
      queue.consumerLeft()
    }
    return held.isEmpty && left.isEmpty
  }
}

extension Channel {
  /// Made when the first delivery has a time.
  func neededLocks() -> ChannelLocks {
    if let locks { return locks }
    let made = ChannelLocks(self)
    locks = made
    return made
  }

  /// A delivery of a consumer whose deliveries have a time.
  @inline(never)
  func noteLock(_ tag: UInt64, of consumer: Consumer) {
    guard let time = consumer.lockTime else { return }
    neededLocks().note(tag, for: time.milliseconds)
  }

  /// A message to nobody prolongs a lock by its names.
  func prolongs(_ names: RawSpan) -> Bool {
    guard let locks, let tag = LockName.tag(names) else { return false }
    return locks.prolong(tag)
  }

  /// A delivery that is not there was answered. If others, up to this one at least, have gone back since their
  /// time was over, that is no mistake: it is counted.
  @inline(never)
  func answersLate(_ tag: UInt64) -> Bool {
    guard let locks, tag > 0, tag <= locks.expiredUpTo else { return false }
    broker.lockCounts.lateAnswers += 1
    return true
  }
}
