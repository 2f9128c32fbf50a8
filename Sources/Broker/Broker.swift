import Base
import Journal

/// All state of the broker, owned by one thread. It has no clock, socket or file of its own: it is
/// told what happens and when, turn by turn.
public final class Broker {
  public let journal: Journal
  public let limits: BrokerLimits
  let random: () -> UInt64
  private(set) var vhosts: [Name: VirtualHost] = [:]
  private(set) lazy var catalog = Catalog(broker: self, journal: journal)

  /// The date of this turn, in milliseconds since 1970: for what is written down, and for what is due at a
  /// date. It is the wall clock's without its jumps.
  public private(set) var now: Int64
  /// Monotonic milliseconds of this turn: for what lasts or waits.
  public private(set) var time: Int64
  /// When a date comes.
  package private(set) var dates: SteadyClock
  /// Who is called when, though nobody asks for anything.
  package let deadlines: Timetable
  /// Work that is too large for one turn.
  let chores: Chores
  /// The chores of checkpoints and of rounds of spilling, for which no client waits.
  let walks: Chores
  /// Bindings and queues that went since memory was given back to the system.
  private var releasedCount = 0
  /// So many leave memory that is worth giving back.
  private static let releasedMany = 10_000
  /// Why publishers are to be blocked, such as "low on memory"; nil while they are not.
  public var alarm: String? { didSet { events.alarmChanged(from: oldValue, to: alarm) } }
  /// What this broker is called among others.
  public var node: Name = "martlet"
  /// What memory goes to.
  public var account: MemoryAccount
  var queueNumbers = Numbers(nextDurable: 1)
  var laneNumbers = Numbers(nextDurable: LaneRecord.firstID)
  var exchangeNumbers = Numbers(nextDurable: VirtualHost.predeclaredIDMax + 1)

  let deliveries: Deliveries
  /// Lanes with settlements that are not in the log yet.
  private var unlogged: [Lane] = []
  /// Queues whose next message may be delivered when the log knows that it may have been.
  private var reserving: [Queue] = []
  /// Partitions with records of this turn, and those with records that are not durable.
  private var appending: [Partition] = []
  private var becomingDurable: [Partition] = []
  /// Of all streams, in any order.
  var partitions: [Partition] = []
  /// Those of the round of spilling that is being written.
  var spillingPartitions: [Partition] = []
  /// Files of streams that go when the log is durable up to there, in order.
  var leavingFiles: [(position: Int, files: LeavingSegments)] = []
  /// Counts turns.
  private(set) var turn: Int64 = 0
  /// Lanes that messages were moved into in this turn.
  private var moving: [Lane] = []
  /// Queues that wait for a block to be in memory, by block.
  private var fetching: [UInt32: [Queue]] = [:]
  /// Queues whose next message could not be read.
  var unreadable: [Queue] = []
  /// They are tried again from this monotonic millisecond on.
  var nextReadAt = Int64.min
  /// Queues that have messages, and some that had.
  private(set) var holding: [Queue] = []
  /// The lanes of the round of spilling that is being written.
  var spilling: [Lane] = []
  /// Chores that go over all that is outstanding, and must know of what changes its place meanwhile.
  var snapshot: CatalogSnapshot? { didSet { noteWalking() } }
  var selector: SpillSelector? { didSet { noteWalking() } }
  var mover: SpillMover? { didSet { noteWalking() } }
  private(set) var isWalking = false
  /// How often consumers have begun to wait with others.
  private var waits: UInt64 = 0
  /// Queues whose next message is damaged.
  private var damaged: [Queue] = []
  /// Answers what clients ask of the broker itself.
  public var management: (any ManagementResponder)?
  var requests = ManagementLoad()
  /// Connections that are open.
  private(set) var peers: [Peer] = []
  /// Channels that are closed and have not given up all that they had.
  var closingChannels: [Channel] = []
  /// Where `tend` goes on among the queues that may have messages, for those that have none, when that is,
  /// how many are to be looked at, and whether it begins anew then.
  var idleIndex = 0
  var nextIdleLook: Int64?
  var idleLooksLeft = 0
  var isIdleLookWanted = false
  let deliveryChunks = DeliveryChunks()
  private(set) lazy var deadLetters = DeadLetters(self)
  public private(set) lazy var events = Events(self)
  let firehose = Firehose()
  var countedProperties = CountedProperties()
  /// What the account has of blocks that are kept for loans.
  var countedLoans = 0
  /// What was not acknowledged in time.
  public internal(set) var lockCounts = LockCounts()
  /// What all consumers take.
  var consumerBytes = 0
  /// Clients that do not read keep more memory busy than they may: messages that are not small wait
  /// in their queues, for everybody, until they read or are gone.
  public internal(set) var isOutputExhausted = false { didSet { noteDelivering() } }
  /// Virtual hosts whose messages are traced.
  var tracedCount = 0 { didSet { noteDelivering() } }
  /// What is delivered is looked at, for either of both.
  var deliversCarefully = false
  /// Queues whose next message waits for that to be over.
  var stopped: [Queue] = []
  /// Whether the turn has taken so long that what can wait is left for the next one. Whoever has a clock
  /// sets it; without one, the budgets of steps and bytes are what ends a turn.
  public var isTurnLong: () -> Bool = { false } {
    didSet {
      chores.isTurnLong = isTurnLong
      walks.isTurnLong = isTurnLong
      deliveries.isTurnLong = isTurnLong
      deadlines.isTurnLong = isTurnLong
    }
  }
  /// Channels that published in this turn and confirm.
  private var confirming: [Channel] = []
  /// Channels with publishes that wait for the log.
  private var awaiting: [Channel] = []
  /// Deleted queues with deliveries that are not acknowledged yet.
  private var unsettled: [UInt32: Destination] = [:]
  var recovering: Recovering?
  /// Messages that are being stored in very many queues, and what was deleted meanwhile.
  private var wideStoreCount = 0
  private var retired: [Destination] = []

