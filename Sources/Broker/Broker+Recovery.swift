import AMQP
import Base
import Journal

/// What recovery knows of queues, lanes and exchanges by their ids, until the log was read to its end.
struct Recovering {
  fileprivate struct Declaration {
    let vhost: VirtualHost
    let name: Name
    let isAutoDelete: Bool
    let arguments: FieldTable
  }

  /// Queues whose lane has not come yet; a crash may have cut it.
  fileprivate var declared: [UInt32: Declaration] = [:]
  fileprivate var destinations: [UInt32: Destination] = [:]
  fileprivate var lanes: [UInt32: (lane: any RecoveredLane, found: RecoveringLane)] = [:]
  fileprivate var exchanges: [UInt32: (Exchange, VirtualHost)] = [:]
}

extension Broker: JournalReplay {
  var isRecovering: Bool { recovering != nil }

  /// The log is about to be read.
  public func beginRecovery() {
    var recovering = Recovering()
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
    for (lane, found) in recovering.lanes.values {
      let remains = try found.remains(journal)
      count += remains.count
      if journal.isAfterFailure { takeForDelivered(lane.id, found) }
      lane.restore(remains, found)
    }
    for vhost in vhosts.values { try vhost.delays?.recovered() }
    for found in recovering.destinations.values { found.recovered() }
    try requireSegments()
    removeUnknownSegments()
    if journal.isAfterFailure { journal.failureWasTold() }
    self.recovering = nil
    return count
  }

  public func replay(_ block: LaneBlock) {
    recovering?.lanes[block.lane]?.found.append(block)
  }

  public func replayCheckpoint(_ record: RecordView) throws(JournalError) {
    try replayCatalog(try understood(record))
  }

  public func replay(
    _ record: RecordView, at location: RecordLocation, isBeforeCheckpoint: Bool
  ) throws(JournalError) {
    let known = try understood(record)
    switch known {
    case .message(let message): replayMessage(message, location)
    case .settle(let settle): replaySettled(settle)
    case .delivered(let delivered):
      if Sabotage.is(.forgetsDeliveredAtReplay) { return }
      recovering?.lanes[delivered.lane]?.found.deliveredUpTo = delivered.sequence
    case .deliveryCounts(let counts): replayCounts(counts)
    case .groupOffset(let offset): replayGroupOffset(offset)
    case .groupDeleted(let deletion): replayGroupDeleted(deletion)
    case .partitionTrimmed(let trimmed):
      (recovering?.lanes[trimmed.lane]?.lane as? Partition)?.trimmed(to: trimmed.start)
    case .queue, .queueDeleted, .exchange, .exchangeDeleted, .binding, .bindingRemoved, .lane,
      .remembered, .kept, .producerSequence, .laneState, .partitionState, .ids, .laneAlive,
      .ignorable:
      if !isBeforeCheckpoint { try replayCatalog(known) }
    }
  }

  /// Its checksum held, so that what is not understood is a newer version's doing, or our own mistake:
  /// passing over it would lose it for good with the next checkpoint.
  private func understood(_ record: RecordView) throws(JournalError) -> BrokerRecord {
    do throws(RecordProblem) {
      return try BrokerRecord(record)
    } catch {
      throw error.error(at: record.position)
    }
  }

  private func replayMessage(_ record: MessageRecord, _ location: RecordLocation) {
    let view = MessageView(record.record.base)
    var flags: Entry.Flags = .durable
    var own = Returned.never
    if view.hasExpiration {
      flags.insert(.expires)
      own = Int64(clamping: view.expiry)
    }
    if view.namesDeadLetterTarget { flags.insert(.namesTarget) }
    for place in record.destinations {
      guard let found = recovering?.lanes[place.lane]?.found else { continue }
      if found.keepsAll {
        let entry = Entry(sequence: place.sequence, location: location, flags: .durable)
        // No date of its own is when a record was stored.
        if found.append(entry, expiringAt: view.storedAt) { journal.retain(location.block) }
        continue
      }
      if Sabotage.is(.losesDestinationAtReplay), place.sequence % 16 == 5 { continue }
      let entry = Entry(sequence: place.sequence, location: location, flags: flags)
      let date = found.messageTTL.map { min(own, view.storedAt + $0) } ?? own
      if found.append(entry, expiringAt: date) {
        journal.retain(location.block)
        found.note(size: record.bodySize, of: place.sequence)
      }
    }
  }

