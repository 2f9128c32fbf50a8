import AMQP
import Base
import Journal

/// A stream: partitions that keep what is routed to it, and those who read them. Reading takes nothing away.
public final class Stream: Destination {
  let settings: StreamSettings
  private(set) var partitions: [Partition] = []
  /// The queues by which consumers read, each with its feed.
  private var readers = SpreadDictionary<ObjectKey, Queue>()
  private(set) var groups = SpreadDictionary<Name, StreamGroup>()
  /// The same in the order in which they came, by which checkpoints go over them.
  private var groupList: [StreamGroup] = []
  private var producers = StreamProducers()
  /// Where records without a key go in this turn.
  private var keyless = 0
  private var keylessTurn: Int64 = -1
  private lazy var retention = StreamRetention(self)

  init(id: UInt32, name: Name, vhost: VirtualHost, arguments: FieldTable) {
    settings = StreamSettings(arguments)
    super.init(
      id: id, name: name, vhost: vhost, isDurable: true, isAutoDelete: false, owner: nil,
      arguments: arguments, isPlain: false, keepsAll: true)
  }

  /// One more partition, with an id among those of lanes.
  @discardableResult
  func addPartition(id: UInt32) -> Partition {
    let partition = Partition(id: id, index: partitions.count, stream: self)
    partitions.append(partition)
    broker.add(partition)
    if partitions.count > settings.partitionCount { vhost.grew(by: Self.partitionBytes) }
    return partition
  }

  /// Those who read it.
  var readerQueues: [Queue] { Array(readers.values) }

  // MARK: Storing

  override func take(
    _ message: Broker.StoredMessage, _ arrival: Arrival, at place: UnsafeMutableRawPointer?
  ) {
    guard let place else { invariantFailed("a message for a stream is not in the log") }
    let partition = partition(for: MessageView(message.record))
    watchAge()
    MessagePlace(lane: partition.id, sequence: partition.end + 1).write(at: place)
    partition.append(message.location)
  }

  override func hasStored(_ mark: ProducerMark) -> Bool { producers.has(mark) }

  override func stored(_ mark: ProducerMark) {
    note(
      mark.producer, mark.sequence, isOverBudget: broker.account.isOverBudget(.remembered))
    ProducerSequenceRecord.raw(stream: id, sequence: mark.sequence, producer: mark.producer)
      .append(to: broker.journal)
  }

  private func note(_ producer: Name, _ sequence: UInt64, isOverBudget: Bool) {
    let before = producers.memoryBytes
    producers.note(producer, sequence, isOverBudget: isOverBudget)
    broker.account.add(producers.memoryBytes - before, to: .remembered)
  }

  /// What the log says of a producer: a restart forgets none that there was room for.
  func restore(_ record: ProducerSequenceRecord) {
    note(record.producer, record.sequence, isOverBudget: false)
  }

  private func partition(for message: MessageView) -> Partition {
    guard partitions.count > 1 else { return partitions[0] }
    let names = message.names
    let properties = message.properties(behind: names)
    let count = partitions.count
    let found = settings.key.withBytes(names: names.bytes, properties: properties.bytes) {
      Murmur2.partition(of: $0, count: count)
    }
    return partitions[found ?? keylessPartition()]
  }

  /// The same for a whole turn, so that batches are not torn.
  private func keylessPartition() -> Int {
    if keylessTurn != broker.turn {
      keylessTurn = broker.turn
      keyless = (keyless + 1) % partitions.count
    }
    return keyless
  }

  /// Records are there, which become too old.
  func watchAge() {
    if settings.ageMax != nil { retention.begin() }
  }

  // MARK: Use

  override func source(
    forConsumer arguments: FieldTable, isExclusive: Bool, isAutomatic: Bool, prefetch: Int
  ) throws(BrokerError) -> Queue {
    guard !isExclusive else { throw .inExclusiveUse(queue: name, in: vhost.name) }
    guard isAutomatic || prefetch > 0 else { throw .needsPrefetch(stream: name, in: vhost.name) }
    let reading = try StreamReading(arguments, of: self)
    let group = try reading.group.map { (name) throws(BrokerError) in
      try neededGroup(name, beginning: reading.beginning)
    }
    let ids = try broker.takeQueueIDs(isDurable: false)
    let feed = StreamFeed(self, group, reading.selection)
    let queue = Queue(
      id: ids.queue, lane: ids.lane, role: .reader, name: name, vhost: vhost, isDurable: false,
      isAutoDelete: true, owner: nil, arguments: FieldTable(), feed: feed)
    readers[ObjectKey(queue)] = queue
    do throws(BrokerError) {
      try feed.begin(reading, in: queue)
    } catch {
      feed.ended()
      throw error
    }
    return queue
  }

  // MARK: Groups

  private func neededGroup(
    _ name: Name, beginning: StreamReading.Beginning
  ) throws(BrokerError) -> StreamGroup {
    if let group = groups[name] { return group }
    guard groups.count < BrokerLimits.streamGroupsMax else {
      throw .limitReached(
        .streamGroups(stream: self.name, in: vhost.name, max: BrokerLimits.streamGroupsMax))
    }
    if let reason = broker.journal.failure { throw .journalFailed(reason: reason) }
    try broker.requireRoom(for: "a consumer group")
    let group = newGroup(name)
    group.begin(at: beginning)
    return group
  }

  private func newGroup(_ name: Name) -> StreamGroup {
    let group = StreamGroup(name, of: self)
    groups[name] = group
    groupList.append(group)
    return group
  }

