import AMQP
import Base
import Broker
import Journal

/// What is alive in a journal: found as recovery finds it, but without a broker, and past damage.
final class JournalCensus {
  /// A group of consumers in a partition.
  struct GroupPlace: Hashable {
    let lane: UInt32
    let group: Name
  }

  /// A producer of a stream.
  struct ProducerPlace: Hashable {
    let stream: UInt32
    let producer: Name
  }

  /// A message that stands in the log.
  struct Logged {
    let sequence: UInt64
    let position: Int
  }

  final class LaneCensus {
    let id: UInt32
    /// The queue that has it; where that is lost, one that it gets.
    fileprivate(set) var queueID: UInt32?
    /// nil if that is lost.
    fileprivate(set) var queueDeclaration: RawRecord?
    /// Of its messages; 0 where its declaration is lost.
    fileprivate(set) var role = LaneRole.ready
    fileprivate(set) var priority: UInt32 = 0
    let messages = RecoveringLane()
    /// Without a sound checkpoint: what the log does not settle.
    var unsettled = SequenceSet()
    /// Messages of the log that have moved, as the checkpoint says.
    var passedOver: [Logged] = []
    /// Of the message of the log that came last.
    var lastLogged: UInt64 = 0
    /// The next message of the log shows how many are missing.
    var isInDoubt = false
    /// Of a partition: its segments as the checkpoint has them, but for those that were given up since.
    fileprivate(set) var segments: [PartitionSegment] = []
    /// The first offset that is kept.
    fileprivate(set) var start: UInt64 = 0
    /// Messages of which the sequences are missing behind damage; others may be among them.
    var missingMax = 0

    fileprivate func trim(to offset: UInt64) {
      start = max(start, offset)
      segments.removeAll { $0.end <= start }
    }

    init(id: UInt32) {
      self.id = id
      unsettled.append(0...UInt64.max >> 8)
    }
  }

  private(set) var lanes: [UInt32: LaneCensus] = [:]
  /// Declarations of queues.
  private var queues: [UInt32: RawRecord] = [:]
  private var lanesByQueue: [UInt32: [UInt32]] = [:]
  private(set) var exchanges: [UInt32: RawRecord] = [:]
  private var bound: Set<RawRecord> = []
  /// What exchanges and queues remember of messages, in its order.
  private(set) var remembered: [RawRecord] = []
  /// Where groups of consumers stand in partitions.
  private(set) var groupOffsets: [GroupPlace: RawRecord] = [:]
  /// What streams have of their producers: of each the highest, and its place among all that was said of such.
  private(set) var producerSequences: [ProducerPlace: (sequence: UInt64, order: Int)] = [:]
  private var producerOrder = 0
  private(set) var nextQueueID: UInt32 = 1
  private(set) var nextLaneID = LaneRecord.firstID
  private(set) var nextExchangeID: UInt32 = 1
  private(set) var damage: [Range<Int>] = []
  /// Files of which the log says that they are removed.
  private(set) var removedLaneFiles: Set<UInt32> = []
  /// Records with a right checksum that cannot be understood, and why.
  private(set) var malformed: [(position: Int, problem: RecordProblem)] = []
  private(set) var epoch: UInt64 = 0
  let log: LogSurvey

  /// Ids above are not believed where no checksum vouches for them: they would use up all.
  private static let unprovenIDMax: UInt32 = 1 << 24
  private let survey: JournalSurvey
  private let isCheckpointSound: Bool
  private var deleted: Set<UInt32> = []
  private var deletedLanes: Set<UInt32> = []
  private var deletedExchanges: Set<UInt32> = []
  /// Ids of lanes from this one on were given behind the checkpoint.
  private var firstNewLane: UInt32 = 0

