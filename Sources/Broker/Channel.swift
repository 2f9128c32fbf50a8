import AMQP
import Base
import Journal

/// A channel of a connection: its consumers, what it has not acknowledged, what it waits to have
/// confirmed.
public final class Channel {
  /// About what it takes of memory, with what its session has of it.
  static let memoryBytes = 640

  public let number: UInt16
  // Unsafe but sound: the session, which is the outlet, keeps peer and channel until both are
  // closed, and a `ChannelWork` keeps them until it is over. A closed channel calls no outlet.
  public unowned(unsafe) let peer: Peer
  unowned(unsafe) let broker: Broker
  unowned(unsafe) let outlet: any Outlet
  public let vhost: VirtualHost

  /// The queue that an empty name stands for: the last that was declared here.
  var currentQueue: Name = ""

  private(set) var consumers = SpreadDictionary<Name, Consumer>()
  /// Cancelled consumers with deliveries that are not acknowledged.
  private var cancelled = SpreadDictionary<ObjectKey, Consumer>()
  var unacknowledged = Unacknowledged()
  /// Those of `unacknowledged` that basic.get took: they need no credit.
  var gottenCount = 0
  /// Deliveries within `channelPrefetch` that are kept for consumers whose next message is being read
  /// back, each by the queue that it waits in (`Queue.keepTurn`).
  private var keptCount = 0
  /// Consumers that wait for the client to want deliveries again.
  let flowLine = ConsumerLine()
  /// Consumers that wait until the channel has less out.
  let creditLine = ConsumerLine()
  /// What the client asked for with many deliveries, in order, while it is underway.
  private(set) var work: ChannelWork?
  /// Its place among its connection's, until it is closed.
  var index = 0
  /// Where it is in the broker's list of channels that are being closed.
  var closingIndex: Int?
  private(set) var nextTag: UInt64 = 1
  /// For consumers that start from now on; 0 is no limit.
  private var consumerPrefetch = 0
  /// For all consumers of the channel together; 0 is no limit.
  private var channelPrefetch = 0
  public private(set) var isFlowing = true

  /// What publishes lead to, beside messages in queues.
  enum Mode {
    case plain
    /// Each is confirmed.
    case confirming
    /// They wait for a commit.
    case transactional
  }

  private(set) var mode = Mode.plain
  /// Publishes are confirmed.
  public var isConfirming: Bool { mode == .confirming }
  /// What waits for a commit; nil on a channel without transactions.
  private(set) var transaction: Transaction?
  var confirms = ConfirmState()
  var lastRoute = RouteMemo()
  /// When deliveries go back to their queues; nil while none of them does by itself.
  var locks: ChannelLocks?
  /// The consumer of direct replies and the token that addresses it.
  var replies: DirectReplies?
  public private(set) var isClosed = false

  init(number: UInt16, peer: Peer) {
    self.number = number
    self.peer = peer
    broker = peer.broker
    outlet = peer.outlet
    vhost = peer.vhost
    flowLine.cause = .flow(.passUnretained(self))
    creditLine.cause = .credit(.passUnretained(self))
    unacknowledged.meter = peer.deliveryMeter
  }

  /// Whether the limits of the channel as a whole let its consumers take one more.
  @inline(__always) var hasCredit: Bool {
    let count = unacknowledged.count
    let limit = channelPrefetch &+ (Sabotage.is(.exceedsSharedPrefetch) ? 1 : 0)
    let free = Sabotage.is(.countsGotMessages) ? 0 : gottenCount
    return (channelPrefetch == 0 || count &- free &+ keptCount < limit)
      && count < broker.limits.unacknowledgedMax
  }

  /// Keeps one delivery for a consumer that can take it. Returns whether there is anybody to keep it from.
  func keepCredit() -> Bool {
    guard channelPrefetch != 0, !Sabotage.is(.losesColdTurn) else { return false }
    keptCount += 1
    return true
  }

  /// A delivery is kept no longer: it may be anybody's.
  func releaseCredit() { keptCount -= 1 }

