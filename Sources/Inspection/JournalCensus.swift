import AMQP
import Base
import Broker
import Journal

/// What is alive in a journal: found as recovery finds it, but without a broker, and past damage.
final class JournalCensus {
  /// A message that stands in the log.
  struct Logged {
    let sequence: UInt64
    let position: Int
  }

  final class QueueCensus {
    let id: UInt32
    var declaration: RawRecord?
    let messages = RecoveringQueue()
    /// Without a sound checkpoint: what the log does not settle.
    var unsettled = SequenceSet()
    /// Messages of the log that have moved, as the checkpoint says.
    var passedOver: [Logged] = []
    /// Of the message of the log that came last.
    var lastLogged: UInt64 = 0
    /// The next message of the log shows how many are missing.
    var isInDoubt = false
    /// Messages of which the sequences are missing behind damage; others may be among them.
    var missingMax = 0

    init(id: UInt32) {
      self.id = id
      unsettled.append(0...UInt64.max >> 8)
    }
  }

  private(set) var queues: [UInt32: QueueCensus] = [:]
  private(set) var exchanges: [UInt32: RawRecord] = [:]
  private var bound: Set<RawRecord> = []
  private(set) var nextQueueID: UInt32 = 1
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
  private var deletedExchanges: Set<UInt32> = []
  /// Ids from this one on were given behind the checkpoint.
  private var firstNewID: UInt32 = 0

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
    firstNewID = nextQueueID
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

  /// Blocks of queues tell of queues that nothing declares.
  func meet(_ block: LaneBlock) {
    if !isCheckpointSound || block.lane >= firstNewID { _ = known(block.lane) }
  }

  private func noteDamage(_ range: Range<Int>) {
    if let last = damage.last, last.upperBound >= range.lowerBound {
      damage[damage.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
    } else {
      damage.append(range)
    }
    for queue in queues.values {
      queue.isInDoubt = true
    }
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
        if !isInCheckpoint || known.isOfCatalog { take(known, record) }
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
    case .pad, .epoch, .batch, .stop, .laneFile: break
    }
  }

  // MARK: Messages

  private func takeMessage(_ record: MessageRecord) {
    for place in record.destinations {
      guard let queue = known(place.queue) else { continue }
      let sequence = place.sequence
      let known = max(queue.lastLogged, queue.messages.movedUpTo)
      if queue.isInDoubt, sequence > known {
        queue.isInDoubt = false
        queue.missingMax += Int(sequence - known) - 1
      }
      queue.lastLogged = max(queue.lastLogged, sequence)
      let entry = Entry(
        sequence: sequence, location: RecordLocation(position: record.record.position),
        flags: .durable)
      if !queue.messages.append(entry), queue.messages.alive.contains(sequence) {
        queue.passedOver.append(Logged(sequence: sequence, position: record.record.position))
      }
    }
  }

  /// The queue if it is there, or if its declaration may be lost.
  private func known(_ id: UInt32) -> QueueCensus? {
    if let queue = queues[id] { return queue }
    guard !deleted.contains(id), !isCheckpointSound || id >= firstNewID,
      !damage.isEmpty || !survey.problems.isEmpty
    else { return nil }
    let queue = QueueCensus(id: id)
    queues[id] = queue
    nextQueueID = max(nextQueueID, id &+ 1)
    return queue
  }

  private func takeSettled(_ record: SettleRecord) {
    guard let queue = queues[record.queue] else { return }
    for range in record.ranges where range.count > 0 {
      queue.messages.settle(first: range.first, count: range.count) { _ in }
      if !isCheckpointSound { queue.unsettled.remove(range.first...range.first + range.count - 1) }
    }
  }

  // MARK: The catalog

  private func take(_ known: BrokerRecord, _ record: RecordView) {
    switch known {
    case .message(let message): takeMessage(message)
    case .settle(let settle): takeSettled(settle)
    case .delivered(let delivered):
      queues[delivered.queue]?.messages.deliveredUpTo = delivered.sequence
    case .ids(let ids):
      nextQueueID = max(nextQueueID, ids.nextQueue)
      nextExchangeID = max(nextExchangeID, ids.nextExchange)
    case .queue(let declared):
      let queue = queues[declared.id] ?? QueueCensus(id: declared.id)
      queue.declaration = RawRecord(record)
      queues[declared.id] = queue
      nextQueueID = max(nextQueueID, declared.id &+ 1)
    case .queueState(let state):
      // What no checksum vouches for says only what was delivered.
      if isCheckpointSound { queues[state.queue]?.messages.setState(state) }
    case .queueAlive(let alive):
      if isCheckpointSound { queues[alive.queue]?.messages.addAlive(alive.ranges) }
    case .queueDeleted(let deletion):
      queues[deletion.id] = nil
      deleted.insert(deletion.id)
    case .exchange(let declared):
      exchanges[declared.id] = RawRecord(record)
      nextExchangeID = max(nextExchangeID, declared.id &+ 1)
    case .exchangeDeleted(let deletion):
      exchanges[deletion.id] = nil
      deletedExchanges.insert(deletion.id)
    case .binding: bound.insert(RawRecord(record))
    case .bindingRemoved:
      bound.remove(RawRecord(record).ofKind(BrokerRecord.Kind.binding.rawValue))
    case .ignorable: break
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
  func aliveInLanes(_ queue: QueueCensus) -> SequenceSet {
    isCheckpointSound ? queue.messages.alive : queue.unsettled
  }

  /// Whether the block has messages that are alive.
  func isAlive(_ block: LaneBlock) -> Bool {
    guard let queue = queues[block.lane], block.durableCount > 0 else { return false }
    if isCheckpointSound, block.last > queue.messages.movedUpTo { return false }
    return aliveInLanes(queue).overlap(block.first...block.last) != .none
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
