import Base
import Journal

/// One order of a queue's messages, with sequences of its own: what waits, what was given back, how far
/// messages may be delivered, and what has left and is to be told to the log. Log, lane files and
/// checkpoints speak of lanes by their ids; only the catalog says which queue has which.
final class Lane: RecoveredLane {
  let id: UInt32
  let role: LaneRole
  /// Of the messages in it; those of higher ones are served first. The place, for those that wait for their
  /// time.
  let priority: UInt32
  /// Survives a restart.
  let isDurable: Bool
  /// The queue was deleted. Whoever refers to a lane may ask its queue for something only before that, or
  /// while a delivery refers to the lane, which keeps the queue.
  private(set) var isDeleted = false
  // Unsafe but sound: both outlive all queues.
  private unowned(unsafe) let broker: Broker
  unowned(unsafe) let journal: Journal
  // Unsafe but sound: see `isDeleted`.
  private unowned(unsafe) var holder: Queue?

  /// Never delivered, in order.
  var waiting = Waiting()
  /// Given back; always before all of `waiting`.
  var returned = Returned()
  /// Delivered and not yet acknowledged.
  private(set) var unacknowledgedCount = 0
  /// Whether what comes leaves before what is here.
  var order = ExpiryOrder()
  var nextSequence: UInt64 = 1
  /// How far durable messages may be delivered, so that the log always knows it.
  var horizon = DeliveryHorizon()
  /// Durable messages that left since settlements were last written: the last range, which is mostly the
  /// only one, and those before it.
  private var lastSettled = SettledRange(first: 0, count: 0)
  private var settled: [SettledRange] = []
  /// Waits in the broker's list of lanes with something to log.
  private var isUnlogged = false
  /// Messages with sequences up to this one are in lane files, if they are alive and durable.
  private(set) var movedUpTo: UInt64 = 0
  /// Messages up to this one may have been delivered before the last start.
  private var recoveredUpTo: UInt64 = 0
  /// Messages without any life that are kept until the log knows that they may be delivered.
  private(set) var keptForLog: Range<UInt64> = 0..<0
  /// Messages that wait and are being purged: the first ones.
  private(set) var doomedCount = 0
  /// The last checkpoint that has it, with what had moved up to there when the queue's turn came.
  var snapshot: (number: Int, upTo: UInt64) = (0, 0)
  /// How often its messages came back; nil where nobody counts that.
  private(set) var counts: DeliveryCounts?
  /// A message in the log is damaged: it and what is behind it do not move.
  var staysInLog = false

  struct SettledRange {
    var first: UInt64
    var count: UInt64
  }

  init(
    id: UInt32, role: LaneRole = .ready, priority: UInt32, isDurable: Bool, broker: Broker
  ) {
    self.id = id
    self.role = role
    self.priority = priority
    self.isDurable = isDurable
    self.broker = broker
    journal = broker.journal
  }

  /// Its queue's beginning: what has a lane is there from then on.
  func join(_ queue: Queue) {
    holder = queue
    counts = queue.deliveryCounting.map { DeliveryCounts($0) }
  }

  var queue: Queue { holder.unsafelyUnwrapped }

  // MARK: Counts

  var readyCount: Int {
    waiting.count - doomedCount + returned.count
      + (Sabotage.is(.miscountsReady) && returned.count > 1 ? 1 : 0)
  }
  @inline(__always) var hasReady: Bool { !waiting.isEmpty || !returned.isEmpty }

  /// Of what it notes of messages.
  var byteCount: Int {
    waiting.byteCount + returned.byteCount + settled.capacity * MemoryLayout<SettledRange>.stride
      + (counts?.byteCount ?? 0)
  }

  // MARK: Messages

  /// Appends a message whose block was retained for this entry.
  @inline(__always)
  func enqueue(_ location: RecordLocation, flags: Entry.Flags) {
    waiting.append(Entry(sequence: nextSequence, location: location, flags: flags))
    nextSequence &+= 1
  }

  /// Puts a record of a stream behind the others.
  func put(_ entry: Entry) { waiting.append(entry) }

