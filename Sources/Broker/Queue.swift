import AMQP
import Base
import Journal

/// A queue: its settings, its consumers, and the lanes that have its messages. They are taken, locked while
/// they are unacknowledged, and deleted.
public final class Queue: Destination {
  // Unsafe but sound: it outlives the queue.
  unowned(unsafe) let journal: Journal
  /// What its arguments ask for; nil if that is nothing.
  let settings: QueueSettings?
  /// How it counts deliveries; nil if it does not. No part of the settings, since messages are put into it
  /// as into any queue.
  let deliveryCounting: DeliveryCounting?
  /// How long its deliveries may stay unacknowledged, unless their consumer says so. No part of the settings
  /// for the same reason.
  let lockTimes: LockTimes
  /// What brings the records of a stream to its consumer; nil for a queue that messages are routed to.
  let feed: StreamFeed?
  /// When its messages expire, or it does; nil if neither is asked for.
  var times: QueueTimes?
  // Unsafe but sound: one of `lanes`; reached for every message, and so without counting references.
  /// The lane that is served: the only one of a queue without priorities, to which its messages go.
  unowned(unsafe) private(set) var lane: Lane
  /// All of them, in the order in which they came.
  private(set) var lanes: [Lane]
  /// The lanes by their priorities; nil for a queue without priorities.
  private(set) var levels: QueueLevels?
  /// What it has beside `lanes[0]` takes of memory about so much each.
  private static let laneBytes = 320
  /// Bytes of the bodies of what is ready, if they have to be known.
  var readyBytes = 0
  // Unsafe but sound: the virtual host has both.
  /// What waits for its time in the lanes; nil for a queue of messages for consumers.
  unowned(unsafe) var delays: Delays?
  /// What the account of memory has of its entries.
  private var countedEntries = 0
  /// It was deleted, and has no messages any more.
  private var isGivenUp = false
  /// The operator was told that a message of it is damaged, which is told once.
  var isDamageTold = false

  var rounds = ConsumerRounds()
  /// Those of a queue that serves one at a time, in the order in which they came; the active one is in
  /// `rounds`.
  var standby = Standby()
  /// An exclusive consumer is alone.
  var hasExclusiveConsumer = false
  /// Reasons why nobody is served for a while: many messages come back, or leave.
  private(set) var holds = 0
  /// The work that held the queue last, so that the same work holds it once.
  private weak var holder: AnyObject?
  /// How many messages it had ever got when it was found empty.
  private var idleSequence: UInt64 = 0
  /// Waits in the broker's list of queues whose next message is too large for now.
  var isStopped = false
  /// The message that was found to be too large for now when it was in memory last.
  var tooLarge: MessagePlace?
  /// Waits in the broker's list of queues to pump.
  var isTouched = false
  /// Where it is in the broker's list of queues that may have messages.
  var holdingIndex: Int?
  /// The block that the next message waits for.
  private(set) var fetching: UInt32?
  // Unsafe but sound: who leaves the queue is the waiter no longer (`remove`).
  /// The consumer whose turn it was when that block had to be read, and whose channel keeps credit for it
  /// until the queue is pumped again.
  unowned(unsafe) var waiter: Consumer?
  /// Waits in the broker's list of queues whose next message could not be read.
  private var isTryingAgain = false

  init(
    id: UInt32, lane laneID: UInt32, role: LaneRole = .ready, priority: UInt32 = 0, name: Name,
    vhost: VirtualHost, isDurable: Bool, isAutoDelete: Bool, owner: Peer?, arguments: FieldTable,
    feed: StreamFeed? = nil
  ) {
    let broker = vhost.broker
    journal = broker.journal
    self.feed = feed
    let settings = feed == nil ? QueueSettings(arguments) : QueueSettings.ofReader()
    self.settings = settings
    let lane = Lane(
      id: laneID, role: role, priority: priority, isDurable: isDurable, broker: broker)
    deliveryCounting = DeliveryCounting(arguments)
    lockTimes = LockTimes(arguments)
    self.lane = lane
    lanes = [lane]
    if let settings, settings.priorityMax > 0 { levels = QueueLevels(lane) }
    super.init(
      id: id, name: name, vhost: vhost, isDurable: isDurable, isAutoDelete: isAutoDelete,
      owner: owner, arguments: arguments, isPlain: settings == nil,
      mayRefuse: settings?.refusesPublishes == true || settings?.deduplication != nil)
    seen = settings?.deduplication.map {
      SeenValues(.init(id: id, isQueue: true, isDurable: isDurable), $0, broker)
    }
    lane.join(self)
    if settings?.messageTTL != nil || settings?.expires != nil { times = QueueTimes(self) }
  }

  /// About what it takes of memory, without messages and bindings. Measured with 200,000 of them.
  override var memoryBytes: Int {
    MemoryAccount.bytes(settings == nil ? 1150 : 1500, name, arguments)
  }

  // MARK: Counts