  /// `moment` is the present, until the first turn; `random` gives numbers for names that clients must not
  /// guess.
  public init(
    journal: Journal, limits: BrokerLimits, at moment: Moment, random: @escaping () -> UInt64
  ) {
    self.journal = journal
    self.limits = limits
    now = moment.wall
    time = moment.monotonic
    dates = SteadyClock(at: moment)
    deadlines = Timetable(stepsPerTurn: limits.dueStepsPerTurn)
    account = MemoryAccount(limitBytes: limits.memoryBytes)
    chores = Chores(stepsPerTurn: limits.choreStepsPerTurn)
    walks = Chores(stepsPerTurn: limits.walkStepsPerTurn)
    deliveries = Deliveries(bytesPerTurn: limits.deliveryBytesPerTurn)
    self.random = random
    vhosts[VirtualHost.defaultName] = VirtualHost(name: VirtualHost.defaultName, broker: self)
  }

  deinit { deliveryChunks.isOver = true }

  public func vhost(_ name: Name) -> VirtualHost? { vhosts[name] }

  // MARK: Turns

  /// A turn begins.
  public func begin(at moment: Moment) {
    turn += 1
    time = moment.monotonic
    dates.follow(moment)
    now = dates.date(at: time)
    chores.renew()
    walks.renew()
    deliveries.renew()
  }

  /// Work is underway that goes on in the next turn, which is to come without waiting.
  public var hasChores: Bool {
    !chores.isEmpty || !walks.isEmpty || deliveries.hasMore || deadLetters.hasMore
      || events.hasMore || !firehose.isEmpty
  }

  /// Much was given up, and nothing that is underway gives up more: memory is to be given back to the
  /// system.
  public var hasReleasedMuch: Bool { releasedCount >= Self.releasedMany && chores.isEmpty }

  /// Memory is given back to the system now.
  public func memoryReleased() { releasedCount = 0 }

  /// Delivers what can be delivered, as far as the turn's budget reaches. Sessions call it after a batch
  /// of input, and the loop at the turn's end.
  public func pump() {
    deliver(isOverdrawing: false)
    if !damaged.isEmpty { stopDamaged() }
  }

