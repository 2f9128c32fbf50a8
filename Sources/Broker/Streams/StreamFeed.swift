import AMQP
import Base
import Journal

/// Brings the records of a stream to one consumer, a few at a time: its own queue gets entries of them, and
/// delivers as queues do. So all that holds for consumers of queues (credit, flow, slow readers, turns, locks)
/// holds for readers, and a record that is out with a client is an entry of 16 bytes and no copy.
///
/// Entries refer to the blocks that have the records. They keep no block from moving out of the log: before
/// a round of spilling those that were not delivered are taken back (`rewind`), and those that were are forgotten
/// (`SpillSelector`): a record that comes back to its reader is looked up anew by its offset.
final class StreamFeed {
  let stream: Stream
  /// Who gets the records; nil while that is not there yet.
  var consumer: Consumer? { queue.rounds.any }
  /// The group of which its consumer is a member.
  private let group: StreamGroup?
  /// What of the records it is to get; nil if that is all of them.
  private let selection: StreamSelection?
  // Unsafe but sound: the queue has this.
  unowned(unsafe) private(set) var queue: Queue!
  /// By the numbers of their partitions; nil for those that it does not read. It may have none of those that the
  /// stream has got since.
  var cursors: [StreamCursor?]
  /// It reads all partitions by itself.
  private var readsAll = false
  /// The partition that is looked at next.
  private var turn = 0
  private var properties = StreamProperties()
  /// The page, or the block of the log, that was waited for last.
  private(set) var awaited: UInt32?

  /// Records that get entries at once.
  private static let recordsMax: UInt64 = 256
  /// Records of the log that are looked at in one go where some are passed over.
  private static let lookedAtMax: UInt64 = 1024
  /// Where there may be another block of the log, of those that are read back ahead.
  private static let recordsPerBlock = 64

  init(_ stream: Stream, _ group: StreamGroup?, _ selection: StreamSelection? = nil) {
    self.stream = stream
    self.group = group
    self.selection = selection
    cursors = Array(repeating: nil, count: stream.partitions.count)
  }

  /// About what it takes of memory with its queue and the lanes of that. Counted.
  var memoryBytes: Int {
    1400 + Self.partitionBytes * cursors.count + (selection?.memoryBytes ?? 0)
  }
  private static let partitionBytes = 640

  /// The reader's queue is there, and takes messages.
  func begin(_ reading: StreamReading, in queue: Queue) throws(BrokerError) {
    self.queue = queue
    if let group { return try group.join(self) }
    readsAll = reading.readsAll
    for partition in reading.partitions {
      let lane = try newLane(for: partition)
      cursors[partition.index] = StreamCursor(
        partition: partition, lane: lane, next: partition.offset(at: reading.beginning),
        since: reading.beginning.date)
      if let date = reading.beginning.date { begin(partition.index, at: date) }
    }
  }

  /// Begins in the batch that has the first records of a date, if they have moved out of the log.
  private func begin(_ index: Int, at date: Int64) {
    guard let cursor = cursors[index], cursor.next < cursor.partition.recentStart,
      let segment = cursor.partition.segment(of: cursor.next)
    else { return }
    cursors[index]?.page = newPage(.date(date), in: segment, of: cursor.partition)
  }

  /// Reads the partitions that the stream has got since, from their first records on, if it reads all by itself.
  /// Returns how many these are.
  func readMore() -> Int {
    guard readsAll, !queue.isDeleted else { return 0 }
    let more = stream.partitions[cursors.count...]
    for partition in more { read(partition, from: 0) }
    return more.count
  }

  /// There is room for the cursor of a partition.
  private func makeRoom(for partition: Partition) {
    let missing = partition.index + 1 - cursors.count
    guard missing > 0 else { return }
    cursors += [StreamCursor?](repeating: nil, count: missing)
    // What it takes is counted with its consumer.
    if consumer != nil { stream.broker.consumerBytes += Self.partitionBytes * missing }
  }

  private func newLane(for partition: Partition) throws(BrokerError) -> Lane {
    let lane = Lane(
      id: try stream.broker.takeLaneID(isDurable: false), role: .reader,
      priority: UInt32(partition.index), isDurable: false, broker: stream.broker)
    queue.add(lane)
    return lane
  }

  /// What it notes of records takes of memory.
  var byteCount: Int { cursors.reduce(0) { $0 + ($1?.again.byteCount ?? 0) } }

  // MARK: The group

  /// The member reads a partition from now on.
  func assign(_ partition: Partition, from offset: UInt64) {
    queue.forgetDeletedLanes()
    read(partition, from: offset)
  }

