import AMQP
import Base
import Journal

/// What recovery knows of queues and exchanges by their ids, until the log was read to its end.
struct RecoveringQueues {
  fileprivate var messages: [UInt32: RecoveringQueue] = [:]
  fileprivate var queues: [UInt32: Queue] = [:]
  fileprivate var exchanges: [UInt32: (Exchange, VirtualHost)] = [:]
}

extension Broker: JournalReplay {
  var isRecovering: Bool { recovering != nil }

  /// The log is about to be read.
  public func beginRecovery() {
    var recovering = RecoveringQueues()
    for vhost in vhosts.values {
      for exchange in vhost.exchanges.values {
        recovering.exchanges[exchange.id] = (exchange, vhost)
      }
    }
    self.recovering = recovering
  }

  /// The log was read: queues get what is left in them. Returns the number of messages.
  public func endRecovery() throws(JournalError) -> Int {
    guard let recovering else { return 0 }
    var count = 0
    for (id, messages) in recovering.messages {
      guard let queue = recovering.queues[id] else { continue }
      let remains = try messages.remains(journal)
      count += remains.count
      queue.restore(
        opened: remains.opened, gone: remains.gone, remains.runs, remains.entries,
        nextSequence: messages.nextSequence, deliveredUpTo: messages.deliveredUpTo,
        movedUpTo: messages.movedUpTo)
    }
    self.recovering = nil
    return count
  }

  public func replay(_ block: LaneBlock) {
    recovering?.messages[block.lane]?.append(block)
  }

  public func replayCheckpoint(_ record: RecordView) throws(JournalError) {
    try replayCatalog(record)
  }

  public func replay(
    _ record: RecordView, at location: RecordLocation, isBeforeCheckpoint: Bool
  ) throws(JournalError) {
    switch record.kind {
    case MessageView.kind: replayMessage(record, location)
    case CatalogRecord.settle: replaySettled(record)
    case CatalogRecord.delivered:
      if Sabotage.is(.forgetsDeliveredAtReplay) { return }
      let sequence = record.payload.loadUnaligned(as: UInt64.self)
      recovering?.messages[record.word]?.deliveredUpTo = sequence
    default:
      if !isBeforeCheckpoint { try replayCatalog(record) }
    }
  }

  private func replayMessage(_ record: RecordView, _ location: RecordLocation) {
    let count = MessageView(record.base).destinationCount
    var offset = record.size - count * MessageView.destinationSize
    for _ in 0..<count {
      let queue = record.base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
      let sequence = record.base.loadUnaligned(fromByteOffset: offset + 4, as: UInt64.self)
      offset += MessageView.destinationSize
      guard let messages = recovering?.messages[queue] else { continue }
      if Sabotage.is(.losesDestinationAtReplay), sequence % 16 == 5 { continue }
      let entry = Entry(sequence: sequence, location: location, flags: .durable)
      if messages.append(entry) { journal.retain(location.block) }
    }
  }

  private func replaySettled(_ record: RecordView) {
    guard let messages = recovering?.messages[record.word] else { return }
    for index in 0..<Int(record.count) {
      let first = record.payload.loadUnaligned(fromByteOffset: 16 * index, as: UInt64.self)
      let count = record.payload.loadUnaligned(fromByteOffset: 16 * index + 8, as: UInt64.self)
      if Sabotage.is(.skipsSettlementAtReplay), first % 8 == 0 { continue }
      messages.settle(first: first, count: count) { journal.release($0.location.block) }
    }
  }