  public override var readyCount: Int { lanes.reduce(0) { $0 + $1.readyCount } }
  public override var unacknowledgedCount: Int { lanes.reduce(0) { $0 + $1.unacknowledgedCount } }
  public override var consumerCount: Int { rounds.count + standby.count }
  @inline(__always) var hasReady: Bool { lane.hasReady || levels != nil && hasReadyElsewhere }

  // MARK: Lanes

  /// One more, of a priority that has none.
  func add(_ lane: Lane) {
    lanes.append(lane)
    levels?.add(lane)
    lane.join(self)
  }

  /// Lanes of a reader that were given up, and that no delivery refers to, go; the first one stays.
  func forgetDeletedLanes() {
    let gone = lanes.dropFirst().filter { $0.isDeleted && $0.unacknowledgedCount == 0 }
    guard !gone.isEmpty else { return }
    if gone.contains(where: { $0 === lane }) { lane = lanes[0] }
    for lane in gone { broker.laneNumbers.giveBack(lane.id) }
    lanes.removeAll { lane in gone.contains { $0 === lane } }
  }

  /// The lane that is served from now on, of those that have nothing ready.
  func serve(_ lane: Lane) { self.lane = lane }

  /// Consumers took what they can: whether nothing is left to do but for the budget, where something else is to
  /// happen then.
  func goOn(_ budget: inout DeliveryBudget) -> Bool {
    if let feed { return feed.goOn(&budget) }
    return dropHead()
  }

  /// Another lane than the one that is served has something: that is served from now on.
  private var hasReadyElsewhere: Bool {
    guard let highest = levels?.highest() else { return false }
    lane = highest
    return true
  }

  /// There is something ready in one of its lanes.
  @inline(__always)
  func filled(_ lane: Lane) {
    if levels != nil { choose(lane) }
    touch()
  }

  private func choose(_ other: Lane) {
    var isHigher = Sabotage.is(.servesLowestLaneFirst) != (other.priority > lane.priority)
    if Sabotage.is(.forgetsPriorityAtRecovery), broker.isRecovering { isHigher = false }
    levels?.noteFilled(other.priority)
    if isHigher || !lane.hasReady { lane = other }
  }

  // MARK: Messages

  /// Tells the log exactly what was delivered, once nobody takes messages any more.
  override func tightenHorizon() {
    for lane in lanes { lane.tightenHorizon() }
  }

  /// The next message is in a block that is being read; false if it cannot be.
  func awaits(_ block: UInt32) -> Bool {
    if journal.damage(of: block) != nil {
      broker.noteDamaged(self)
      return false
    }
    if journal.hasFailed(block) {
      if !isTryingAgain { broker.noteUnreadable(self) }
      isTryingAgain = true
      return false
    }
    if fetching != block {
      fetching = block
      broker.noteFetching(self, block)
    }
    return true
  }

  /// A block that the queue waited for is in memory, or could not be read.
  func fetched() {
    fetching = nil
    lookAgain()
    touch()
  }

  /// Whoever waits for a time may find that messages can leave.
  private func lookAgain() {
    times?.look()
    delays?.look()
  }

  /// The next message is no longer too large.
  func goOn() {
    isStopped = false
    touch()
  }

  /// What could not be read may be readable now.
  func tryAgain() {
    isTryingAgain = false
    lookAgain()
    touch()
  }

  /// The next message's block could not be read; it will be tried again.
  var isUnreadable: Bool {
    lane.nextBlock.map { journal.hasFailed($0) } ?? false
  }

  /// Where the log will be when a message that may not be taken yet may be.
  var horizonPosition: Int { lane.awaitedPosition() }

  // MARK: Holding

  /// Nobody is served until `letGo`.
  func hold() {
    holds += 1
  }

  /// Nobody is served until `letGo`. False if it is held for this work already.
  func hold(for work: AnyObject) -> Bool {
    if holds > 0, holder === work { return false }
    holder = work
    holds += 1
    return true
  }

  func letGo() {
    holds -= 1
    // The same work may come again, and is to hold the queue anew then.
    holder = nil
    guard holds == 0 else { return }
    if !isDeleted { lookAgain() }
    // A turn that was kept for a message which has been purged ends.
    if hasReady || waiter != nil, !isDeleted { touch() }
  }

  var isHeld: Bool { holds > 0 }

  // MARK: The end

  /// Whether the queue has been empty since it was looked at before; then it gives back memory.
  func trimIfIdle() -> Bool {
    guard messageCount == 0, !isTouched else { return false }
    let sequence = lanes.reduce(0) { $0 &+ $1.nextSequence }
    guard idleSequence == sequence else {
      idleSequence = sequence
      return false
    }
    for lane in lanes { lane.trim() }
    countEntries()
    return true
  }