  private func read(_ partition: Partition, from offset: UInt64) {
    makeRoom(for: partition)
    do throws(BrokerError) {
      let lane = try newLane(for: partition)
      cursors[partition.index] = StreamCursor(partition: partition, lane: lane, next: offset)
    } catch {
      // All numbers of lanes are in use; nobody reads the partition until somebody comes or leaves.
      let whose = group.map { "group '\($0.name)'" } ?? "consumer '\(consumer?.tag ?? "")'"
      stream.broker.journal.note(
        problem: "partition \(partition.index) of stream '\(stream.name)' has no reader of"
          + " \(whose): no number is left for it")
    }
    queue.touch()
  }

  /// Another member is to read the partition: nothing more of it is delivered here.
  func leave(_ index: Int) {
    guard var cursor = cursors[index] else { return }
    cursor.isLeaving = true
    takeBack(&cursor)
    cursors[index] = cursor
    tellIfDone(index)
  }

  /// It stays after all.
  func keep(_ index: Int) {
    cursors[index]?.isLeaving = false
    queue.touch()
  }

  func tellIfDone(_ index: Int) {
    guard let cursor = cursors[index], cursor.isLeaving, cursor.lane.unacknowledgedCount == 0 else {
      return
    }
    group?.isDone(self, with: index)
  }

  /// The partition is another member's; what is still out comes there again.
  func giveUp(_ index: Int) {
    guard let cursor = cursors[index] else { return }
    close(&cursors[index], of: cursor.partition)
    cursor.lane.markDeleted()
    if queue.lane === cursor.lane { queue.serve(queue.lanes[0]) }
  }

  private func close(_ cursor: inout StreamCursor?, of partition: Partition) {
    close(&cursor!.page, of: partition)
    close(&cursor!.againPage, of: partition)
    if let place = cursor!.waitingPlace { partition.forget(self, at: place) }
    cursor = nil
  }

  /// Deliveries were acknowledged: the log gets how far the group is.
  func settled(_ ranges: [Lane.SettledRange], of lane: Lane) {
    let index = Int(lane.priority)
    group?.settle(ranges, of: index)
    tellIfDone(index)
  }

  // MARK: Delivering

  /// The queue has delivered what it had, as far as its consumer takes it: it gets more. Returns whether nothing
  /// is left but for the budget.
  func goOn(_ budget: inout DeliveryBudget) -> Bool {
    while !queue.hasReady, !queue.isDeleted {
      guard !budget.isSpent else { return false }
      guard fill(&budget) else { return true }
      guard queue.pump(&budget) else { return false }
    }
    return true
  }

  /// There may be more.
  func wake(by partition: Partition) {
    cursors[partition.index]?.waitingPlace = nil
    queue.touch()
  }

  /// It waits at another place, since one before it has left.
  func waits(for partition: Partition, at place: Int) {
    cursors[partition.index]?.waitingPlace = place
  }

  /// Gives the queue some of the next records of one partition, or passes some over; false if there are none now.
  private func fill(_ budget: inout DeliveryBudget) -> Bool {
    // Its readers end little by little.
    if stream.isDeleted { return false }
    for _ in cursors.indices {
      let index = turn
      turn = (turn + 1) % cursors.count
      guard var cursor = cursors[index], !cursor.isLeaving else { continue }
      let isFilled = fill(from: &cursor, &budget)
      cursors[index] = cursor
      guard isFilled else { continue }
      queue.serve(cursor.lane)
      return true
    }
    return false
  }

  private func fill(from cursor: inout StreamCursor, _ budget: inout DeliveryBudget) -> Bool {
    let partition = cursor.partition
    if cursor.lane.waiting.count > 0 { return true }
    if !cursor.again.isEmpty { return fillAgain(from: &cursor, &budget) }
    if cursor.next < partition.start {
      skip(to: partition.start, &cursor)
      close(&cursor.page, of: partition)
    }
    if cursor.next < partition.recentStart { return fillCold(from: &cursor, &budget) }
    close(&cursor.page, of: partition)
    let end = min(partition.visibleEnd, cursor.next + Self.recordsMax)
    guard cursor.next < end else {
      if cursor.waitingPlace == nil { cursor.waitingPlace = partition.wait(self) }
      return false
    }
    if let selection { return siftRecent(selection, from: &cursor, &budget) }
    for offset in cursor.next..<end {
      add(offset, partition.location(of: offset), to: &cursor)
    }
    cursor.next = end
    return true
  }

  // MARK: What has moved out of the log