  private func replaySettled(_ record: SettleRecord) {
    guard let found = recovering?.lanes[record.lane]?.found else { return }
    for range in record.ranges {
      if Sabotage.is(.skipsSettlementAtReplay), range.first % 8 == 0 { continue }
      found.settle(first: range.first, count: range.count) {
        journal.release($0.location.block)
      }
    }
  }

  /// The log could not be told of deliveries, and is told now.
  private func takeForDelivered(_ lane: UInt32, _ found: RecoveringLane) {
    found.deliveredUpTo = max(found.deliveredUpTo, found.nextSequence - 1)
    guard found.deliveredUpTo > 0, !Sabotage.is(.forgetsLogFailure) else { return }
    DeliveredRecord.append(to: journal, lane: lane, sequence: found.deliveredUpTo)
  }

  private func replayCounts(_ record: DeliveryCountsRecord) {
    recovering?.lanes[record.lane]?.found.addCounts(record.counts)
  }

  private func replayCatalog(_ record: BrokerRecord) throws(JournalError) {
    switch record {
    case .ids(let ids):
      useIDs(queue: ids.nextQueue, lane: ids.nextLane, exchange: ids.nextExchange)
    case .queue(let queue): try replayQueue(queue)
    case .lane(let lane): try replayLane(lane)
    case .laneState(let state): recovering?.lanes[state.lane]?.found.setState(state)
    case .groupOffset(let offset): replayGroupOffset(offset)
    case .partitionState(let state):
      (recovering?.lanes[state.lane]?.lane as? Partition)?.restore(state)
    case .laneAlive(let alive): recovering?.lanes[alive.lane]?.found.addAlive(alive.ranges)
    case .deliveryCounts(let counts): replayCounts(counts)
    case .queueDeleted(let deletion): replayQueueDeleted(deletion.id)
    case .exchange(let exchange): try replayExchange(exchange)
    case .exchangeDeleted(let deletion): replayExchangeDeleted(deletion.id)
    case .binding(let binding): try replayBinding(binding, isRemoved: false)
    case .bindingRemoved(let binding): try replayBinding(binding, isRemoved: true)
    case .remembered(let remembered): replayRemembered(remembered)
    case .kept(let kept): replayKept(kept)
    case .producerSequence(let sequence):
      (recovering?.destinations[sequence.stream] as? Stream)?.restore(sequence)
    // Checkpoints have none of these.
    case .message, .settle, .delivered, .partitionTrimmed, .groupDeleted, .ignorable: break
    }
  }

  private func known(_ vhost: Name, _ record: RecordView) throws(JournalError) -> VirtualHost {
    if let found = vhosts[vhost] { return found }
    throw .unknown("the virtual host '\(vhost)'", position: record.position)
  }

  private func replayQueue(_ record: QueueRecord) throws(JournalError) {
    let vhost = try known(record.vhost, record.record)
    recovering?.declared[record.id] = Recovering.Declaration(
      vhost: vhost, name: record.name, isAutoDelete: record.isAutoDelete,
      arguments: record.arguments)
    useIDs(queue: record.id + 1)
  }

