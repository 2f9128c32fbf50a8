import Base

extension Channel {
  /// So many deliveries are settled where they are acknowledged; more are settled in slices.
  private static let settledAtOnce = 64

  /// Deletes the message with this tag, or all up to it; tag 0 with `isMultiple` means all. With transactions
  /// that waits for the commit.
  public func acknowledge(_ tag: UInt64, isMultiple: Bool) throws(BrokerError) {
    guard let transaction else { return try acknowledgeAtOnce(tag, isMultiple: isMultiple) }
    try answer(tag, isMultiple, .acknowledge, in: transaction)
  }

  /// The same on a channel that is known to have no transactions.
  @inline(__always)
  public func acknowledgeAtOnce(_ tag: UInt64, isMultiple: Bool) throws(BrokerError) {
    if isMultiple {
      try acknowledgeAll(upTo: tag)
    } else {
      let isWrong = Sabotage.is(.acknowledgesNeighbour) && unacknowledged.contains(tag &+ 1)
      guard let delivery = unacknowledged.remove(isWrong ? tag &+ 1 : tag) else {
        if answersLate(tag) { return }
        throw .unknownDelivery(tag)
      }
      settle(delivery)
    }
    creditLine.move()
  }

  private func acknowledgeAll(upTo tag: UInt64) throws(BrokerError) {
    let last = try lastTag(tag)
    var left = Self.settledAtOnce
    while let first = unacknowledged.first, first.tag <= last {
      guard left > 0 else { return begin(.acknowledge(upTo: last), for: peer) }
      left -= 1
      settle(unacknowledged.removeFirst())
    }
  }

  /// Gives the message with this tag, or all up to it, back to its queue, or drops it. With transactions that
  /// waits for the commit.
  public func reject(_ tag: UInt64, isMultiple: Bool, requeues: Bool) throws(BrokerError) {
    if let transaction {
      return try answer(tag, isMultiple, requeues ? .giveBack : .discard, in: transaction)
    }
    if isMultiple {
      let last = try lastTag(tag)
      return begin(requeues ? .giveBack(upTo: last) : .discard(upTo: last), for: peer)
    }
    guard let delivery = unacknowledged.remove(tag) else {
      if answersLate(tag) { return }
      throw .unknownDelivery(tag)
    }
    if requeues { giveBack(delivery) } else { discard(delivery) }
    creditLine.move()
  }

  /// Gives all that is not acknowledged back to its queues, but for what the next commit acknowledges.
  public func recover() {
    guard transaction?.answers.isEmpty == false else {
      return begin(.giveBack(upTo: nextTag - 1), for: peer)
    }
    begin(.giveBackUnanswered(behind: 0, upTo: nextTag - 1), for: peer)
  }

  /// The upper tag of a range, which must itself be unacknowledged or be answered late; 0 stands for all
  /// that there are now.
  private func lastTag(_ tag: UInt64) throws(BrokerError) -> UInt64 {
    if tag == 0 { return nextTag - 1 }
    guard unacknowledged.contains(tag) || answersLate(tag) else { throw .unknownDelivery(tag) }
    return tag
  }

  @inline(__always)
  func settle(_ delivery: PendingDelivery) {
    guard let lane = delivery.lane else { return }
    lane._withUnsafeGuaranteedRef { lane in
      lane.settleLocked(delivery.entry)
      if lane.isDeleted { broker.forgetIfDone(lane.queue) }
    }
    release(delivery.consumer)
  }

  /// The client does not want the message, and nobody else is to have it from its queue.
  func discard(_ delivery: PendingDelivery, kept: UnsafeRawPointer? = nil) {
    guard let lane = delivery.lane?.takeUnretainedValue() else { return }
    broker.deadLetters.buryLocked(delivery.entry, of: lane, for: .rejected, kept: kept)
    if lane.isDeleted { broker.forgetIfDone(lane.queue) }
    release(delivery.consumer)
  }

  @inline(__always)
  private func release(_ consumer: Unmanaged<Consumer>?) {
    guard let consumer else {
      gottenCount &-= 1
      return
    }
    consumer._withUnsafeGuaranteedRef { consumer in
      consumer.unacknowledged &-= 1
      if consumer.isCancelled {
        if consumer.unacknowledged == 0 { forget(consumer) }
      } else {
        let queue = consumer.queue
        // Parked without a line it waits for just this.
        if consumer.place == .parked, consumer.line == nil { queue.unpark(consumer) }
        if queue.hasReady { queue.touch() }
      }
    }
  }

  func giveBack(_ delivery: PendingDelivery) {
    guard let lane = delivery.lane else { return }
    lane._withUnsafeGuaranteedRef { lane in
      lane.takeBack(delivery.entry)
      if lane.isDeleted { broker.forgetIfDone(lane.queue) }
    }
    release(delivery.consumer)
  }
}

extension Broker {
  func noteClosing(_ channel: Channel) {
    channel.closingIndex = closingChannels.count
    closingChannels.append(channel)
  }

  func noteClosed(_ channel: Channel) {
    guard let index = channel.closingIndex else { return }
    channel.closingIndex = nil
    let last = closingChannels.removeLast()
    guard last !== channel else { return }
    closingChannels[index] = last
    last.closingIndex = index
  }
}