  /// What recovery found, in order: blocks of lane files, messages of the log. All else is empty.
  func restore(_ found: RecoveringLane.Remains, _ state: RecoveringLane) {
    invariant(waiting.count == 0 && returned.isEmpty, "a lane was restored twice")
    recoveredUpTo = state.deliveredUpTo
    movedUpTo = state.movedUpTo
    let hasTTL = queue.settings?.messageTTL != nil
    var expires =
      hasTTL || found.runs.contains { $0.run.earliestExpiry != LaneBlock.neverExpires }
    for (run, left) in found.runs { waiting.append(run, left: left) }
    if !found.runs.isEmpty { order.reset(behindImmortal: state.movedUpTo) }
    let bytes = state.bodyBytes(of: found)
    counts?.restore(state.movedCounts)
    for (entry, date) in zip(found.entries, found.dates) {
      var entry = recovered(entry)
      if let count = state.counts[entry.sequence], let counts {
        counts.restore(count, of: entry.sequence)
        entry.flags.formUnion([.cameBack, .redelivered])
      }
      if bytes != nil { entry.flags.insert(.counted) }
      if hasTTL { entry.flags.insert(.expires) }
      expires = expires || entry.expires
      restore(entry, date)
    }
    if let bytes { queue.count(bytes: bytes) }
    waiting.restored()
    // What comes now was not delivered, so that it must be behind what may have been.
    nextSequence = max(state.nextSequence, state.deliveredUpTo + 1)
    horizon = DeliveryHorizon(upTo: state.deliveredUpTo)
    for range in found.gone { noteGone(range) }
    guard hasReady else { return }
    queue.filled(self)
    // What expired meanwhile leaves when the first turn ends. The life of what is delayed has not begun.
    if expires, role == .ready { queue.neededTimes().look() }
  }

  /// A message that the log has, with the date when it expires.
  private func restore(_ entry: Entry, _ date: Int64) {
    if order.isEarlyAtRecovery(date, of: entry.sequence), role == .ready {
      waiting.append(entry, leavingAt: date)
    } else {
      waiting.append(entry)
    }
  }

  private func recovered(_ entry: Entry) -> Entry {
    var entry = entry
    if entry.sequence <= recoveredUpTo { entry.flags.insert(.redelivered) }
    return entry
  }

  /// A message of a lane file. One that was repaired says neither which messages expire nor whether they are
  /// counted.
  private func opened(_ entry: Entry, of run: LaneRun) -> Entry {
    var entry = Sabotage.is(.forgetsMovedRedelivered) ? entry : recovered(entry)
    // What a file says of it is of an earlier time.
    entry.flags.remove(.cameBack)
    if let counts, counts.opens(entry.sequence) {
      entry.flags.formUnion([.cameBack, .redelivered])
    }
    let mayExpire = run.earliestExpiry != LaneBlock.neverExpires
    if queue.settings?.messageTTL != nil
      || mayExpire && journal.pointer(entry.location).map({ MessageView($0).hasExpiration }) == true
    {
      entry.flags.insert(.expires)
    }
    return marked(entry)
  }

  /// All that waits in a queue that counts bytes is counted.
  private func marked(_ entry: Entry) -> Entry {
    var entry = entry
    if queue.settings?.countsBytes == true {
      entry.flags.insert(.counted)
    } else {
      entry.flags.remove(.counted)
    }
    return entry
  }

  /// A message of a lane file that leaves without having been the next one.
  func passed(_ entry: Entry) -> Entry {
    var entry = entry
    entry.flags.remove([.cameBack, .redelivered])
    return marked(entry)
  }

  /// The record of the next message if it may leave now; otherwise the queue is pumped again when
  /// it may. There is a next message.
  @inline(__always)
  func nextRecord() -> UnsafeRawPointer? {
    guard let next = returned.first ?? waiting.first else { return open() }
    return record(of: next)
  }

  @inline(__always)
  private func record(of next: Entry) -> UnsafeRawPointer? {
    if next.expires, isOver(next) { return nil }
    if isDurable, next.isDurable, !horizon.covers(next.sequence), !reserve(next.sequence) {
      return nil
    }
    return journal.pointer(next.location) ?? fetch(next.location.block)
  }

  /// Takes the next message, whose record was seen; it is locked until `settleLocked` or `giveBack`, or
  /// settled at once.
  @inline(__always)
  func take() -> Entry {
    let entry = returned.isEmpty ? waiting.removeFirst() : returned.removeFirst()
    if entry.isCounted { uncount(entry) }
    return entry
  }

  /// Its body's bytes are ready no longer.
  @inline(never)
  func uncount(_ entry: Entry) {
    queue.count(bytes: -bodySize(of: entry))
  }

