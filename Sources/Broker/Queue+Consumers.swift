import Base

/// Who takes a queue's messages, and when.
extension Queue {
  /// Whether a consumer of this priority may come; there cannot be too many different ones.
  func takes(priority: Int64) -> Bool {
    rounds.has(priority: priority) || standby.has(priority: priority)
      || max(rounds.priorityCount, standby.priorityCount) < broker.limits.consumerPrioritiesMax
  }

  func add(_ consumer: Consumer) {
    if settings?.isSingleActive == true, rounds.count > 0, !Sabotage.is(.servesStandby) {
      standby.add(consumer)
    } else {
      rounds.add(consumer)
    }
    broker.consumerBytes += consumer.memoryBytes + (feed?.memoryBytes ?? 0)
    hadConsumers = true
    if consumer.isExclusive { hasExclusiveConsumer = true }
    touch()
  }

  func remove(_ consumer: Consumer) {
    if consumer.place == .standby {
      standby.remove(consumer)
    } else {
      guard rounds.remove(consumer) else { return }
      if waiter === consumer { endTurn(of: consumer) }
      if let next = standby.takeNext() { rounds.add(next) }
    }
    broker.consumerBytes -= consumer.memoryBytes + (feed?.memoryBytes ?? 0)
    broker.events.ended(consumer)
    if consumer.isExclusive { hasExclusiveConsumer = false }
    if rounds.count == 0 { tightenHorizon() }
    guard !isDeleted else { return }
    if let times, consumerCount == 0 { times.used() }
    touch()
  }

  /// What held the consumer back may be gone.
  func unpark(_ consumer: Consumer) {
    rounds.unpark(consumer)
    if hasReady { touch() }
  }

  /// Somebody may be able to take a message now.
  @inline(__always)
  func touch() {
    if !isTouched {
      isTouched = true
      broker.noteTouched(self)
    }
  }

  /// Delivers as long as there are messages, consumers that can take them, and a budget. Returns whether
  /// nothing is left but for the budget.
  func pump(_ budget: inout DeliveryBudget) -> Bool {
    isTouched = false
    budget.spend(0)
    if let waiter { return pump(for: waiter, &budget) }
    guard !isHeld else { return true }
    if broker.deliversCarefully { return pumpCarefully(&budget) }
    guard let consumer = rounds.single else { return pumpInRounds(&budget) }
    while hasReady, consumer.isReady {
      guard !budget.isSpent else { return false }
      guard let record = lane.nextRecord() else { break }
      budget.spend(MessageView(record).bodySize)
      consumer.channel.deliver(lane.take(), record, from: lane, to: consumer)
    }
    guard hasReady else { return true }
    if consumer.waitsWithOthers {
      rounds.park(consumer)
    } else if fetching != nil {
      keepTurn(of: consumer)
    }
    return true
  }

  @inline(__always)
  private func pumpInRounds(_ budget: inout DeliveryBudget) -> Bool {
    while hasReady, let consumer = rounds.nextReady() {
      guard !budget.isSpent else { return false }
      guard let record = lane.nextRecord() else {
        keepTurn(of: consumer)
        return true
      }
      rounds.advance()
      budget.spend(MessageView(record).bodySize)
      consumer.channel.deliver(lane.take(), record, from: lane, to: consumer)
    }
    return true
  }

  /// As `pump`, while slow readers hold too much memory, when a large message stops the queue, or while
  /// deliveries of some virtual host are traced.
  @inline(never)
  private func pumpCarefully(_ budget: inout DeliveryBudget) -> Bool {
    while hasReady, let consumer = rounds.nextReady() {
      guard !budget.isSpent else { return false }
      guard !isNextTooLarge else { return stop() }
      guard let record = lane.nextRecord() else {
        keepTurn(of: consumer)
        return true
      }
      let size = MessageView(record).bodySize
      guard !isTooLarge(size) else { return stop() }
      rounds.advance()
      budget.spend(size)
      let lane = lane
      let entry = lane.take()
      if vhost.isTraced {
        broker.firehose.delivered(entry, record, of: lane, on: consumer.channel)
        budget.spend(copy: size)
      }
      consumer.channel.deliver(entry, record, from: lane, to: consumer)
    }
    return true
  }

  // MARK: While slow readers hold too much memory

  /// The next message was found too large for now: it would be read back in vain, again and again.
  var isNextTooLarge: Bool {
    broker.isOutputExhausted && tooLarge != nil && tooLarge == nextPlace
  }

  /// Whether the next message, which is in memory and has a body of so many bytes, is too large for now.
  func isTooLarge(_ size: Int) -> Bool {
    guard broker.isOutputExhausted, size > Broker.smallMessageBytes else { return false }
    tooLarge = nextPlace
    return true
  }

  /// Which message is the next one; nil if it is on disk and was not looked at yet.
  private var nextPlace: MessagePlace? {
    let lane = lane
    return (lane.returned.first ?? lane.waiting.first).map {
      MessagePlace(lane: lane.id, sequence: $0.sequence)
    }
  }

  /// Nobody is served before there is room for the next message.
  private func stop() -> Bool {
    if !isStopped { broker.noteStopped(self) }
    isStopped = true
    return true
  }

  // MARK: Turns

  /// The next message has to be read back. Others could take the channel's credit meanwhile, each time
  /// when there is some, and the block may have left memory again when it is this one's turn: one
  /// delivery is kept for it. Nobody waits for that longer than the read takes, which ends with a `pump`
  /// whatever comes of it. Nothing is kept while the log is told what will be delivered, which may take
  /// as long as the disk is full, and loses a consumer only a few turns: the window doubles each time.
  @inline(never)
  private func keepTurn(of consumer: Consumer) {
    guard fetching != nil, !consumer.isAutomatic, consumer.isReady, consumer.channel.keepCredit()
    else { return }
    waiter = consumer
  }

  /// Something has happened since a consumer's turn was kept: it takes its message if that is there, or
  /// keeps its turn again. What it does not need is for the channel's others.
  @inline(never)
  private func pump(for consumer: Consumer, _ budget: inout DeliveryBudget) -> Bool {
    let channel = consumer.channel
    waiter = nil
    channel.releaseCredit()
    let isFinished = pump(&budget)
    if waiter !== consumer { channel.creditLine.move() }
    return isFinished
  }

  @inline(never)
  private func endTurn(of consumer: Consumer) {
    waiter = nil
    consumer.channel.releaseCredit()
    consumer.channel.creditLine.move()
  }
}