  /// A group goes with its offsets; it has no members.
  func delete(_ group: StreamGroup) {
    GroupDeletedRecord.raw(queue: id, group: group.name).append(to: broker.journal)
    forget(group)
  }

  private func forget(_ group: StreamGroup) {
    invariant(group.members.isEmpty, "a group goes while it has members")
    groups[group.name] = nil
    groupList.removeAll { $0 === group }
    group.end()
  }

  /// What the log says of a group.
  func restore(_ record: GroupOffsetRecord, of partition: Partition) {
    let group = groups[record.group] ?? newGroup(record.group)
    group.restore(record.offset, of: partition.index)
  }

  /// The log says that a group is gone.
  func forget(_ record: GroupDeletedRecord) {
    if let group = groups[record.group] { forget(group) }
  }

  override func recovered() {
    for group in groups.values { group.recovered() }
  }

  /// Before records move out of the log.
  func rewindReaders(before cutoff: SpillCutoff) {
    for queue in readers.values { queue.feed?.rewind(before: cutoff) }
  }

  /// Before records are given up.
  func rewindReaders(before offset: UInt64, of partition: Partition) {
    for queue in readers.values { queue.feed?.rewind(before: offset, of: partition) }
  }

  /// A reader has ended.
  func forget(_ queue: Queue) { readers[ObjectKey(queue)] = nil }

  override func source() throws(BrokerError) -> Queue {
    throw .unsupported("basic.get", queue: name, in: vhost.name)
  }

  override func purge(for peer: Peer) throws(BrokerError) -> Int {
    throw .unsupported("queue.purge", queue: name, in: vhost.name)
  }

  override func tightenHorizon() {
    for group in groups.values { group.tellLog() }
  }

  // MARK: Listing

  override var presentArguments: FieldTable {
    var present = arguments
    present.entries.removeAll { $0.name == "x-stream-partitions" }
    present.entries.append(
      .init(name: "x-stream-partitions", value: .int32(Int32(partitions.count))))
    return present
  }

  public override var readyCount: Int { partitions.reduce(0) { $0 + $1.count } }
  public override var consumerCount: Int { readers.count }
  override var memoryBytes: Int {
    let count = max(settings.partitionCount, partitions.count)
    return MemoryAccount.bytes(600 + Self.partitionBytes * count, name, arguments)
  }

  private static let partitionBytes = 240

  // MARK: The log

  /// How many groups of consumers it has, which survive.
  var groupCount: Int { groupList.count }

  /// All producers are a piece, and so is each group.
  override var pieceCount: Int { 1 + groupList.count }

  override func records(ofPiece index: Int, below newLanes: UInt32) -> [RawRecord] {
    index == 0 ? producers.records(of: id) : groupList[index - 1].records(below: newLanes)
  }

  override var laneIDs: [UInt32] { partitions.map(\.id) }

  override func laneRecords(below newLanes: UInt32, withStates: Bool) -> [RawRecord] {
    partitions.lazy.filter { $0.id < newLanes }.flatMap { partition in
      let declared = self.declaration(of: partition)
      return withStates ? [declared] + partition.stateRecords : [declared]
    }
  }

  /// What the log has of a partition that is new.
  func declaration(of partition: Partition) -> RawRecord {
    LaneRecord.raw(
      id: partition.id, queue: id, role: LaneRole.partition.rawValue,
      priority: UInt32(partition.index))
  }

  // MARK: The end

  override func drop() {
    isDeleted = true
    for group in groups.values { group.end() }
    groups = SpreadDictionary()
    groupList = []
    broker.account.add(-producers.memoryBytes, to: .remembered)
    producers = StreamProducers()
    retention.end()
    for partition in partitions { broker.remove(partition) }
    broker.removeSegments(of: partitions.map(\.id))
    let ending = Array(readers.values)
    readers = SpreadDictionary()
    broker.chores.begin(StreamEnd(ending, partitions), for: nil)
  }

  override var isDone: Bool { true }
}

/// Looks now and then whether records of a stream are too old.
private final class StreamRetention: Timed {
  var timetablePlace = TimetablePlace()
  // Unsafe but sound: the stream has this, and takes it out of the timetable when it is deleted.
  private unowned(unsafe) let stream: Stream

  private static let milliseconds: Int64 = 60_000

  init(_ stream: Stream) { self.stream = stream }

  func begin() {
    guard stream.settings.ageMax != nil else { return }
    stream.broker.deadlines.armEarlier(self, at: stream.broker.time + Self.milliseconds)
  }

  func end() { stream.broker.deadlines.cancel(self) }

  func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
    steps -= stream.partitions.count
    for partition in stream.partitions { partition.trim() }
    // Nothing can become too old where nothing is.
    return stream.readyCount > 0 ? time + Self.milliseconds : nil
  }
}

/// The readers of a deleted stream end, who get nothing more already, and what the log has of its records is
/// given up.
private final class StreamEnd: Chore {
  private var readers: [Queue]
  private var partitions: [Partition]

  private static let stepsPerReader = 12

  init(_ readers: [Queue], _ partitions: [Partition]) {
    self.readers = readers
    self.partitions = partitions
  }

  func advance(_ steps: inout Int) -> Bool {
    while let queue = readers.popLast() {
      // Its consumer may have gone by itself.
      guard !queue.isDeleted else { continue }
      queue.feed?.endReading()
      queue.drop()
      queue.broker.keepUntilDone(queue)
      steps -= Self.stepsPerReader
      guard steps > 0 else { return false }
    }
    while let partition = partitions.last {
      guard partition.drop(&steps) else { return false }
      partitions.removeLast()
    }
    return true
  }
}