  private func bodySize(of entry: Entry) -> Int {
    journal.pointer(entry.location).map { MessageView($0).bodySize } ?? 0
  }

  /// Counts the body's bytes of a message that is ready again.
  private func counted(_ entry: Entry) -> Entry {
    var entry = entry
    entry.flags.remove(.counted)
    guard queue.settings?.countsBytes == true, let record = journal.pointer(entry.location) else {
      return entry
    }
    entry.flags.insert(.counted)
    queue.count(bytes: MessageView(record).bodySize)
    return entry
  }

  /// The next message's record is in memory; otherwise the queue is touched when it is. There is a next
  /// message.
  func isNextInMemory() -> Bool {
    if returned.isEmpty, waiting.first == nil, !openRun() { return false }
    guard let next = returned.first ?? waiting.first else { return false }
    if journal.pointer(next.location) != nil { return true }
    _ = fetch(next.location.block)
    return false
  }

  /// Messages from the next one on have no life, and who would take them waits for the log.
  func keepForLog() {
    guard let next = returned.first ?? waiting.first else { return }
    keptForLog = next.sequence..<nextSequence
  }

  /// Tells the log that messages up to this one, and some more, may have been delivered.
  @inline(never)
  private func reserve(_ sequence: UInt64) -> Bool {
    if Sabotage.is(.deliversBeforeLog) { return true }
    // A log that failed learns nothing more; what is there is served once that is noted beside it.
    if journal.failure != nil {
      guard journal.isMarkingFailure else { return true }
      broker.noteReserving(queue)
      return false
    }
    horizon.reached(journal.durablePosition)
    if let wanted = horizon.wants(sequence) {
      DeliveredRecord.append(to: journal, lane: id, sequence: wanted)
      horizon.requested(wanted, at: journal.endPosition)
    }
    if horizon.allows(sequence) { return true }
    broker.noteReserving(queue)
    return false
  }

  // MARK: On disk

  /// Blocks of lanes, and chunks of entries, whose messages are read back ahead.
  private static let runsAhead = 4
  private static let chunksAhead = 16

  /// Opens the next block on disk, if it is in memory by now.
  @inline(never)
  private func open() -> UnsafeRawPointer? {
    openRun() ? waiting.first.flatMap { record(of: $0) } : nil
  }

  private func openRun() -> Bool {
    guard let run = waiting.nextRun else { return false }
    guard journal.isResident(run.block) else {
      _ = fetch(run.block)
      return false
    }
    waiting.open(
      journal,
      entry: {
        let entry = opened(Entry($0), of: run)
        return (entry, leavingAt: earlyDate(of: entry))
      },
      gone: noteGone)
    waiting.forEachRun(atMost: Self.runsAhead) { journal.loadAhead($0) }
    return true
  }

  /// Has a block read back, and what comes behind it.
  @inline(never)
  private func fetch(_ block: UInt32) -> UnsafeRawPointer? {
    journal.load(block)
    guard queue.awaits(block) else { return nil }
    waiting.forEachRun(atMost: Self.runsAhead) { journal.loadAhead($0) }
    waiting.forEachAhead(atMost: Self.chunksAhead) { journal.loadAhead($0.location.block) }
    return nil
  }

  /// The block that the next message is in; nil if there is none.
  var nextBlock: UInt32? {
    (returned.first ?? waiting.first)?.location.block ?? waiting.nextRun?.block
  }

  /// A block of a round is durable, with messages of the lane up to `last`.
  func moved(upTo last: UInt64) {
    movedUpTo = max(movedUpTo, last)
  }

  // MARK: Leaving

  /// Counts a message that was taken as unacknowledged.
  @inline(__always)
  func lock(_ entry: inout Entry, forDelivery isDelivered: Bool = true) {
    if broker.isWalking { broker.walked(&entry, of: self) }
    unacknowledgedCount &+= 1
    if isDelivered, entry.isDurable { horizon.delivered(entry.sequence) }
  }

  /// A locked message is deleted.
  @inline(__always)
  func settleLocked(_ entry: Entry, afterDelivery isDelivered: Bool = true) {
    unacknowledgedCount &-= 1
    settle(entry, afterDelivery: isDelivered)
  }

  /// A message that was taken is deleted. One that nobody may have seen says nothing of those before it.
  @inline(__always)
  func settle(_ entry: Entry, afterDelivery isDelivered: Bool = true) {
    journal.release(entry.location.block)
    if entry.cameBack { forgetCount(entry.sequence) }
    if entry.isDurable {
      if isDelivered { horizon.delivered(entry.sequence) }
      noteSettled(entry.sequence)
    } else if entry.sequence <= movedUpTo {
      noteGone(entry.sequence...entry.sequence)
    }
  }

