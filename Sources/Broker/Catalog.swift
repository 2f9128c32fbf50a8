import Base
import Journal

/// The settlements of a commit, as the log has them.
enum Settlements {
  private static let rangesMax = 4096

  /// `ranges` in ascending order; neighbours become one.
  static func append(
    _ journal: Journal, lane: UInt32, ranges: inout [Lane.SettledRange]
  ) {
    merge(&ranges)
    var start = 0
    while start < ranges.count {
      let count = min(rangesMax, ranges.count - start)
      var place = SettleRecord.append(to: journal, lane: lane, rangeCount: count)
      for index in start..<start + count {
        SequenceRange(first: ranges[index].first, count: ranges[index].count).write(at: place)
        place += SequenceRange.size
      }
      start += count
    }
  }

  /// In place, since it is done for every commit.
  private static func merge(_ ranges: inout [Lane.SettledRange]) {
    guard ranges.count > 1 else { return }
    var last = 0
    for index in 1..<ranges.count {
      let range = ranges[index]
      if ranges[last].first + ranges[last].count == range.first {
        ranges[last].count += range.count
      } else {
        last += 1
        ranges[last] = range
      }
    }
    ranges.removeLast(ranges.count - 1 - last)
  }
}

/// What lanes keep of records: messages without their destinations.
public struct BrokerRecords: LaneRecords {
  public init() {}

  public func size(of record: RecordView) -> Int {
    record.size - MessageView(record.base).destinationCount * MessagePlace.size
  }

  public func expiry(of record: RecordView) -> UInt64 { MessageView(record.base).expiry }

  public func bodySize(of record: RecordView) -> Int { MessageView(record.base).bodySize }

  public func copy(_ record: RecordView, to place: UnsafeMutableRawPointer) {
    let size = size(of: record)
    place.copyMemory(from: record.base, byteCount: size)
    place.storeBytes(of: UInt32(size), as: UInt32.self)
    place.storeBytes(of: 0, toByteOffset: MessageRecord.destinationCountOffset, as: UInt32.self)
  }
}

/// Writes declarations to the log, and all of them to a checkpoint.
final class Catalog {
  // Unsafe but sound: the broker owns this, and outlives it.
  private unowned(unsafe) let broker: Broker
  private let journal: Journal
  /// Where the log ended behind the last change.
  private var changedAt = 0

  init(broker: Broker, journal: Journal) {
    self.broker = broker
    self.journal = journal
    for vhost in broker.vhosts.values {
      for exchange in vhost.exchanges.values where exchange.isPredeclared {
        add(exchange, in: vhost)
      }
    }
  }

  // MARK: To the log

  /// A queue is there from its lane's record on, so that a crash leaves both or neither; of several lanes it
  /// leaves all or none.
  func append(_ new: Destination) -> Committed {
    let lanes = new.laneRecords(below: .max, withStates: false)
    _ = change(recordCount: lanes.count) {
      Self.record(new).append(to: journal)
      for lane in lanes { lane.append(to: journal) }
    }
    let committed = changed()
    new.declaredAt = journal.endPosition
    add(new)
    return committed
  }

  /// One more lane of a queue that is there.
  func append(_ lane: Lane) {
    Self.record(lane).append(to: journal)
    changedAt = journal.endPosition
  }

  /// More partitions of a stream that is there: a crash finds all of them or none.
  func append(_ partitions: [Partition], of stream: Stream) {
    journal.group {
      for partition in partitions { stream.declaration(of: partition).append(to: journal) }
    }
    changedAt = journal.endPosition
    stream.declaredAt = changedAt
  }

  func append(_ exchange: Exchange, in vhost: VirtualHost) -> Committed {
    let committed = append(Self.record(exchange, in: vhost))
    exchange.declaredAt = journal.endPosition
    add(exchange, in: vhost)
    return committed
  }

  func append(_ binding: Binding) -> Committed {
    append(Self.record(binding))
  }

  @discardableResult
  func appendRemoved(_ binding: Binding) -> Committed {
    append(Self.record(binding).ofKind(BrokerRecord.Kind.bindingRemoved.rawValue))
  }

  func appendDeleted(_ leaving: Destination) {
    remove(leaving)
    QueueDeletedRecord.append(to: journal, id: leaving.id)
    changedAt = journal.endPosition
  }

  func appendDeleted(_ exchange: Exchange) {
    remove(exchange)
    ExchangeDeletedRecord.append(to: journal, id: exchange.id)
    changedAt = journal.endPosition
  }

  /// A value that an exchange or a queue remembers from now on.
  func append(_ seen: Remembrance) {
    Self.record(seen.value, until: seen.until, of: seen.values.holder).append(to: journal)
  }

  /// A message that an exchange keeps from now on.
  func append(_ message: KeptMessage, of exchange: UInt32) {
    Self.record(message, of: exchange).append(to: journal)
  }

  /// A change of which the log gets so many records. If there are several, a start finds all or none.
  func change(recordCount: Int, _ body: () -> Void) -> Committed {
    if recordCount > 1 { journal.together(body) } else { body() }
    guard recordCount > 0 else { return .now }
    changedAt = journal.endPosition
    return .whenDurable(changedAt)
  }

  private func append(_ record: RawRecord) -> Committed {
    record.append(to: journal)
    return changed()
  }

  private func changed() -> Committed {
    changedAt = journal.endPosition
    return .whenDurable(changedAt)
  }

  /// For the answer to what changes nothing, because it was done before: it promises as much as the
  /// first one, so that it must not leave before the log durably says so.
  var known: Committed { .whenDurable(changedAt) }