/// What a client asked for that concerns many deliveries of a channel, step by step in the order in
/// which it was asked for. Deliveries move one by one, so that each of them is the channel's or its
/// queue's at any time. A queue to which many come back is held until all of them are there.
final class ChannelWork: Chore {
  enum Step {
    case acknowledge(upTo: UInt64)
    case giveBack(upTo: UInt64)
    /// But for those that the channel's transaction answers.
    case giveBackUnanswered(behind: UInt64, upTo: UInt64)
    case discard(upTo: UInt64)
    /// The channel's consumers end, its deliveries come back, and queues go with their last consumer.
    case endConsumers
    case leaveQueues
  }

  /// Deliveries that cost about as much as a step.
  private static let deliveriesPerStep = 4
  private static let stepsPerConsumer = 7

  private let channel: Channel
  private let peer: Peer
  private var steps: [Step] = []
  private var held: [Queue] = []
  /// Those that are to end when the channel is closed.
  private var ending: [Consumer] = []
  /// Queues that may go with the consumers that ended.
  private var left: [Queue] = []

  init(_ channel: Channel) {
    self.channel = channel
    peer = channel.peer
  }

  func add(_ step: Step) {
    steps.append(step)
  }

  /// The channel is closed behind all that was asked for before.
  func close() {
    steps += [.endConsumers, .giveBack(upTo: .max), .leaveQueues]
  }

  func advance(_ budget: inout Int) -> Bool {
    while budget > 0 {
      guard let step = steps.first else { return letGo(&budget) }
      let isDone =
        switch step {
        case .acknowledge(let last): acknowledge(upTo: last, &budget)
        case .giveBack(let last): giveBack(upTo: last, &budget)
        case .giveBackUnanswered(let tag, let last):
          giveBackUnanswered(behind: tag, upTo: last, &budget)
        case .discard(let last): discard(upTo: last, &budget)
        case .endConsumers: endConsumers(&budget)
        case .leaveQueues: leaveQueues(&budget)
        }
      if isDone { steps.removeFirst() }
      channel.creditLine.move()
    }
    return false
  }

  private func acknowledge(upTo last: UInt64, _ budget: inout Int) -> Bool {
    budget -= 1
    for _ in 0..<Self.deliveriesPerStep {
      guard let first = channel.unacknowledged.first, first.tag <= last else { return true }
      channel.settle(channel.unacknowledged.removeFirst())
    }
    return false
  }

  /// Each may be stored in other queues; those that are alike cost less.
  private func discard(upTo last: UInt64, _ budget: inout Int) -> Bool {
    let letters = channel.broker.deadLetters
    let before = letters.copies
    defer { budget -= letters.copies - before }
    let count = letters.sendAlike(of: channel, upTo: last, atMost: budget)
    budget -= count
    guard count == 0 else { return false }
    budget -= Self.deliveriesPerStep
    guard let first = channel.unacknowledged.first, first.tag <= last else { return true }
    channel.discard(channel.unacknowledged.removeFirst())
    return false
  }

  private func giveBack(upTo last: UInt64, _ budget: inout Int) -> Bool {
    budget -= 1
    for _ in 0..<Self.deliveriesPerStep {
      guard let first = channel.unacknowledged.first, first.tag <= last else { return true }
      hold(first)
      budget -= first.lane?.takeUnretainedValue().stepsToTakeBack ?? 0
      channel.giveBack(channel.unacknowledged.removeFirst())
    }
    return false
  }

  private func giveBackUnanswered(
    behind tag: UInt64, upTo last: UInt64, _ budget: inout Int
  ) -> Bool {
    budget -= 1
    guard let next = channel.unacknowledged.next(behind: tag), next.tag <= last else { return true }
    steps[0] = .giveBackUnanswered(behind: next.tag, upTo: last)
    guard channel.transaction?.answers(next.tag) != true,
      let delivery = channel.unacknowledged.remove(next.tag)
    else { return false }
    hold(delivery)
    channel.giveBack(delivery)
    return false
  }

  /// The delivery's queue serves nobody before all have come back.
  private func hold(_ delivery: PendingDelivery) {
    guard let queue = delivery.lane?.takeUnretainedValue().queue, queue !== held.last,
      queue.hold(for: self)
    else { return }
    held.append(queue)
  }

  private func endConsumers(_ budget: inout Int) -> Bool {
    budget -= Self.stepsPerConsumer
    if ending.isEmpty { ending = channel.takeSomeConsumers() }
    guard let consumer = ending.popLast() else { return true }
    // Its queue may have been deleted meanwhile, and be gone.
    if consumer.place != .nowhere, consumer.queue.isAutoDelete { left.append(consumer.queue) }
    channel.end(consumer)
    return false
  }

  private func leaveQueues(_ budget: inout Int) -> Bool {
    budget -= 4
    if let queue = left.popLast() {
      queue.consumerLeft()
      return false
    }
    channel.ended()
    return true
  }

  /// All came back: the queues deliver again.
  private func letGo(_ budget: inout Int) -> Bool {
    while let queue = held.popLast() {
      queue.letGo()
      budget -= 1
      if budget <= 0 { break }
    }
    guard held.isEmpty else { return false }
    channel.workEnded()
    return true
  }
}