  /// What the channel is called where one is to tell it from all others.
  var name: String { "\(peer.name) (\(number))" }

  // MARK: Deliveries

  @inline(__always)
  func deliver(
    _ entry: Entry, _ record: UnsafeRawPointer, from lane: Lane, to consumer: Consumer
  ) {
    var entry = entry
    let tag = nextTag
    nextTag &+= 1
    if consumer.line != nil { consumer.leaveLine() }
    let named = Sabotage.is(.namesWrongConsumer) ? anyConsumer(but: consumer) : consumer
    let view = MessageView(record, in: entry.location.block)
    if entry.hasMoreProperties {
      deliverWithMore(view, entry, of: lane, to: named, tag: tag)
    } else {
      outlet.deliver(
        view, to: named, on: self, tag: tag, isRedelivered: entry.isRedelivered)
    }
    switch consumer.settling {
    case .atOnce: lane.settle(entry)
    case .byClient: keep(&entry, of: lane, for: consumer, tag)
    case .byClientInTime:
      keep(&entry, of: lane, for: consumer, tag)
      noteLock(tag, of: consumer)
    }
  }

  /// The delivery waits for its acknowledgement.
  @inline(__always)
  private func keep(_ entry: inout Entry, of lane: Lane, for consumer: Consumer, _ tag: UInt64) {
    lane.lock(&entry)
    consumer.unacknowledged &+= 1
    unacknowledged.append(
      PendingDelivery(
        tag: tag, entry: entry, lane: .passUnretained(lane), consumer: .passUnretained(consumer)))
  }

  /// A message of which clients get to know more than it came with.
  @inline(never)
  private func deliverWithMore(
    _ view: MessageView, _ entry: Entry, of lane: Lane, to consumer: Consumer, tag: UInt64
  ) {
    outlet.deliver(
      view, with: properties(of: view, entry, in: lane), to: consumer, on: self, tag: tag,
      isRedelivered: entry.isRedelivered)
  }

  /// As they are delivered; valid until the next call.
  func properties(
    of view: MessageView, _ entry: Entry, in lane: Lane
  ) -> UnsafeRawBufferPointer {
    if entry.isOfStream, let feed = lane.queue.feed {
      return feed.properties(of: view, entry, in: lane)
    }
    return broker.countedProperties.of(
      view.properties(behind: view.names), count: lane.counts?.count(of: entry) ?? 0)
  }

  /// For a defect: another consumer if there is one.
  private func anyConsumer(but consumer: Consumer) -> Consumer {
    consumers.values.first { $0 !== consumer } ?? consumer
  }

  /// What a `basic.get` came to.
  public enum GetResult: Equatable {
    case message
    case empty
    /// To be asked again when the log is durable up to there.
    case notBefore(Int)
  }

  /// Takes one message for `basic.get` and shows it to `body` with the properties that it is to have for the
  /// client, its tag and the messages that remain ready.
  public func get(
    _ name: Name, isAutomatic: Bool,
    _ body: (
      MessageView, _ properties: UnsafeRawBufferPointer, _ tag: UInt64, _ isRedelivered: Bool,
      _ remaining: Int
    ) -> Void
  ) throws(BrokerError) -> GetResult {
    let queue = try vhost.usable(resolved(name), by: peer).source()
    queue.used()
    // What is coming back is taken in its order, and what is being purged is not seen.
    guard !queue.isHeld, queue.makeFrontAlive() else { return .notBefore(0) }
    guard queue.hasReady else { return .empty }
    if queue.isNextTooLarge { return .notBefore(0) }
    guard let record = queue.lane.nextRecord() else {
      if queue.isUnreadable { throw .unreadable(queue: queue.name) }
      if queue.fetching != nil { return .notBefore(0) }
      guard let reason = broker.journal.failure else {
        return .notBefore(queue.horizonPosition)
      }
      guard broker.journal.isMarkingFailure else { throw .journalFailed(reason: reason) }
      return .notBefore(0)
    }
    if queue.isTooLarge(MessageView(record).bodySize) { return .notBefore(0) }
    let lane = queue.lane
    var entry = lane.take()
    let tag = nextTag
    nextTag += 1
    let view = MessageView(record, in: entry.location.block)
    let properties = properties(of: view, entry, in: lane)
    if vhost.isTraced {
      broker.firehose.delivered(
        view, properties, from: queue, isRedelivered: entry.isRedelivered, on: self)
    }
    body(view, properties, tag, entry.isRedelivered, queue.readyCount)
    if queue.times != nil { queue.lookAtFront() }
    if isAutomatic {
      lane.settle(entry)
    } else {
      lane.lock(&entry)
      gottenCount += 1
      unacknowledged.append(
        PendingDelivery(tag: tag, entry: entry, lane: .passUnretained(lane), consumer: nil))
      if let milliseconds = queue.lockTimes.ofGet { neededLocks().note(tag, for: milliseconds) }
    }
    return .message
  }