  /// No message of a lane file has these sequences, or it need not survive. The log is told that they
  /// are gone, so that recovery does not look for them in a block that nobody needs.
  @inline(never)
  func noteGone(_ range: ClosedRange<UInt64>) {
    noteSettled(
      SettledRange(first: range.lowerBound, count: range.upperBound - range.lowerBound + 1))
  }

  /// Messages that wait on disk are deleted.
  private func settle(_ run: LaneRun) {
    counts?.left(upTo: run.last)
    journal.release(run.block, count: Int(run.count))
    noteSettled(SettledRange(first: run.first, count: run.last - run.first + 1))
  }

  @inline(never)
  private func forgetCount(_ sequence: UInt64) { counts?.forget(sequence) }

  /// A client gives a locked message back, or loses it. Where that is counted, it leaves for good when it
  /// was delivered too often.
  @inline(__always)
  func takeBack(_ entry: Entry) {
    if counts == nil { giveBack(entry) } else { takeBackCounted(entry) }
  }

  /// A locked message comes back, before all that was never delivered, in the old order.
  func giveBack(_ entry: Entry) {
    unacknowledgedCount -= 1
    if isDeleted {
      journal.release(entry.location.block)
      return
    }
    if entry.isOfStream, let feed = queue.feed {
      journal.release(entry.location.block)
      return feed.giveBack(entry, of: self)
    }
    var entry = entry
    if broker.isWalking { broker.walked(&entry, of: self) }
    if entry.isCounted { entry = counted(entry) }
    if !Sabotage.is(.forgetsRedelivered) { entry.flags.insert(.redelivered) }
    if entry.expires {
      returned.insert(entry, leavingAt: date(ofReturned: entry))
      queue.times?.look()
    } else {
      returned.insert(entry)
    }
    queue.filled(self)
  }

  // MARK: Purging

  /// All that is ready now is to be purged; what was given back is `purge`'s.
  func doom(to purge: LanePurge) {
    swap(&returned, &purge.returned)
    doomedCount += purge.count
  }

  /// Deletes some of the first messages that wait, which are being purged.
  func purge(_ limit: Int, upTo last: UInt64, _ steps: inout Int) -> Int {
    let count = waiting.removeFirst(limit, upTo: last, &steps, entry: { settle($0) }, run: settle)
    doomedCount -= count
    return count
  }

  /// Nothing is to be told to the log any more, which knows that the queue is gone.
  func markDeleted() {
    isDeleted = true
    settled = []
    lastSettled.count = 0
    counts?.removeAll()
  }

  /// An empty lane gives back what it keeps.
  func trim() {
    waiting.trim()
    if lastSettled.count == 0 { settled = [] }
  }

  // MARK: The log

  @inline(__always)
  func noteSettled(_ sequence: UInt64) {
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
  func markUnlogged() {
    if !isUnlogged {
      isUnlogged = true
      broker.noteUnlogged(self)
    }
  }

  /// Writes what left the lane to the log.
  func logProgress() {
    isUnlogged = false
    if role == .reader { return logOffset() }
    guard isDurable, !isDeleted, lastSettled.count > 0 else { return }
    settled.append(lastSettled)
    lastSettled.count = 0
    if settled.count > 1 { settled.sort { $0.first < $1.first } }
    if Sabotage.is(.dropsSettlement), settled.count > 1 { settled.removeLast() }
    Settlements.append(journal, lane: id, ranges: &settled)
    settled.removeAll(keepingCapacity: settled.count <= 64)
    queue.countEntries()
  }

  /// Tells the group of a stream's reader what was acknowledged.
  private func logOffset() {
    guard !isDeleted, lastSettled.count > 0 else { return }
    let ranges = settled + [lastSettled]
    settled = []
    lastSettled.count = 0
    queue.feed?.settled(ranges, of: self)
  }

  /// Writes how often messages came back to the log, at most so many. Returns false if some are left, which
  /// is to be asked for again.
  func logCounts(_ left: inout Int) -> Bool {
    guard let counts, isDurable, !isDeleted else { return true }
    if counts.log(to: journal, lane: id, &left) { return true }
    isUnlogged = true
    return false
  }
}