  private func fillCold(from cursor: inout StreamCursor, _ budget: inout DeliveryBudget) -> Bool {
    let (partition, journal) = (cursor.partition, stream.broker.journal)
    while cursor.next < partition.recentStart {
      if cursor.page == nil, partition.segment(of: cursor.next) == nil {
        // Behind the last segment a repair has left a gap.
        skip(to: partition.recentStart, &cursor)
        break
      }
      guard open(&cursor.page, at: cursor.next, of: partition), let page = cursor.page else {
        return false
      }
      let (count, end) = journal.extent(ofPage: page.slot)
      var index = page.index ?? journal.place(of: cursor.next, inPage: page.slot, count)
      let last = min(count, index + Int(Self.recordsMax))
      if index < last { skip(to: journal.entry(ofPage: page.slot, index).sequence - 1, &cursor) }
      let isFilled = index < last
      if let selection, index < last {
        let first = index
        index += sift(last - first, selection, to: &cursor, &budget) { number in
          let found = journal.entry(ofPage: page.slot, first + number)
          return (found.sequence - 1, found.location)
        }
      } else {
        while index < last {
          let found = journal.entry(ofPage: page.slot, index)
          add(found.sequence - 1, found.location, to: &cursor)
          cursor.next = found.sequence
          index += 1
        }
      }
      cursor.page?.index = index
      if index == count { turnPage(of: &cursor, behind: end) }
      if isFilled { return true }
    }
    return fill(from: &cursor, &budget)
  }

  /// Records before an offset are not there.
  private func skip(to offset: UInt64, _ cursor: inout StreamCursor) {
    guard offset > cursor.next else { return }
    // What is older than the date at which it begins is not missed.
    if cursor.since == nil { cursor.skipped += offset - cursor.next }
    cursor.next = offset
    group?.skip(to: offset, of: cursor.partition.index)
  }

  /// Goes on with the batches behind those of the page.
  private func turnPage(of cursor: inout StreamCursor, behind end: Int) {
    let partition = cursor.partition
    guard let page = cursor.page else { return }
    close(&cursor.page, of: partition)
    guard let segment = partition.current(page.segment) else { return }
    if end < segment.bytes {
      cursor.page = newPage(.position(end), in: segment, of: partition)
    } else if let next = partition.segment(behind: segment) {
      cursor.page = newPage(.position(0), in: next, of: partition)
    }
    if let slot = cursor.page?.slot { stream.broker.journal.loadAhead(slot) }
  }

  private func newPage(
    _ beginning: PageSource.Beginning, in segment: PartitionSegment, of partition: Partition
  ) -> StreamCursor.Page {
    let key = Partition.PageKey(segment: segment.base, beginning: beginning)
    return StreamCursor.Page(key: key, segment: segment, slot: partition.openPage(key, in: segment))
  }

  /// Whether the page is in memory; else it is on its way, and the queue is touched when it is there. Without a
  /// page one is opened that has the offset.
  private func open(
    _ page: inout StreamCursor.Page?, at offset: UInt64, of partition: Partition
  ) -> Bool {
    let journal = stream.broker.journal
    if let open = page, !journal.isResident(open.slot), partition.current(open.segment) == nil {
      // Its segment was given up, and its file may be gone.
      close(&page, of: partition)
    }
    if page == nil, let segment = partition.segment(of: offset) {
      page = newPage(.offset(offset), in: segment, of: partition)
    }
    guard let slot = page?.slot else { return false }
    return isInMemory(slot)
  }

  /// Whether a block is in memory; else it is on its way, and the queue is touched when it is there.
  private func isInMemory(_ block: UInt32) -> Bool {
    let journal = stream.broker.journal
    if journal.isResident(block) { return true }
    journal.load(block)
    awaited = block
    _ = queue.awaits(block)
    return false
  }

  func close(_ page: inout StreamCursor.Page?, of partition: Partition) {
    if let key = page?.key { partition.closePage(key) }
    page = nil
  }

  // MARK: What is passed over

  /// The same for records that are in the log, if not all of them are wanted.
  private func siftRecent(
    _ selection: StreamSelection, from cursor: inout StreamCursor, _ budget: inout DeliveryBudget
  ) -> Bool {
    let (partition, first) = (cursor.partition, cursor.next)
    let end = min(partition.visibleEnd, first + Self.lookedAtMax)
    let count = sift(Int(end - first), selection, to: &cursor, &budget) { number in
      (first + UInt64(number), partition.location(of: first + UInt64(number)))
    }
    if count > 0 { return true }
    if isInMemory(partition.location(of: first).block) { return true }
    for offset in stride(from: first, to: end, by: Self.recordsPerBlock) {
      stream.broker.journal.loadAhead(partition.location(of: offset).block)
    }
    return false
  }

