import AMQP
import Base
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
  /// Records with a right checksum that cannot be understood.
  private(set) var malformed: [(position: Int, kind: UInt8)] = []
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
      guard record.kind >= Record.brokerKinds, RecordForm.isSound(record),
        isCheckpointSound || record.word < Self.unprovenIDMax
      else { return }
      takeCatalog(record)
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

  private func take(_ record: RecordView, isBeforeCheckpoint: Bool) {
    switch record.kind {
    case Record.laneFileRemoved:
      let number = record.payload.loadUnaligned(as: UInt64.self)
      removedLaneFiles.insert(UInt32(truncatingIfNeeded: number))
    case Record.brokerKinds...:
      guard RecordForm.isSound(record) else {
        return malformed.append((record.position, record.kind))
      }
      switch record.kind {
      case MessageView.kind: takeMessage(record)
      case CatalogRecord.settle: takeSettled(record)
      case CatalogRecord.delivered:
        queues[record.word]?.messages.deliveredUpTo =
          record.payload.loadUnaligned(as: UInt64.self)
      default: if !isBeforeCheckpoint { takeCatalog(record) }
      }
    default: break
    }
  }

  // MARK: Messages

  private func takeMessage(_ record: RecordView) {
    let count = MessageView(record.base).destinationCount
    var offset = record.size - count * MessageView.destinationSize
    for _ in 0..<count {
      let id = record.base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
      let sequence = record.base.loadUnaligned(fromByteOffset: offset + 4, as: UInt64.self)
      offset += MessageView.destinationSize
      guard let queue = known(id) else { continue }
      let known = max(queue.lastLogged, queue.messages.movedUpTo)
      if queue.isInDoubt, sequence > known {
        queue.isInDoubt = false
        queue.missingMax += Int(sequence - known) - 1
      }
      queue.lastLogged = max(queue.lastLogged, sequence)
      let entry = Entry(
        sequence: sequence, location: RecordLocation(position: record.position), flags: .durable)
      if !queue.messages.append(entry), queue.messages.alive.contains(sequence) {
        queue.passedOver.append(Logged(sequence: sequence, position: record.position))
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

  private func takeSettled(_ record: RecordView) {
    guard let queue = queues[record.word] else { return }
    for index in 0..<Int(record.count) {
      let first = record.payload.loadUnaligned(fromByteOffset: 16 * index, as: UInt64.self)
      let count = record.payload.loadUnaligned(fromByteOffset: 16 * index + 8, as: UInt64.self)
      guard count > 0 else { continue }
      queue.messages.settle(first: first, count: count) { _ in }
      if !isCheckpointSound { queue.unsettled.remove(first...first + count - 1) }
    }
  }

  // MARK: The catalog

  private func takeCatalog(_ record: RecordView) {
    let raw = RawRecord(record)
    switch record.kind {
    case CatalogRecord.ids:
      nextQueueID = max(nextQueueID, record.word)
      nextExchangeID = max(nextExchangeID, record.payload.loadUnaligned(as: UInt32.self))
    case CatalogRecord.queue:
      let queue = queues[record.word] ?? QueueCensus(id: record.word)
      queue.declaration = raw
      queues[record.word] = queue
      nextQueueID = max(nextQueueID, record.word &+ 1)
    case CatalogRecord.queueState:
      // What no checksum vouches for says only what was delivered.
      if isCheckpointSound { queues[record.word]?.messages.setState(record.payload) }
    case CatalogRecord.queueAlive:
      if isCheckpointSound { queues[record.word]?.messages.addAlive(record.payload) }
    case CatalogRecord.queueDeleted:
      queues[record.word] = nil
      deleted.insert(record.word)
    case CatalogRecord.exchange:
      exchanges[record.word] = raw
      nextExchangeID = max(nextExchangeID, record.word &+ 1)
    case CatalogRecord.exchangeDeleted:
      exchanges[record.word] = nil
      deletedExchanges.insert(record.word)
    case CatalogRecord.binding:
      bound.insert(raw)
    case CatalogRecord.bindingRemoved:
      bound.remove(raw.ofKind(CatalogRecord.binding))
    default: break
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

/// A record as bytes, with its header and without checksum.
struct RawRecord: Hashable {
  let kind: UInt8
  let flags: UInt8
  let word: UInt32
  let payload: [UInt8]

  init(_ record: RecordView) {
    self.init(
      kind: record.kind, flags: record.flags, word: record.word, payload: Array(record.payload))
  }

  init(kind: UInt8, flags: UInt8 = 0, word: UInt32, payload: [UInt8]) {
    self.kind = kind
    self.flags = flags
    self.word = word
    self.payload = payload
  }

  func ofKind(_ kind: UInt8) -> RawRecord {
    RawRecord(kind: kind, flags: flags, word: word, payload: payload)
  }

  /// Of a binding: whether it leads to an exchange, and which or which queue.
  var destination: (Bool, UInt32) {
    (
      flags & CatalogRecord.isToExchange != 0,
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