  init(_ survey: JournalSurvey, progress: ((Int) -> Void)? = nil) throws(JournalError) {
    self.survey = survey
    isCheckpointSound = survey.isCheckpointProven
    log = LogSurvey(survey, isPlausible: RecordForm.isPlausible)
    log.progress = progress
    survey.forEachCheckpointRecord { record in
      guard record.kind >= Record.brokerKinds,
        isCheckpointSound || record.word < Self.unprovenIDMax
      else { return }
      take(record, isBeforeCheckpoint: false, isInCheckpoint: true)
    }
    firstNewLane = nextLaneID
    let position = isCheckpointSound ? survey.checkpoint?.catalogPosition ?? 0 : 0
    try log.read { event in
      switch event {
      case .record(let record, let epoch):
        self.epoch = max(self.epoch, epoch)
        take(record, isBeforeCheckpoint: record.position < position)
      case .damage(let range): noteDamage(range)
      }
    }
  }

  /// Blocks tell of lanes that nothing declares.
  func meet(_ block: LaneBlock) {
    if !isCheckpointSound || block.lane >= firstNewLane { _ = known(block.lane) }
  }

  /// A file tells of a partition that nothing declares.
  func meet(_ file: JournalSurvey.PartitionFile) {
    guard !isCheckpointSound || file.partition >= firstNewLane, let lane = known(file.partition),
      lane.queueID == nil
    else { return }
    lane.role = .partition
  }

  /// All was met: a lane whose declaration is lost gets a queue of its own, and a queue whose lane is lost
  /// another lane.
  func complete() {
    for lane in lanes.values.sorted(by: { $0.id < $1.id }) where lane.queueID == nil {
      lane.queueID = nextQueueID
      nextQueueID += 1
    }
    guard mayMissDeclarations else { return }
    let there = Set(lanes.values.map(\.queueID))
    for (id, declaration) in queues.sorted(by: { $0.key < $1.key }) where !there.contains(id) {
      let lane = nextLaneID
      add(lane, of: id, declaration)
      if StreamDeclaration(declaration.queueArguments) != nil { lanes[lane]?.role = .partition }
    }
    completePartitions()
  }

  /// A stream has all its partitions, one for each number.
  private func completePartitions() {
    let streams = Dictionary(grouping: lanes.values.filter { $0.role == .partition }) {
      $0.queueID ?? 0
    }
    for (queue, partitions) in streams.sorted(by: { $0.key < $1.key }) {
      let declaration = partitions.lazy.compactMap(\.queueDeclaration).first
      let declared = declaration.flatMap { StreamDeclaration($0.queueArguments)?.partitionCount }
      let numbers = Set(partitions.map(\.priority))
      let count = max(UInt32(declared ?? 0), (numbers.max() ?? 0) + 1)
      for number in 0..<count where !numbers.contains(number) {
        let lane = nextLaneID
        add(lane, of: queue, declaration)
        lanes[lane]?.role = .partition
        lanes[lane]?.priority = number
      }
    }
  }

  private func add(_ id: UInt32, of queue: UInt32, _ declaration: RawRecord?) {
    let lane = lanes[id] ?? LaneCensus(id: id)
    if lane.queueID != queue { lanesByQueue[queue, default: []].append(id) }
    lane.queueID = queue
    lane.queueDeclaration = declaration
    lanes[id] = lane
    nextLaneID = max(nextLaneID, id &+ 1)
    nextQueueID = max(nextQueueID, queue &+ 1)
  }

  /// Declarations may be lost.
  private var mayMissDeclarations: Bool { !damage.isEmpty || !survey.problems.isEmpty }

