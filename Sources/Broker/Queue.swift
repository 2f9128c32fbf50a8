import AMQP
import Base
import Journal

/// A queue: its settings, its consumers, and the lanes that have its messages. They are taken, locked while
/// they are unacknowledged, and deleted.
public final class Queue {
  public let id: UInt32
  public let name: Name
  // Unsafe but sound: all of these outlive the queue; its owner goes after it (`ExclusiveQueues`).
  unowned(unsafe) let vhost: VirtualHost
  unowned(unsafe) let broker: Broker
  unowned(unsafe) let journal: Journal
  /// Survives a restart.
  public let isDurable: Bool
  public let isAutoDelete: Bool
  /// Exclusive to this connection; nil for a queue of all.
  unowned(unsafe) let owner: Peer?
  public let isExclusive: Bool
  public let arguments: FieldTable
  /// What its arguments ask for; nil if that is nothing.
  let settings: QueueSettings?
  /// How it counts deliveries; nil if it does not. No part of the settings, since messages are put into it
  /// as into any queue.
  let deliveryCounting: DeliveryCounting?
  /// How long its deliveries may stay unacknowledged, unless their consumer says so. No part of the settings
  /// for the same reason.
  let lockTimes: LockTimes
  /// When its messages expire, or it does; nil if neither is asked for.
  var times: QueueTimes?
  /// What it knows repeated messages by; nil if it does not look for them.
  let seen: SeenValues?
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
  /// Where it is bound, so that deleting it costs what it is bound to.
  var bindings = BindingList()
  /// Whose bindings those are that go with their last one.
  var dependents = Dependents()
  /// What the account of memory has of its entries.
  private var countedEntries = 0
  /// Where the log says that it was declared.
  var declaredAt = 0
  /// Where it is in the catalog, if it is durable.
  var catalogIndex: Int?
  /// The last checkpoint that has it.
  var snapshotNumber = 0
  /// The operator was told that a message of it is damaged, which is told once.
  var isDamageTold = false

  var rounds = ConsumerRounds()
  /// Those of a queue that serves one at a time, in the order in which they came; the active one is in
  /// `rounds`.
  var standby = Standby()
  /// An exclusive consumer is alone.
  var hasExclusiveConsumer = false
  var hadConsumers = false
  /// Reasons why nobody is served for a while: many messages come back, or leave.
  private(set) var holds = 0
  /// The work that held the queue last, so that the same work holds it once.
  private weak var holder: AnyObject?
  /// Where it is among its owner's queues.
  var exclusiveIndex = 0
  /// How many messages it had ever got when it was found empty.
  private var idleSequence: UInt64 = 0
  /// Waits in the broker's list of queues whose next message is too large for now.
  var isStopped = false
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
  /// Set by the router to reach a queue once.
  var routeMark: UInt64 = 0

  init(
    id: UInt32, lane laneID: UInt32, role: LaneRole = .ready, priority: UInt32 = 0, name: Name,
    vhost: VirtualHost, isDurable: Bool, isAutoDelete: Bool, owner: Peer?, arguments: FieldTable
  ) {
    self.id = id
    self.name = name
    self.vhost = vhost
    broker = vhost.broker
    journal = vhost.broker.journal
    self.isDurable = isDurable
    self.isAutoDelete = isAutoDelete
    self.owner = owner
    isExclusive = owner != nil
    self.arguments = arguments
    let settings = QueueSettings(arguments)
    self.settings = settings
    let broker = vhost.broker
    seen = settings?.deduplication.map {
      SeenValues(.init(id: id, isQueue: true, isDurable: isDurable), $0, broker)
    }
    let lane = Lane(
      id: laneID, role: role, priority: priority, isDurable: isDurable, broker: broker)
    deliveryCounting = DeliveryCounting(arguments)
    lockTimes = LockTimes(arguments)
    self.lane = lane
    lanes = [lane]
    if let settings, settings.priorityMax > 0 { levels = QueueLevels(lane) }
    lane.join(self)
    if settings?.messageTTL != nil || settings?.expires != nil { times = QueueTimes(self) }
  }

  /// About what it takes of memory, without messages and bindings. Measured with 50,000 of them.
  var memoryBytes: Int { MemoryAccount.bytes(750, name, arguments) }

  var isDeleted: Bool { lane.isDeleted }

  // MARK: Counts

  public var readyCount: Int { lanes.reduce(0) { $0 + $1.readyCount } }
  public var unacknowledgedCount: Int { lanes.reduce(0) { $0 + $1.unacknowledgedCount } }
  public var messageCount: Int { readyCount + unacknowledgedCount }
  public var consumerCount: Int { rounds.count + standby.count }
  @inline(__always) var hasReady: Bool { lane.hasReady || levels != nil && hasReadyElsewhere }

  // MARK: Lanes

  /// One more, of a priority that has none.
  func add(_ lane: Lane) {
    lanes.append(lane)
    levels?.add(lane)
    lane.join(self)
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
  func tightenHorizon() {
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
    let bytes = lanes.reduce(Self.laneBytes * (lanes.count - 1)) { $0 + $1.byteCount }
    guard bytes != countedEntries else { return }
    broker.account.add(bytes - countedEntries, to: .entries)
    countedEntries = bytes
  }
}