  /// With its first lane a queue is there; it may get more.
  private func replayLane(_ record: LaneRecord) throws(JournalError) {
    if let problem = record.problem { throw problem.error(at: record.record.position) }
    useIDs(lane: record.id + 1)
    if LaneRole(rawValue: record.role) == .partition { return try replayPartition(record) }
    if let found = recovering?.destinations[record.queue] {
      guard let queue = found as? Queue else { throw Self.wrongRole(record) }
      return try replayLane(record, of: queue)
    }
    guard let declared = recovering?.declared.removeValue(forKey: record.queue) else {
      throw .inconsistent(
        "log position \(record.record.position) declares lane \(record.id) of queue"
          + " \(record.queue), which was not declared before it")
    }
    let role = LaneRole(rawValue: record.role) ?? .ready
    let queue = Queue(
      id: record.queue, lane: record.id, role: role, priority: record.priority,
      name: declared.name, vhost: declared.vhost, isDurable: true,
      isAutoDelete: declared.isAutoDelete, owner: nil, arguments: declared.arguments)
    switch role {
    case .ready:
      guard record.priority <= queue.settings?.priorityMax ?? 0 else {
        throw Self.wrongPriority(record)
      }
    case .partition, .reader: throw Self.wrongRole(record)
    case .delayed:
      guard declared.name == role.queueName, declared.vhost.delays == nil else {
        throw Self.wrongRole(record)
      }
      declared.vhost.adopt(Delays(queue))
    }
    declared.vhost.insert(queue)
    catalog.add(queue)
    recovering?.destinations[queue.id] = queue
    recovering?.lanes[record.id] = (queue.lane, Self.recoveringLane(of: queue))
  }

  private func replayLane(_ record: LaneRecord, of queue: Queue) throws(JournalError) {
    guard record.role == queue.lane.role.rawValue else { throw Self.wrongRole(record) }
    let isKnown =
      switch queue.lane.role {
      case .ready: queue.canTake(laneOfPriority: record.priority)
      case .delayed: true
      case .partition, .reader: false
      }
    guard isKnown else { throw Self.wrongPriority(record) }
    let lane = Lane(
      id: record.id, role: queue.lane.role, priority: record.priority, isDurable: true,
      broker: self)
    queue.add(lane)
    recovering?.lanes[record.id] = (lane, Self.recoveringLane(of: queue))
  }

  /// With its first partition a stream is there; it may get more.
  private func replayPartition(_ record: LaneRecord) throws(JournalError) {
    let stream: Stream
    if let found = recovering?.destinations[record.queue] {
      guard let found = found as? Stream else { throw Self.wrongRole(record) }
      stream = found
    } else {
      guard let declared = recovering?.declared.removeValue(forKey: record.queue) else {
        throw .inconsistent(
          "log position \(record.record.position) declares partition \(record.id) of stream"
            + " \(record.queue), which was not declared before it")
      }
      stream = Stream(
        id: record.queue, name: declared.name, vhost: declared.vhost,
        arguments: declared.arguments)
      declared.vhost.insert(stream)
      catalog.add(stream)
      recovering?.destinations[stream.id] = stream
    }
    guard Int(record.priority) == stream.partitions.count else { throw Self.wrongPriority(record) }
    let partition = stream.addPartition(id: record.id)
    recovering?.lanes[record.id] = (
      partition, RecoveringLane(countsBytes: false, messageTTL: nil, keepsAll: true)
    )
  }

  private func replayGroupOffset(_ record: GroupOffsetRecord) {
    guard let partition = recovering?.lanes[record.lane]?.lane as? Partition else { return }
    partition.stream.restore(record, of: partition)
  }

  private func replayGroupDeleted(_ record: GroupDeletedRecord) {
    if Sabotage.is(.revivesStreamGroup) { return }
    (recovering?.destinations[record.queue] as? Stream)?.forget(record)
  }

  private static func recoveringLane(of queue: Queue) -> RecoveringLane {
    RecoveringLane(
      countsBytes: queue.settings?.countsBytes == true && !Sabotage.is(.forgetsLengthAtRecovery),
      messageTTL: queue.settings?.messageTTL)
  }

  private static func wrongPriority(_ record: LaneRecord) -> JournalError {
    .inconsistent(
      "log position \(record.record.position) declares lane \(record.id) of priority"
        + " \(record.priority) of queue \(record.queue), which has one or has no such priority")
  }