  /// A tag for a delivery that needs no acknowledgement.
  func takeTag() -> UInt64 {
    defer { nextTag += 1 }
    return nextTag
  }

  // MARK: Consumers

  /// Starts a consumer and returns its tag; an empty tag gets a name.
  public func consume(
    _ name: Name, tag: Name, isAutomatic: Bool, isExclusive: Bool, arguments: FieldTable
  ) throws(BrokerError) -> Name {
    let tag = tag.isEmpty ? broker.makeName("amq.ctag-") : tag
    if DirectReplies.isQueueName(name) {
      try startReplies(tag, isAutomatic: isAutomatic)
      return tag
    }
    let destination = try vhost.usable(resolved(name), by: peer)
    guard consumers[tag] == nil, replies?.tag != tag else { throw .consumerTagInUse(tag) }
    guard consumers.count < broker.limits.consumersMax else {
      throw .limitReached(.consumers(max: broker.limits.consumersMax))
    }
    try broker.limits.check(arguments)
    try broker.requireRoom(for: "a consumer")
    let queue = try destination.source(
      forConsumer: arguments, isExclusive: isExclusive, isAutomatic: isAutomatic,
      prefetch: consumerPrefetch)
    let wanted: ConsumerArguments
    do throws(BrokerError) {
      wanted = try ConsumerArguments(arguments, queue: queue)
      guard queue.takes(priority: wanted.priority) else {
        throw .limitReached(
          .priorities(queue: queue.name, in: vhost.name, max: broker.limits.consumerPrioritiesMax))
      }
    } catch {
      // What was made for this consumer alone goes.
      queue.feed?.ended()
      throw error
    }
    let consumer = Consumer(
      tag: tag, channel: self, queue: queue, isAutomatic: isAutomatic, isExclusive: isExclusive,
      priority: wanted.priority, lockTime: wanted.lockTime, arguments: arguments,
      prefetch: consumerPrefetch)
    consumers[tag] = consumer
    queue.add(consumer)
    broker.events.started(consumer)
    return tag
  }

  /// Ends a consumer; its deliveries stay unacknowledged. Does nothing for a tag that is not there.
  public func cancel(_ tag: Name) {
    if replies?.tag == tag {
      endReplies()
      return
    }
    guard let consumer = end(tag) else { return }
    let queue = consumer.queue
    queue.remove(consumer)
    queue.consumerLeft()
  }

  /// Forgets a consumer, or keeps it until its deliveries are acknowledged.
  private func end(_ tag: Name) -> Consumer? {
    guard let consumer = consumers[tag] else { return nil }
    consumers[tag] = nil
    keepUntilSettled(consumer)
    return consumer
  }

  private func keepUntilSettled(_ consumer: Consumer) {
    consumer.isCancelled = true
    if consumer.unacknowledged > 0 { cancelled[ObjectKey(consumer)] = consumer }
  }

  /// The queue of a consumer was deleted.
  func queueDeleted(_ consumer: Consumer) {
    guard !isClosed else { return }
    _ = end(consumer.tag)
    outlet.consumerCancelled(consumer.tag, on: self)
  }

