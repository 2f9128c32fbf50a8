import AMQP
import Base
import Journal

/// A queue: messages are taken, locked while they are unacknowledged, and deleted.
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
  /// Where it is bound, so that deleting it costs what it is bound to.
  var bindings = BindingList()
  var isDeleted = false
  /// What the account of memory has of its entries.
  private var countedEntries = 0
  /// Where the log says that it was declared.
  var declaredAt = 0
  /// Where it is in the catalog, if it is durable.
  var catalogIndex: Int?
  /// The last checkpoint that has it, with what had moved up to there when the queue's turn came.
  var snapshot: (number: Int, upTo: UInt64) = (0, 0)
  /// A message in the log is damaged: it and what is behind it do not move.
  var staysInLog = false
  /// The operator was told that a message of it is damaged, which is told once.
  var isDamageTold = false

  /// Never delivered, in order.
  var lane = Lane()
  /// Given back; always before all of `lane`.
  var returned = Returned()
  /// Delivered and not yet acknowledged.
  private(set) var unacknowledgedCount = 0
  var nextSequence: UInt64 = 1
  /// How far durable messages may be delivered, so that the log always knows it.
  private(set) var horizon = DeliveryHorizon()
  /// Durable messages that left the queue since settlements were last written: the last range, which
  /// is mostly the only one, and those before it.
  private var lastSettled = SettledRange(first: 0, count: 0)
  private var settled: [SettledRange] = []

  var rounds = ConsumerRounds()
  /// An exclusive consumer is alone.
  var hasExclusiveConsumer = false
  var hadConsumers = false
  /// Reasons why nobody is served for a while: many messages come back, or leave.
  private(set) var holds = 0
  /// The work that held the queue last, so that the same work holds it once.
  private weak var holder: ChannelWork?
  /// Messages of the lane that are being purged: the first ones.
  var doomedCount = 0
  /// Where it is among its owner's queues.
  var exclusiveIndex = 0
  /// `nextSequence` when the queue was found empty.
  private var idleSequence: UInt64 = 0
  /// Waits in the broker's list of queues whose next message is too large for now.
  var isStopped = false
  /// Waits in the broker's list of queues to pump.
  var isTouched = false
  /// Waits in the broker's list of queues with something to log.
  private var isUnlogged = false
  /// Where it is in the broker's list of queues that may have messages.
  var holdingIndex: Int?
  /// Messages with sequences up to this one are in lane files, if they are alive and durable.
  var movedUpTo: UInt64 = 0
  /// Messages up to this one may have been delivered before the last start.
  private var recoveredUpTo: UInt64 = 0
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

  struct SettledRange {
    var first: UInt64
    var count: UInt64
  }

  init(
    id: UInt32, name: Name, vhost: VirtualHost, isDurable: Bool, isAutoDelete: Bool,
    owner: Peer?, arguments: FieldTable
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
  }

  /// About what it takes of memory, without messages and bindings. Measured with 50,000 of them.
  var memoryBytes: Int { MemoryAccount.bytes(640, name, arguments) }

  // MARK: Counts

  public var readyCount: Int {
    lane.count - doomedCount + returned.count
      + (Sabotage.is(.miscountsReady) && returned.count > 1 ? 1 : 0)
  }
  public var messageCount: Int { readyCount + unacknowledgedCount }
  public var consumerCount: Int { rounds.count }
  @inline(__always) var hasReady: Bool { !lane.isEmpty || !returned.isEmpty }

  // MARK: Messages

  /// Appends a message whose block was retained for this entry.
  @inline(__always)
  func enqueue(_ location: RecordLocation, flags: Entry.Flags) {
    lane.append(
      Entry(
        sequence: nextSequence, location: location, flags: flags))
    nextSequence &+= 1
    touch()
  }

  /// What recovery found, in order: messages of lane files that were opened, blocks of lane files,
  /// messages of the log; and what nobody has in those that were opened. All else is empty.
  func restore(
    opened: [Entry], gone: [ClosedRange<UInt64>], _ runs: [LaneRun], _ entries: [Entry],
    nextSequence: UInt64, deliveredUpTo: UInt64, movedUpTo: UInt64
  ) {
    invariant(lane.count == 0 && returned.isEmpty, "a queue was restored twice")
    recoveredUpTo = deliveredUpTo
    self.movedUpTo = movedUpTo
    lane.restore(
      Sabotage.is(.forgetsMovedRedelivered) ? opened : opened.map(recovered),
      isSplit: !runs.isEmpty)
    for run in runs { lane.append(run) }
    for entry in entries { lane.append(recovered(entry)) }
    lane.restored()
    // What comes now was not delivered, so that it must be behind what may have been.
    self.nextSequence = max(nextSequence, deliveredUpTo + 1)
    horizon = DeliveryHorizon(upTo: deliveredUpTo)
    for range in gone { noteGone(range) }
    if hasReady { touch() }
  }

  private func recovered(_ entry: Entry) -> Entry {
    var entry = entry
    if entry.sequence <= recoveredUpTo { entry.flags.insert(.redelivered) }
    return entry
  }

  /// The record of the next message if it may leave now; otherwise the queue is pumped again when
  /// it may. There is a next message.
  @inline(__always)
  func nextRecord() -> UnsafeRawPointer? {
    guard let next = returned.first ?? lane.first else { return openLane() }
    return record(of: next)
  }

  @inline(__always)
  private func record(of next: Entry) -> UnsafeRawPointer? {
    if isDurable, next.isDurable, !horizon.covers(next.sequence), !reserve(next.sequence) {
      return nil
    }
    return journal.pointer(next.location) ?? fetch(next.location.block)
  }

  /// Takes the next message, whose record was seen; it is locked until `settle` or `giveBack`, or
  /// settled at once.
  @inline(__always)
  func take() -> Entry {
    returned.isEmpty ? lane.removeFirst() : returned.removeFirst()
  }

  /// Tells the log that messages up to this one, and some more, may have been delivered.
  @inline(never)
  private func reserve(_ sequence: UInt64) -> Bool {
    // A log that failed learns nothing more; what is there is served all the same.
    if journal.failure != nil || Sabotage.is(.deliversBeforeLog) { return true }
    horizon.reached(journal.durablePosition)
    if let wanted = horizon.wants(sequence) {
      DeliveredRecord.append(to: journal, queue: id, sequence: wanted)
      horizon.requested(wanted, at: journal.endPosition)
    }
    if horizon.allows(sequence) { return true }
    broker.noteReserving(self)
    return false
  }

  /// Tells the log exactly what was delivered, once nobody takes messages any more.
  func tightenHorizon() {
    guard isDurable, !isDeleted, journal.failure == nil, let exact = horizon.tightened() else {
      return
    }
    DeliveredRecord.append(to: journal, queue: id, sequence: exact)
    horizon.requested(exact, at: journal.endPosition)
  }

  /// Blocks of lanes, and chunks of entries, whose messages are read back ahead.
  private static let runsAhead = 4
  private static let chunksAhead = 16

  /// Opens the next block on disk, if it is in memory by now.
  @inline(never)
  private func openLane() -> UnsafeRawPointer? {
    guard let run = lane.nextRun else { return nil }
    guard journal.isResident(run.block) else { return fetch(run.block) }
    lane.open(
      journal,
      entry: { Sabotage.is(.forgetsMovedRedelivered) ? Entry($0) : recovered(Entry($0)) },
      gone: noteGone)
    lane.forEachRun(atMost: Self.runsAhead) { journal.loadAhead($0) }
    return lane.first.flatMap { record(of: $0) }
  }

  /// Has a block read back, and what comes behind it.
  @inline(never)
  private func fetch(_ block: UInt32) -> UnsafeRawPointer? {
    journal.load(block)
    if journal.damage(of: block) != nil {
      broker.noteDamaged(self)
      return nil
    }
    if journal.hasFailed(block) {
      if !isTryingAgain { broker.noteUnreadable(self) }
      isTryingAgain = true
      return nil
    }
    lane.forEachRun(atMost: Self.runsAhead) { journal.loadAhead($0) }
    lane.forEachAhead(atMost: Self.chunksAhead) { journal.loadAhead($0.location.block) }
    if fetching != block {
      fetching = block
      broker.noteFetching(self, block)
    }
    return nil
  }

  /// A block that the queue waited for is in memory, or could not be read.
  func fetched() {
    fetching = nil
    touch()
  }

  /// The next message is no longer too large.
  func goOn() {
    isStopped = false
    touch()
  }

  /// What could not be read may be readable now.
  func tryAgain() {
    isTryingAgain = false
    touch()
  }

  /// The next message's block could not be read; it will be tried again.
  var isUnreadable: Bool {
    nextBlock.map { journal.hasFailed($0) } ?? false
  }

  var nextBlock: UInt32? {
    (returned.first ?? lane.first)?.location.block ?? lane.nextRun?.block
  }

  /// Where the log will be when a message that may not be taken yet may be.
  var horizonPosition: Int { horizon.requestPosition }

  /// Counts a message that was taken as unacknowledged.
  @inline(__always)
  func lock(_ entry: inout Entry) {
    if broker.isWalking { broker.walked(&entry, of: self) }
    unacknowledgedCount &+= 1
    if entry.isDurable { horizon.delivered(entry.sequence) }
  }

  /// A locked message is deleted.
  @inline(__always)
  func settleLocked(_ entry: Entry) {
    unacknowledgedCount &-= 1
    settle(entry)
  }

  /// A message that was taken is deleted.
  @inline(__always)
  func settle(_ entry: Entry) {
    journal.release(entry.location.block)
    if entry.isDurable {
      horizon.delivered(entry.sequence)
      noteSettled(entry.sequence)
    } else if entry.sequence <= movedUpTo {
      noteGone(entry.sequence...entry.sequence)
    }
  }

  /// No message of a lane file has these sequences, or it need not survive. The log is told that they
  /// are gone, so that recovery does not look for them in a block that nobody needs.
  @inline(never)
  private func noteGone(_ range: ClosedRange<UInt64>) {
    noteSettled(
      SettledRange(first: range.lowerBound, count: range.upperBound - range.lowerBound + 1))
  }

  /// Messages that wait on disk are deleted.
  func settle(_ run: LaneRun) {
    journal.release(run.block, count: Int(run.count))
    noteSettled(SettledRange(first: run.first, count: run.last - run.first + 1))
  }

  /// A locked message comes back, before all that was never delivered, in the old order.
  func giveBack(_ entry: Entry) {
    unacknowledgedCount -= 1
    if isDeleted {
      journal.release(entry.location.block)
      return
    }
    var entry = entry
    if broker.isWalking { broker.walked(&entry, of: self) }
    if !Sabotage.is(.forgetsRedelivered) { entry.flags.insert(.redelivered) }
    returned.insert(entry)
    touch()
  }

  // MARK: Holding

  /// Nobody is served until `letGo`.
  func hold() {
    holds += 1
  }

  /// Nobody is served until `letGo`. False if it is held for this work already.
  func hold(for work: ChannelWork) -> Bool {
    if holds > 0, holder === work { return false }
    holder = work
    holds += 1
    return true
  }

  func letGo() {
    holds -= 1
    guard holds == 0 else { return }
    holder = nil
    if hasReady, !isDeleted { touch() }
  }

  var isHeld: Bool { holds > 0 }

  // MARK: The end

  /// Nothing is to be told to the log any more, which knows that the queue is gone.
  func markDeleted() {
    isDeleted = true
    settled = []
    lastSettled.count = 0
  }

  /// Whether the queue has been empty since it was looked at before; then it gives back memory.
  func trimIfIdle() -> Bool {
    guard messageCount == 0, !isTouched else { return false }
    guard idleSequence == nextSequence else {
      idleSequence = nextSequence
      return false
    }
    lane.trim()
    if lastSettled.count == 0 { settled = [] }
    countEntries()
    return true
  }

  /// Brings the account of memory up to date.
  func countEntries() {
    let bytes =
      lane.byteCount + returned.byteCount + settled.capacity * MemoryLayout<SettledRange>.stride
    guard bytes != countedEntries else { return }
    broker.account.add(bytes - countedEntries, to: .entries)
    countedEntries = bytes
  }

  // MARK: The log

  @inline(__always)
  private func noteSettled(_ sequence: UInt64) {
    guard !isDeleted else { return }
    if lastSettled.first &+ lastSettled.count == sequence, lastSettled.count != 0 {
      lastSettled.count &+= 1
    } else {
      beginSettled(SettledRange(first: sequence, count: 1))
    }
    markUnlogged()
  }

  private func noteSettled(_ range: SettledRange) {
    guard isDurable, !isDeleted else { return }
    beginSettled(range)
    markUnlogged()
  }

  @inline(never)
  private func beginSettled(_ range: SettledRange) {
    if lastSettled.count > 0 { settled.append(lastSettled) }
    lastSettled = range
  }

  @inline(__always)
  private func markUnlogged() {
    if !isUnlogged {
      isUnlogged = true
      broker.noteUnlogged(self)
    }
  }

  /// Writes what left the queue to the log.
  func logProgress() {
    isUnlogged = false
    guard isDurable, !isDeleted else { return }
    if lastSettled.count > 0 {
      settled.append(lastSettled)
      lastSettled.count = 0
      if settled.count > 1 { settled.sort { $0.first < $1.first } }
      if Sabotage.is(.dropsSettlement), settled.count > 1 { settled.removeLast() }
      Settlements.append(journal, queue: id, ranges: &settled)
      settled.removeAll(keepingCapacity: settled.count <= 64)
      countEntries()
    }
  }
}