  // MARK: What there is

  /// Everything durable that exists, in any order, with the exchanges that every virtual host has.
  private(set) var destinations: [Destination] = []
  private(set) var exchanges: [(exchange: Exchange, vhost: VirtualHost)] = []

  func add(_ new: Destination) {
    new.catalogIndex = destinations.count
    destinations.append(new)
  }

  func add(_ exchange: Exchange, in vhost: VirtualHost) {
    exchange.catalogIndex = exchanges.count
    exchanges.append((exchange, vhost))
  }

  /// The last one takes its place, so that whoever goes from the end to the beginning misses nothing, and
  /// may see some twice.
  func remove(_ leaving: Destination) {
    guard let index = leaving.catalogIndex else { return }
    leaving.catalogIndex = nil
    let last = destinations.removeLast()
    guard last !== leaving else { return }
    destinations[index] = last
    last.catalogIndex = index
  }

  func remove(_ exchange: Exchange) {
    guard let index = exchange.catalogIndex else { return }
    exchange.catalogIndex = nil
    let last = exchanges.removeLast()
    guard last.exchange !== exchange else { return }
    exchanges[index] = last
    last.exchange.catalogIndex = index
  }

  // MARK: To a checkpoint

  func appendIDs(queue: UInt32, exchange: UInt32, lane: UInt32, to bytes: inout [UInt8]) {
    IdsRecord.raw(nextQueue: queue, nextExchange: exchange, nextLane: lane).append(to: &bytes)
  }

  func append(_ exchange: Exchange, in vhost: VirtualHost, to bytes: inout [UInt8]) {
    Self.record(exchange, in: vhost).append(to: &bytes)
  }

  /// With its lanes of ids below `newLanes`; what of their messages is in lane files and alive follows in
  /// records of its own.
  func append(_ destination: Destination, newLanes: UInt32, to bytes: inout [UInt8]) {
    Self.record(destination).append(to: &bytes)
    for record in destination.laneRecords(below: newLanes, withStates: true) {
      record.append(to: &bytes)
    }
  }

  func append(_ binding: Binding, to bytes: inout [UInt8]) {
    Self.record(binding).append(to: &bytes)
  }

  func append(_ seen: SeenValue, of holder: SeenValues.Holder, to bytes: inout [UInt8]) {
    Self.record(seen.value, until: seen.until, of: holder).append(to: &bytes)
  }

  func append(_ message: KeptMessage, of exchange: UInt32, to bytes: inout [UInt8]) {
    Self.record(message, of: exchange).append(to: &bytes)
  }

  static func state(of lane: Lane) -> RawRecord {
    var moved = lane.movedUpTo
    if Sabotage.is(.forgetsMovedUpTo) { moved = 0 }
    if Sabotage.is(.recordsMovedUpToTooHigh), moved > 0 { moved += 1 }
    return LaneStateRecord.raw(
      lane: lane.id, nextSequence: lane.nextSequence, deliveredUpTo: lane.horizon.upTo,
      movedUpTo: moved)
  }

  func appendAlive(
    _ ranges: [ClosedRange<UInt64>], of lane: UInt32, to bytes: inout [UInt8]
  ) {
    LaneAliveRecord.raw(lane: lane, ranges: ranges.map(SequenceRange.init)).append(to: &bytes)
  }

  func append(_ counts: [DeliveryCount], of lane: UInt32, to bytes: inout [UInt8]) {
    DeliveryCountsRecord.raw(lane: lane, counts: counts).append(to: &bytes)
  }

  // MARK: The bytes

  private static func record(_ destination: Destination) -> RawRecord {
    QueueRecord.raw(
      id: destination.id, isAutoDelete: destination.isAutoDelete, vhost: destination.vhost.name,
      name: destination.name, arguments: destination.arguments.encoded)
  }

  static func record(_ lane: Lane) -> RawRecord {
    LaneRecord.raw(
      id: lane.id, queue: lane.queue.id, role: lane.role.rawValue, priority: lane.priority)
  }

  private static func record(_ exchange: Exchange, in vhost: VirtualHost) -> RawRecord {
    ExchangeRecord.raw(
      id: exchange.id, isAutoDelete: exchange.isAutoDelete, isInternal: exchange.isInternal,
      vhost: vhost.name, name: exchange.name, type: exchange.type,
      arguments: exchange.arguments.encoded)
  }

  private static func record(
    _ value: [UInt8], until: Int64, of holder: SeenValues.Holder
  ) -> RawRecord {
    RememberedRecord.raw(
      id: holder.id, isOfQueue: holder.isQueue, until: UInt64(until), value: Name(value))
  }

  private static func record(_ message: KeptMessage, of exchange: UInt32) -> RawRecord {
    var payload = [UInt8](repeating: 0, count: KeptRecord.fixedBytes)
    payload.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      KeptRecord.write(
        at: base, propertiesSize: UInt32(message.properties.count),
        bodySize: UInt32(message.body.count), number: message.number)
    }
    payload += message.names + message.properties + message.body
    return RawRecord(
      kind: BrokerRecord.Kind.kept.rawValue, word: exchange, payload: payload)
  }

  private static func record(_ binding: Binding) -> RawRecord {
    BindingRecord.raw(
      source: binding.source.id, isToExchange: binding.destination.isExchange,
      destination: binding.destination.id, key: binding.key,
      arguments: binding.arguments.isEmpty ? [0, 0, 0, 0] : binding.arguments)
  }
}