  private func noteDamage(_ range: Range<Int>) {
    if let last = damage.last, last.upperBound >= range.lowerBound {
      damage[damage.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
    } else {
      damage.append(range)
    }
    for lane in lanes.values { lane.isInDoubt = true }
  }

  private func take(
    _ record: RecordView, isBeforeCheckpoint: Bool, isInCheckpoint: Bool = false
  ) {
    do throws(RecordProblem) {
      if record.kind < Record.brokerKinds {
        takeOwn(try OwnRecord(record))
      } else {
        let known = try BrokerRecord(record)
        if known.isOfCatalog, isBeforeCheckpoint { return }
        if !isInCheckpoint || known.isInCheckpoint {
          take(known, record, isVouchedFor: !isInCheckpoint || isCheckpointSound)
        }
      }
    } catch {
      // A checkpoint that nothing vouches for holds anything.
      if !isInCheckpoint || isCheckpointSound { malformed.append((record.position, error)) }
    }
  }

  private func takeOwn(_ record: OwnRecord) {
    switch record {
    case .laneFileRemoved(let record):
      removedLaneFiles.insert(UInt32(truncatingIfNeeded: record.number))
    case .pad, .epoch, .batch, .stop, .laneFile, .groupBegin, .groupEnd: break
    }
  }

  // MARK: Messages

  private func takeMessage(_ record: MessageRecord) {
    for place in record.destinations {
      guard let lane = known(place.lane) else { continue }
      let sequence = place.sequence
      let known = max(lane.lastLogged, lane.messages.movedUpTo)
      if lane.isInDoubt, sequence > known {
        lane.isInDoubt = false
        lane.missingMax += Int(sequence - known) - 1
      }
      lane.lastLogged = max(lane.lastLogged, sequence)
      let entry = Entry(
        sequence: sequence, location: RecordLocation(position: record.record.position),
        flags: .durable)
      if !lane.messages.append(entry),
        lane.role == .partition || lane.messages.alive.contains(sequence)
      {
        lane.passedOver.append(Logged(sequence: sequence, position: record.record.position))
      }
    }
  }

  /// The lane if it is there, or if its declaration may be lost.
  private func known(_ id: UInt32) -> LaneCensus? {
    if let lane = lanes[id] { return lane }
    guard !deletedLanes.contains(id), !isCheckpointSound || id >= firstNewLane,
      mayMissDeclarations
    else { return nil }
    let lane = LaneCensus(id: id)
    lanes[id] = lane
    nextLaneID = max(nextLaneID, id &+ 1)
    return lane
  }

  private func takeSettled(_ record: SettleRecord) {
    guard let lane = lanes[record.lane] else { return }
    for range in record.ranges where range.count > 0 {
      lane.messages.settle(first: range.first, count: range.count) { _ in }
      if !isCheckpointSound { lane.unsettled.remove(range.first...range.first + range.count - 1) }
    }
  }

  // MARK: The catalog

  private func take(_ known: BrokerRecord, _ record: RecordView, isVouchedFor: Bool) {
    switch known {
    case .message(let message): takeMessage(message)
    case .settle(let settle): takeSettled(settle)
    case .delivered(let delivered):
      lanes[delivered.lane]?.messages.deliveredUpTo = delivered.sequence
    case .deliveryCounts(let counts):
      if isVouchedFor { lanes[counts.lane]?.messages.addCounts(counts.counts) }
    case .ids(let ids):
      nextQueueID = max(nextQueueID, believed(ids.nextQueue))
      nextLaneID = max(nextLaneID, believed(ids.nextLane))
      nextExchangeID = max(nextExchangeID, believed(ids.nextExchange))
    case .queue(let declared):
      queues[declared.id] = RawRecord(record)
      nextQueueID = max(nextQueueID, declared.id &+ 1)
    case .lane(let declared): takeLane(declared)
    case .laneState(let state):
      // What no checksum vouches for says only what was delivered.
      if isCheckpointSound { lanes[state.lane]?.messages.setState(state) }
    case .laneAlive(let alive):
      if isCheckpointSound { lanes[alive.lane]?.messages.addAlive(alive.ranges) }
    case .queueDeleted(let deletion): takeDeleted(deletion.id)
    case .exchange(let declared):
      exchanges[declared.id] = RawRecord(record)
      nextExchangeID = max(nextExchangeID, declared.id &+ 1)
    case .exchangeDeleted(let deletion):
      exchanges[deletion.id] = nil
      deletedExchanges.insert(deletion.id)
    case .remembered, .kept: remembered.append(RawRecord(record))
    case .binding: bound.insert(RawRecord(record))
    case .bindingRemoved:
      bound.remove(RawRecord(record).ofKind(BrokerRecord.Kind.binding.rawValue))
    case .partitionState(let state):
      if isCheckpointSound, let lane = lanes[state.lane] {
        lane.segments = state.segments.map { PartitionSegment($0) }
        lane.start = state.start
      }
    case .partitionTrimmed(let trimmed): lanes[trimmed.lane]?.trim(to: trimmed.start)
    case .groupOffset(let offset):
      // A wrong one would pass over records.
      guard isVouchedFor else { break }
      groupOffsets[GroupPlace(lane: offset.lane, group: offset.group)] = RawRecord(record)
    case .groupDeleted(let deletion):
      for lane in lanesByQueue[deletion.queue] ?? [] {
        groupOffsets[GroupPlace(lane: lane, group: deletion.group)] = nil
      }
    case .producerSequence(let sequence):
      // A wrong one would have messages confirmed and not stored.
      guard isVouchedFor else { break }
      let place = ProducerPlace(stream: sequence.stream, producer: sequence.producer)
      // A checkpoint may know more than what is logged while it is made.
      let highest = max(producerSequences[place]?.sequence ?? 0, sequence.sequence)
      producerOrder += 1
      producerSequences[place] = (highest, producerOrder)
    case .ignorable: break
    }
  }

  private func believed(_ id: UInt32) -> UInt32 {
    isCheckpointSound || id < Self.unprovenIDMax ? id : 0
  }

  private func takeLane(_ declared: LaneRecord) {
    if let problem = declared.problem {
      malformed.append((declared.record.position, problem))
    } else if let queue = queues[declared.queue] {
      add(declared.id, of: declared.queue, queue)
      describe(declared)
    } else if mayMissDeclarations, believed(declared.queue) > 0 {
      add(declared.id, of: declared.queue, nil)
      describe(declared)
    }
  }

  private func describe(_ declared: LaneRecord) {
    lanes[declared.id]?.role = LaneRole(rawValue: declared.role) ?? .ready
    lanes[declared.id]?.priority = declared.priority
  }

  private func takeDeleted(_ queue: UInt32) {
    queues[queue] = nil
    deleted.insert(queue)
    for lane in lanesByQueue.removeValue(forKey: queue) ?? [] {
      lanes[lane] = nil
      deletedLanes.insert(lane)
    }
  }

  /// Those of which both ends are there.
  var bindings: [RawRecord] {
    bound.filter { binding in
      let (isToExchange, id) = binding.destination
      return !deletedExchanges.contains(binding.word)
        && !(isToExchange ? deletedExchanges : deleted).contains(id)
    }
  }

  // MARK: What is alive

  /// The messages of lane files that are alive, if there are any.
  func aliveInFiles(_ lane: LaneCensus) -> SequenceSet {
    isCheckpointSound ? lane.messages.alive : lane.unsettled
  }

  /// Whether the block has messages that are alive.
  func isAlive(_ block: LaneBlock) -> Bool {
    guard let lane = lanes[block.lane], block.durableCount > 0 else { return false }
    if isCheckpointSound, block.last > lane.messages.movedUpTo { return false }
    return aliveInFiles(lane).overlap(block.first...block.last) != .none
  }

  var isProven: Bool { isCheckpointSound }
}

extension RecordLocation {
  /// A position of the log, in the place of a block and an offset.
  fileprivate init(position: Int) {
    self.init(
      block: UInt32(truncatingIfNeeded: position >> 32),
      offset: UInt32(truncatingIfNeeded: position))
  }

  var position: Int { Int(block) << 32 | Int(offset) }
}

extension RawRecord {
  /// Of a binding: whether it leads to an exchange, and which or which queue.
  var destination: (Bool, UInt32) {
    (
      flags & BindingRecord.toExchangeFlag != 0,
      payload.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
    )
  }

  /// Of a queue's declaration; empty if they cannot be read.
  var queueArguments: FieldTable {
    let names = names(2).reduce(0) { $0 + 1 + $1.bytes.count }
    do throws(MalformedInput) {
      let table = Array(payload[names...])
      var reader = ByteReader(table.span.bytes)
      return try reader.fieldTable()
    } catch {
      return [:]
    }
  }

  /// The names in front of the payload.
  func names(_ count: Int, skipping: Int = 0) -> [Name] {
    var offset = skipping
    return (0..<count).map { _ in
      let size = Int(payload[offset])
      defer { offset += 1 + size }
      return Name(Array(payload[offset + 1..<offset + 1 + size]))
    }
  }
}