  /// A record of the catalog; its checksum held, so that its form is our own doing, or a newer
  /// version's: passing over what is not known would lose it for good with the next checkpoint.
  private func replayCatalog(_ record: RecordView) throws(JournalError) {
    if let unknown = RecordForm.unknown(record, vhosts: { vhosts[$0] != nil }) {
      throw .unknown(unknown, position: record.position)
    }
    do throws(MalformedInput) {
      var reader = ByteReader(record.payload.bytes)
      switch record.kind {
      case CatalogRecord.ids:
        useIDs(
          queue: record.word, exchange: record.payload.loadUnaligned(as: UInt32.self))
      case CatalogRecord.queue: try replayQueue(record, &reader)
      case CatalogRecord.queueState:
        recovering?.messages[record.word]?.setState(record.payload)
      case CatalogRecord.queueAlive:
        recovering?.messages[record.word]?.addAlive(record.payload)
      case CatalogRecord.queueDeleted: replayQueueDeleted(record.word)
      case CatalogRecord.exchange: try replayExchange(record, &reader)
      case CatalogRecord.exchangeDeleted:
        if let (exchange, vhost) = recovering?.exchanges.removeValue(forKey: record.word) {
          catalog.remove(exchange)
          vhost.remove(exchange)
        }
      case CatalogRecord.binding, CatalogRecord.bindingRemoved:
        try replayBinding(record, &reader)
      default: break
      }
    } catch {
      invariantFailed("record \(record.kind) at \(record.position): \(error.reason)")
    }
  }

  private func replayQueue(
    _ record: RecordView, _ reader: inout ByteReader
  ) throws(MalformedInput) {
    let vhostName = try reader.name()
    let name = try reader.name()
    let arguments = try reader.fieldTable()
    guard let vhost = vhosts[vhostName] else {
      invariantFailed("queue '\(name)' was not looked at")
    }
    let queue = Queue(
      id: record.word, name: name, vhost: vhost, isDurable: true,
      isAutoDelete: record.flags & CatalogRecord.isAutoDelete != 0, owner: nil,
      arguments: arguments)
    vhost.insert(queue)
    catalog.add(queue)
    recovering?.queues[record.word] = queue
    recovering?.messages[record.word] = RecoveringQueue()
    useIDs(queue: record.word + 1, exchange: 0)
  }

  private func replayQueueDeleted(_ id: UInt32) {
    guard let queue = recovering?.queues.removeValue(forKey: id) else { return }
    for entry in recovering?.messages.removeValue(forKey: id)?.remainingEntries() ?? [] {
      journal.release(entry.location.block)
    }
    catalog.remove(queue)
    queue.vhost.remove(queue)
  }

  private func replayExchange(
    _ record: RecordView, _ reader: inout ByteReader
  ) throws(MalformedInput) {
    let vhostName = try reader.name()
    let name = try reader.name()
    let type = try reader.name()
    let arguments = try reader.fieldTable()
    guard let vhost = vhosts[vhostName], let kind = Exchange.Kind(rawValue: type.description)
    else { invariantFailed("exchange '\(name)' was not looked at") }
    let exchange = Exchange(
      id: record.word, name: name, kind: kind, isDurable: true,
      isAutoDelete: record.flags & CatalogRecord.isExchangeAutoDelete != 0,
      isInternal: record.flags & CatalogRecord.isInternal != 0, arguments: arguments)
    vhost.insert(exchange)
    catalog.add(exchange, in: vhost)
    recovering?.exchanges[record.word] = (exchange, vhost)
    useIDs(queue: 0, exchange: record.word + 1)
  }

  private func replayBinding(
    _ record: RecordView, _ reader: inout ByteReader
  ) throws(MalformedInput) {
    let destinationID = record.payload.loadUnaligned(as: UInt32.self)
    _ = try reader.take(4)
    let key = try reader.name()
    let arguments = try reader.fieldTable()
    guard let (source, vhost) = recovering?.exchanges[record.word] else { return }
    if Sabotage.is(.forgetsHeadersBinding), source.kind == .headers { return }
    let destination: Destination
    if record.flags & CatalogRecord.isToExchange != 0 {
      if Sabotage.is(.forgetsExchangeBinding) { return }
      guard let (exchange, _) = recovering?.exchanges[destinationID] else { return }
      destination = .exchange(exchange)
    } else {
      guard let queue = recovering?.queues[destinationID] else { return }
      destination = .queue(queue)
    }
    if record.kind == CatalogRecord.bindingRemoved {
      let wanted = Binding(
        unchecked: source, destination: destination, key: key, arguments: arguments)
      if let binding = source.binding(like: wanted) { vhost.remove(binding) }
    } else if let binding = try? Binding(
      source: source, destination: destination, key: key, arguments: arguments)
    {
      _ = vhost.insert(binding)
    }
  }
}