  /// As `pump`, for a request that is to see what those before it have led to. It may draw on the next
  /// turn's budget, so that what others are sent does not come between.
  public func pumpForRequest() {
    deliver(isOverdrawing: true)
    if !damaged.isEmpty { stopDamaged() }
  }

  // MARK: The turn's end

  /// The turn ends: does what is due, confirms what needs no log, notes what waits for it, and hands the
  /// log what gathered.
  public func end() {
    tend()
    chores.advance()
    walks.advance()
    deadLetters.advance()
    firehose.tellDropped(in: self)
    events.advance()
    pump()
    if !confirming.isEmpty {
      let position = journal.endPosition
      for channel in confirming where channel.closeConfirmGroup(at: position) {
        awaiting.append(channel)
      }
      confirming.removeAll(keepingCapacity: true)
    }
    endAppending()
    for lane in moving { lane.movesEnded(at: journal.endPosition) }
    moving.removeAll(keepingCapacity: true)
    commit()
    if journal.failure != nil { refuseAwaiting() }
    // Behind the commit, which has told the log what was settled before a batch is tried again, and before
    // a round, or files would never be merged while one round follows the other.
    journal.tend(now: time)
    spill()
    journal.trim()
  }

  private func commit() {
    guard !journal.isCommitting, journal.failure == nil else { return }
    logProgress(lanesMax: Self.lanesPerCommit, countsMax: limits.deliveryCountsPerCommit)
    if mover == nil, journal.wantsCheckpoint(now: time) { beginCheckpoint() }
    journal.commit(now: now)
  }

  /// Lanes whose progress the log gets with one commit. What left others comes with the next: nobody was
  /// promised anything of it yet.
  static let lanesPerCommit = 8192

  /// Tells the log what left lanes, and how often messages came back, of which some may be left.
  private func logProgress(lanesMax: Int, countsMax: Int) {
    var left = countsMax
    var unfinished: [Lane] = []
    let count = min(unlogged.count, lanesMax)
    for index in 0..<count {
      let lane = unlogged[index]
      lane.logProgress()
      if !lane.logCounts(&left) { unfinished.append(lane) }
    }
    if count == unlogged.count {
      unlogged.removeAll(keepingCapacity: true)
    } else {
      unlogged.removeFirst(count)
    }
    unlogged += unfinished
  }

  /// Writes all that exists into a checkpoint, from now on; no round is being taken.
  func beginCheckpoint() {
    let snapshot = CatalogSnapshot(self)
    self.snapshot = snapshot
    walks.begin(snapshot, for: nil)
  }

  /// Takes what the journal's threads have done, and confirms what became durable.
  public func journalMoved() {
    let progress = journal.poll(now: time)
    for block in progress.loaded {
      for queue in fetching.removeValue(forKey: block) ?? [] { queue.fetched() }
    }
    if let moved = progress.moved { finishSpill(moved.lanes, moved.partitions) }
    guard progress.hasCommitted else { return }
    for queue in reserving { queue.touch() }
    reserving.removeAll(keepingCapacity: true)
    if journal.failure != nil { return refuseAwaiting() }
    let position = journal.durablePosition
    awaiting.removeAll { !$0.confirmDurable(upTo: position) }
    becomingDurable.removeAll { !$0.becameDurable(upTo: position) }
    if !leavingFiles.isEmpty { removeFiles(upTo: journal.syncedEnd) }
    tellDurable(upTo: position)
  }

  /// The log failed: what waits for it is not confirmed any more.
  private func refuseAwaiting() {
    for channel in awaiting { channel.refuseAll() }
    awaiting = []
    if let reason = journal.failure { tellFailure(reason) }
  }

  /// Writes all that is left and ends the journal.
  public func close() {
    for underway in [chores, walks] {
      while !underway.isEmpty {
        underway.renew()
        underway.advance()
      }
    }
    firehose.store(in: self)
    events.finish()
    logProgress(lanesMax: .max, countsMax: .max)
    for vhost in vhosts.values {
      for destination in vhost.destinations.values { destination.tightenHorizon() }
    }
    journal.close(now: now)
  }