  /// Gives the queue entries of those of the next records that are wanted, as far as they are in memory and the
  /// budget reaches. `record` says of each where it is. Returns at how many it has looked.
  private func sift(
    _ count: Int, _ selection: StreamSelection, to cursor: inout StreamCursor,
    _ budget: inout DeliveryBudget, _ record: (Int) -> (offset: UInt64, location: RecordLocation)
  ) -> Int {
    let journal = stream.broker.journal
    var number = 0
    /// The first one of those that were passed over last.
    var passed = cursor.next
    while number < count, cursor.lane.waiting.count < Int(Self.recordsMax), !budget.isSpent {
      let (offset, location) = record(number)
      guard let pointer = journal.pointer(location) else { break }
      let message = MessageView(pointer)
      if let since = cursor.since, message.storedAt >= since { cursor.since = nil }
      number += 1
      cursor.next = offset + 1
      guard selection.wants(message, &budget) else { continue }
      pass(passed..<offset, of: cursor)
      passed = offset + 1
      add(offset, location, to: &cursor)
    }
    pass(passed..<cursor.next, of: cursor)
    return number
  }

  /// Records that are not wanted count as acknowledged.
  private func pass(_ offsets: Range<UInt64>, of cursor: StreamCursor) {
    guard let group, !offsets.isEmpty else { return }
    group.pass(offsets, of: cursor.partition.index)
  }

  // MARK: What comes again

  private var againFlags: Entry.Flags {
    let flags: Entry.Flags = [.ofStream, .redelivered, .cameBack]
    return group == nil ? flags : flags.union(.durable)
  }

  private func fillAgain(from cursor: inout StreamCursor, _ budget: inout DeliveryBudget) -> Bool {
    let (partition, journal) = (cursor.partition, stream.broker.journal)
    while let offset = cursor.again.first {
      if offset < partition.start {
        cursor.skipped += 1
      } else if offset >= partition.recentStart {
        add(
          offset, partition.location(of: offset), againFlags, to: cursor.lane)
      } else {
        guard open(&cursor.againPage, at: offset, of: partition), let page = cursor.againPage
        else { return false }
        let (count, _) = journal.extent(ofPage: page.slot)
        let index = journal.place(of: offset, inPage: page.slot, count)
        let found = index < count ? journal.entry(ofPage: page.slot, index) : nil
        guard let found, found.sequence == offset + 1 else {
          // It is in another one.
          close(&cursor.againPage, of: partition)
          continue
        }
        add(offset, found.location, againFlags, to: cursor.lane)
      }
      cursor.again.removeFirst()
      if cursor.again.isEmpty { close(&cursor.againPage, of: partition) }
      if cursor.lane.hasReady { return true }
    }
    return fill(from: &cursor, &budget)
  }

  /// Gives the queue an entry of the next record, unless it is to be passed over.
  private func add(_ offset: UInt64, _ location: RecordLocation, to cursor: inout StreamCursor) {
    if let since = cursor.since {
      // What is not in memory now is taken.
      let record = stream.broker.journal.pointer(location)
      if let record, MessageView(record).storedAt < since { return }
      cursor.since = nil
    }
    var flags: Entry.Flags = .ofStream
    if let group {
      let index = cursor.partition.index
      guard !group.isAcknowledged(offset, of: index) else { return }
      flags.insert(.durable)
      if group.delivers(offset, of: index) { flags.insert(.redelivered) }
    }
    add(offset, location, flags, to: cursor.lane)
  }

  private func add(
    _ offset: UInt64, _ location: RecordLocation, _ flags: Entry.Flags, to lane: Lane
  ) {
    stream.broker.journal.retain(location.block)
    lane.put(Entry(sequence: offset + 1, location: location, flags: flags))
  }

  // MARK: What clients see

  /// The properties of a record as they are delivered; valid until the next call.
  func properties(of view: MessageView, _ entry: Entry, in lane: Lane) -> UnsafeRawBufferPointer {
    let index = Int(lane.priority)
    let skipped = cursors[index]?.skipped ?? 0
    if skipped > 0 { cursors[index]?.skipped = 0 }
    return properties.of(
      view.properties(behind: view.names), offset: entry.sequence - 1,
      partition: stream.partitions.count > 1 ? index : nil,
      skipped: skipped)
  }

  /// Nothing is read any more.
  func endReading() {
    for index in cursors.indices {
      if let cursor = cursors[index] { close(&cursors[index], of: cursor.partition) }
    }
  }

  /// Its consumer is gone.
  func ended() {
    // The stream may be the last that has it, and it the last that has this.
    let queue: Queue = queue
    stream.forget(queue)
    guard !queue.isDeleted else { return }
    // What was acknowledged in this turn counts, though the lanes go.
    for lane in queue.lanes { lane.logProgress() }
    group?.leave(self)
    endReading()
    queue.drop()
    stream.broker.keepUntilDone(queue)
  }
}