  /// A delivery of the consumer was not acknowledged in time: it ends, unless it has ended before.
  func timedOut(_ consumer: Consumer, after milliseconds: Int64) {
    guard let ended = end(consumer.tag, consumer) else { return }
    let queue = ended.queue
    queue.remove(ended)
    broker.events.timedOut(ended, after: milliseconds)
    outlet.consumerTimedOut(ended.tag, of: queue.name, after: milliseconds, on: self)
  }

  /// Ends this consumer, and not another one that has its tag since.
  private func end(_ tag: Name, _ consumer: Consumer) -> Consumer? {
    consumers[tag] === consumer && consumer.place != .nowhere ? end(tag) : nil
  }

  /// The next message of a consumer's queue is damaged.
  func queueStopped(_ consumer: Consumer) {
    guard !isClosed else { return }
    _ = end(consumer.tag)
    outlet.consumerFailed(consumer.tag, of: consumer.queue.name, on: self)
  }

  /// A consumer's last delivery was acknowledged.
  func forget(_ consumer: Consumer) {
    cancelled[ObjectKey(consumer)] = nil
  }

  /// `count` unacknowledged deliveries at most: of each consumer that starts from now on, or of all
  /// consumers together.
  public func setPrefetch(_ count: Int, isGlobal: Bool) {
    if isGlobal {
      channelPrefetch = count
      creditLine.move()
    } else {
      consumerPrefetch = count
    }
  }

  /// The client asks that deliveries pause, or go on.
  public func setFlow(_ isActive: Bool) {
    isFlowing = isActive
    if isActive { flowLine.move() }
  }

  /// The name, or that of the current queue if it is empty.
  func resolved(_ name: Name) throws(BrokerError) -> Name {
    guard name.isEmpty else { return name }
    guard !currentQueue.isEmpty else { throw .noCurrentQueue }
    return currentQueue
  }

  // MARK: The end

  /// The client closed the channel, or made a mistake on it: consumers end, what was not
  /// acknowledged comes back.
  public func close() {
    guard !isClosed else { return }
    peer.forget(self)
    giveUp(for: peer)
  }

  /// Gives up all that it has; the requests of `peer` wait until that is done.
  func giveUp(for peer: Peer?) {
    guard !isClosed else { return }
    isClosed = true
    broker.events.closed(self)
    broker.account.add(-Self.memoryBytes, to: .connections)
    // Consumers take nothing any more.
    isFlowing = false
    endReplies()
    transaction?.forget()
    locks?.end()
    guard !consumers.isEmpty || unacknowledged.count > 0 else { return }
    broker.noteClosing(self)
    begin({ $0.close() }, for: peer)
  }

  /// Some of the consumers of a channel that is being closed, which has them no longer; none if there are
  /// none left.
  func takeSomeConsumers() -> [Consumer] { consumers.removeSome() }

  /// A consumer of a channel that is being closed.
  func end(_ consumer: Consumer) {
    keepUntilSettled(consumer)
    // Its queue may have been deleted, and be gone.
    if consumer.place != .nowhere { consumer.queue.remove(consumer) }
  }

  /// All is given up.
  func ended() {
    broker.noteClosed(self)
  }

  /// Begins, behind what is underway here, what takes many steps; the requests of `peer` wait.
  func begin(_ step: ChannelWork.Step, for peer: Peer?) {
    begin({ $0.add(step) }, for: peer)
  }

  private func begin(_ add: (ChannelWork) -> Void, for peer: Peer?) {
    if let work { return add(work) }
    let work = ChannelWork(self)
    add(work)
    self.work = work
    broker.chores.begin(work, for: peer)
  }

  func workEnded() {
    work = nil
  }

  // MARK: Modes

  /// Publishes are confirmed from now on.
  public func startConfirming() throws(BrokerError) {
    guard mode != .transactional else { throw .isTransactional }
    mode = .confirming
  }

  /// Publishes and acknowledgements wait for commits from now on.
  public func startTransactions() throws(BrokerError) {
    guard mode != .confirming else { throw .isConfirming }
    mode = .transactional
    if transaction == nil { transaction = Transaction(self) }
  }
}