  private static func wrongRole(_ record: LaneRecord) -> JournalError {
    .inconsistent(
      "log position \(record.record.position) declares lane \(record.id) of role \(record.role)"
        + " of queue \(record.queue), which has none of it")
  }

  private func replayQueueDeleted(_ id: UInt32) {
    recovering?.declared[id] = nil
    guard let leaving = recovering?.destinations.removeValue(forKey: id) else { return }
    for lane in leaving.laneIDs {
      recovering?.lanes.removeValue(forKey: lane)?.found.takeRemaining { entry, _ in
        journal.release(entry.location.block)
      }
    }
    catalog.remove(leaving)
    leaving.vhost.remove(leaving, .deleted)
  }

  private func replayExchange(_ record: ExchangeRecord) throws(JournalError) {
    let vhost = try known(record.vhost, record.record)
    let form: ExchangeForm
    do throws(BrokerError) {
      form = try ExchangeForm(
        type: record.type, arguments: record.arguments, name: record.name, vhost: record.vhost)
    } catch {
      throw .unknown(
        "an exchange '\(record.name)' of type '\(record.type)'", position: record.record.position)
    }
    let exchange = Exchange(
      id: record.id, name: record.name, type: record.type, form: form, isDurable: true,
      isAutoDelete: record.isAutoDelete, isInternal: record.isInternal,
      arguments: record.arguments, seed: random())
    vhost.insert(exchange)
    catalog.add(exchange, in: vhost)
    recovering?.exchanges[record.id] = (exchange, vhost)
    useIDs(exchange: record.id + 1)
  }

  private func replayExchangeDeleted(_ id: UInt32) {
    guard let (exchange, vhost) = recovering?.exchanges.removeValue(forKey: id) else { return }
    catalog.remove(exchange)
    vhost.remove(exchange)
  }

  private func replayRemembered(_ record: RememberedRecord) {
    if Sabotage.is(.forgetsRememberedAtReplay) { return }
    let until = Int64(clamping: record.until)
    guard until == 0 || until > now else { return }
    let seen =
      record.isOfQueue
      ? recovering?.destinations[record.id]?.seen : recovering?.exchanges[record.id]?.0.seen
    seen?.remember(record.value.bytes, until: until, now: now)
  }

  private func replayKept(_ record: KeptRecord) {
    if Sabotage.is(.forgetsRememberedAtReplay) { return }
    let names = [record.publishedTo, record.routingKey].flatMap {
      [UInt8($0.bytes.count)] + $0.bytes
    }
    recovering?.exchanges[record.exchange]?.0.recent?.keep(
      KeptMessage(
        number: record.number, names: names, properties: Array(record.properties),
        body: Array(record.body)))
  }

  private func replayBinding(
    _ record: BindingRecord, isRemoved: Bool
  ) throws(JournalError) {
    guard let (source, vhost) = recovering?.exchanges[record.source] else { return }
    if Sabotage.is(.forgetsHeadersBinding), source.kind == .headers { return }
    let destination: BindingEnd
    if record.isToExchange {
      if Sabotage.is(.forgetsExchangeBinding) { return }
      guard let (exchange, _) = recovering?.exchanges[record.destination] else { return }
      destination = .exchange(exchange)
    } else {
      guard let found = recovering?.destinations[record.destination] else { return }
      destination = .destination(found)
    }
    let (key, arguments) = (record.key, record.arguments)
    if isRemoved {
      let wanted = Binding(
        unchecked: source, destination: destination, key: key, arguments: arguments)
      if let binding = source.binding(like: wanted) { vhost.remove(binding) }
      return
    }
    do throws(BrokerError) {
      _ = vhost.insert(
        try Binding(source: source, destination: destination, key: key, arguments: arguments))
    } catch {
      // It was one to whoever wrote it, and would be lost for good with the next checkpoint.
      throw .unknown(
        "a binding from '\(source.name)' to '\(destination.name)' whose arguments mean nothing here",
        position: record.record.position)
    }
  }
}