  /// Brings the account of memory up to date.
  func countEntries() {
    let bytes =
      isGivenUp
      ? 0
      : lanes.reduce(Self.laneBytes * (lanes.count - 1)) { $0 + $1.byteCount }
        + (feed?.byteCount ?? 0)
    guard bytes != countedEntries else { return }
    broker.account.add(bytes - countedEntries, to: .entries)
    countedEntries = bytes
  }

  // MARK: As a destination

  override var laneIDs: [UInt32] { lanes.map(\.id) }
  override var movingLanes: [Lane] { lanes }
  override var isClients: Bool { delays == nil }
  override var isRoutable: Bool { delays == nil }

  // MARK: Storing

  override func isFull(for size: Int) -> Bool {
    guard !isDeleted, let settings, settings.refusesPublishes else { return isDeleted }
    guard wouldOverflow(with: size) else { return false }
    // Whoever can take what is ready takes it before.
    broker.deliveries.serve(self)
    return wouldOverflow(with: size)
  }

  override var refusedTarget: Queue? { settings?.sendsRefusedOn == true ? self : nil }

  override func prepare(priority: UInt8) throws(BrokerError) {
    if levels != nil { try prepareLane(forPriority: priority) }
  }

  override func hasRoom(for count: Int, bytes: Int) -> Bool {
    guard let settings, settings.refusesPublishes else { return true }
    return count <= settings.lengthMax - readyCount && bytes <= settings.bytesMax - readyBytes
  }

  override var commitSteps: Int {
    guard let settings, settings.dropsHead else { return 0 }
    return settings.deadLetters == nil ? 2 : TransactionCommit.stepsPerLetter
  }

  override func take(
    _ message: Broker.StoredMessage, _ arrival: Arrival, at place: UnsafeMutableRawPointer?
  ) {
    guard let lane = lane(forPriority: arrival.priority) else {
      invariantFailed("a message has a priority that its queue has no lane for")
    }
    var flags = arrival.marks
    if let place {
      MessagePlace(lane: lane.id, sequence: lane.nextSequence).write(at: place)
      flags.insert(.durable)
    }
    if settings?.countsBytes == true { flags.insert(.counted) }
    if let whole = life(arrival.life) {
      flags.insert(.expires)
      lane.enqueue(message.location, flags: flags, expiringAt: broker.date(in: whole))
    } else {
      lane.enqueue(message.location, flags: flags)
    }
    filled(lane)
  }

  override func taken(_ arrival: Arrival) {
    if let life = life(arrival.life) {
      expect(broker.date(in: life))
      // Who can take it at once gets it.
      if life == 0 { broker.deliveries.serve(self) }
    }
    guard let settings else { return }
    if settings.countsBytes { readyBytes += arrival.size }
    guard settings.dropsHead, isOverfull else { return }
    broker.deliveries.serve(self)
    _ = dropHead()
  }

  override func awaitMove(priority: UInt8) throws(BrokerError) {
    try prepareLane(forPriority: priority)
    lane(forPriority: priority)?.awaitMove()
  }

  // MARK: Use

  override func source(
    forConsumer arguments: FieldTable, isExclusive: Bool, isAutomatic: Bool, prefetch: Int
  ) throws(BrokerError) -> Queue {
    let isShared = consumerCount > 0 || settings?.isSingleActive == true
    guard !(isExclusive ? isShared : hasExclusiveConsumer) else {
      throw .inExclusiveUse(queue: name, in: vhost.name)
    }
    return self
  }

  override func source() -> Queue { self }

  override func consumerLeft() {
    if let feed { feed.ended() } else { super.consumerLeft() }
  }

  override func used() { times?.used() }

  override func serve() { broker.deliveries.serve(self) }

  /// Deletes all messages that are ready now; returns how many. The requests of `peer` wait until it
  /// is done.
  override func purge(for peer: Peer) -> Int {
    let count = readyCount
    guard count > 0 else { return 0 }
    hold()
    readyBytes = 0
    broker.chores.begin(QueuePurge(self, for: peer), for: peer)
    return count
  }

  // MARK: The log

  override func laneRecords(below newLanes: UInt32, withStates: Bool) -> [RawRecord] {
    lanes.lazy.filter { $0.id < newLanes }.flatMap {
      withStates ? [Catalog.record($0), Catalog.state(of: $0)] : [Catalog.record($0)]
    }
  }

  // MARK: The end

  /// Its consumers end and its messages go, without a word to the log, which knows that the queue is gone.
  override func drop() {
    isDeleted = true
    for lane in lanes { lane.markDeleted() }
    times?.end()
    if rounds.count > 0 || lanes.contains(where: { $0.waiting.count > 0 || !$0.returned.isEmpty }) {
      broker.chores.begin(QueueEnd(self), for: nil)
    } else {
      gaveUp()
    }
    broker.letGo(self)
  }

  /// Nothing is left of its messages but what is out with clients: what it takes of memory goes.
  func gaveUp() {
    isGivenUp = true
    for lane in lanes { lane.trim() }
    countEntries()
  }

  override var isDone: Bool { unacknowledgedCount == 0 }
}