  // MARK: What queues and channels tell

  func noteReleased() { releasedCount += 1 }

  func wideStoreBegan(bytes: Int) {
    wideStoreCount += 1
    account.add(bytes, to: .bodies)
  }

  func wideStoreEnded(bytes: Int) {
    wideStoreCount -= 1
    account.add(-bytes, to: .bodies)
    if wideStoreCount == 0 { retired = [] }
  }

  /// Routes that a commit has found are kept; see `retire`.
  func commitBegan() { wideStoreBegan(bytes: 0) }
  func commitEnded() { wideStoreEnded(bytes: 0) }

  /// It was deleted; routes that are being stored to may have it.
  func retire(_ leaving: Destination) {
    if wideStoreCount > 0 { retired.append(leaving) }
  }

  @inline(__always)
  func noteTouched(_ queue: Queue) {
    deliveries.add(queue)
    isIdleLookWanted = true
    if queue.holdingIndex == nil { hold(queue) }
  }

  private func hold(_ queue: Queue) {
    // What readers have is no reason to move it.
    guard !queue.isDeleted, queue.feed == nil else { return }
    queue.holdingIndex = holding.count
    holding.append(queue)
  }

  /// The queue has no messages any more.
  func letGo(_ queue: Queue) {
    guard let index = queue.holdingIndex else { return }
    queue.holdingIndex = nil
    let last = holding.removeLast()
    guard last !== queue else { return }
    holding[index] = last
    last.holdingIndex = index
  }

  func noteFetching(_ queue: Queue, _ block: UInt32) {
    fetching[block, default: []].append(queue)
  }

  func noteUnreadable(_ queue: Queue) {
    unreadable.append(queue)
  }

  private func noteWalking() {
    isWalking = snapshot != nil || selector != nil || mover != nil
  }

  func noteDamaged(_ queue: Queue) {
    damaged.append(queue)
  }

  /// Consumers of a queue that cannot go on are told so.
  private func stopDamaged() {
    let queues = damaged
    damaged = []
    for queue in queues where !queue.isDeleted { queue.stopConsumers() }
  }

  func add(_ peer: Peer) {
    peer.index = peers.count
    peers.append(peer)
  }

  func remove(_ peer: Peer) {
    invariant(peers[peer.index] === peer, "a connection is closed twice")
    let last = peers.removeLast()
    guard last !== peer else { return }
    peers[peer.index] = last
    last.index = peer.index
  }

  func noteUnlogged(_ lane: Lane) {
    unlogged.append(lane)
  }

  /// Messages wait to be delivered until the log knows that they may have been, or until they are
  /// in memory.
  var hasWaitingDeliveries: Bool { !reserving.isEmpty || !fetching.isEmpty }

  func noteReserving(_ queue: Queue) {
    reserving.append(queue)
  }

  func noteMoving(_ lane: Lane) { moving.append(lane) }

  func noteAppended(_ partition: Partition) { appending.append(partition) }

  private func endAppending() {
    guard !appending.isEmpty else { return }
    let position = journal.endPosition
    for partition in appending where partition.turnEnded(at: position) {
      becomingDurable.append(partition)
    }
    appending.removeAll(keepingCapacity: true)
  }

  /// A consumer begins to wait with others.
  func nextWait() -> UInt64 {
    waits += 1
    return waits
  }

  func noteMoving(_ line: ConsumerLine) {
    deliveries.add(line)
  }

  func noteConfirming(_ channel: Channel) {
    confirming.append(channel)
  }

  /// It was deleted; it is kept as long as deliveries refer to it.
  func keepUntilDone(_ leaving: Destination) {
    unsettled[leaving.id] = leaving
    forgetIfDone(leaving)
  }

  func forgetIfDone(_ leaving: Destination) {
    guard leaving.isDone, unsettled[leaving.id] === leaving else { return }
    unsettled[leaving.id] = nil
    queueNumbers.giveBack(leaving.id)
    for lane in leaving.laneIDs { laneNumbers.giveBack(lane) }
  }
}
