import AMQP
import Base
import Journal

/// The broker's records other than messages; `Specs/Journal.md` has the table.
enum CatalogRecord {
  static let settle: UInt8 = 17
  static let delivered: UInt8 = 18
  static let queue: UInt8 = 32
  static let queueDeleted: UInt8 = 33
  static let exchange: UInt8 = 34
  static let exchangeDeleted: UInt8 = 35
  static let binding: UInt8 = 36
  static let bindingRemoved: UInt8 = 37
  static let queueState: UInt8 = 48
  static let ids: UInt8 = 49
  static let queueAlive: UInt8 = 50

  static let isAutoDelete: UInt8 = 2
  static let isInternal: UInt8 = 2
  static let isExchangeAutoDelete: UInt8 = 1
  static let isToExchange: UInt8 = 1

  private static let rangesMax = 4096

  static func appendDelivered(_ journal: Journal, queue: UInt32, upTo sequence: UInt64) {
    let (_, payload) = journal.append(kind: delivered, word: queue, payloadSize: 8)
    payload.storeBytes(of: sequence, as: UInt64.self)
  }

  /// `ranges` in ascending order; neighbours become one.
  static func appendSettled(
    _ journal: Journal, queue: UInt32, ranges: inout [Queue.SettledRange]
  ) {
    merge(&ranges)
    var start = 0
    while start < ranges.count {
      let count = min(rangesMax, ranges.count - start)
      let (_, payload) = journal.append(
        kind: settle, count: UInt16(count), word: queue, payloadSize: 16 * count)
      for index in 0..<count {
        let range = ranges[start + index]
        payload.storeBytes(of: range.first, toByteOffset: 16 * index, as: UInt64.self)
        payload.storeBytes(of: range.count, toByteOffset: 16 * index + 8, as: UInt64.self)
      }
      start += count
    }
  }

  /// In place, since it is done for every commit.
  private static func merge(_ ranges: inout [Queue.SettledRange]) {
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
    record.size - MessageView(record.base).destinationCount * MessageView.destinationSize
  }

  public func copy(_ record: RecordView, to place: UnsafeMutableRawPointer) {
    let size = size(of: record)
    place.copyMemory(from: record.base, byteCount: size)
    place.storeBytes(of: UInt32(size), as: UInt32.self)
    place.storeBytes(of: 0, toByteOffset: MessageView.destinationsOffset, as: UInt32.self)
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

  func append(_ queue: Queue) -> Committed {
    let committed = append(Self.record(queue))
    queue.declaredAt = journal.endPosition
    add(queue)
    return committed
  }

  func append(_ exchange: Exchange, in vhost: VirtualHost) -> Committed {
    let committed = append(Self.record(exchange, in: vhost))
    exchange.declaredAt = journal.endPosition
    add(exchange, in: vhost)
    return committed
  }

  func append(_ binding: Binding) -> Committed {
    append(Self.record(binding, kind: CatalogRecord.binding))
  }

  func appendRemoved(_ binding: Binding) -> Committed {
    append(Self.record(binding, kind: CatalogRecord.bindingRemoved))
  }

  func appendDeleted(_ queue: Queue) {
    remove(queue)
    _ = append(EncodedRecord(kind: CatalogRecord.queueDeleted, word: queue.id, payload: []))
  }

  func appendDeleted(_ exchange: Exchange) {
    remove(exchange)
    _ = append(
      EncodedRecord(kind: CatalogRecord.exchangeDeleted, word: exchange.id, payload: []))
  }

  private func append(_ record: EncodedRecord) -> Committed {
    let (_, payload) = journal.append(
      kind: record.kind, flags: record.flags, word: record.word,
      payloadSize: record.payload.count)
    record.payload.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { payload.copyMemory(from: base, byteCount: bytes.count) }
    }
    changedAt = journal.endPosition
    return .whenDurable(changedAt)
  }

  /// For the answer to what changes nothing, because it was done before: it promises as much as the
  /// first one, so that it must not leave before the log durably says so.
  var known: Committed { .whenDurable(changedAt) }

  // MARK: What there is

  /// Everything durable that exists, in any order, with the exchanges that every virtual host has.
  private(set) var queues: [Queue] = []
  private(set) var exchanges: [(exchange: Exchange, vhost: VirtualHost)] = []

  func add(_ queue: Queue) {
    queue.catalogIndex = queues.count
    queues.append(queue)
  }

  func add(_ exchange: Exchange, in vhost: VirtualHost) {
    exchange.catalogIndex = exchanges.count
    exchanges.append((exchange, vhost))
  }

  /// The last one takes its place, so that whoever goes from the end to the beginning misses nothing, and
  /// may see some twice.
  func remove(_ queue: Queue) {
    guard let index = queue.catalogIndex else { return }
    queue.catalogIndex = nil
    let last = queues.removeLast()
    guard last !== queue else { return }
    queues[index] = last
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

  func appendIDs(queue: UInt32, exchange: UInt32, to bytes: inout [UInt8]) {
    EncodedRecord(kind: CatalogRecord.ids, word: queue, payload: Self.bytes(exchange))
      .append(to: &bytes)
  }

  func append(_ exchange: Exchange, in vhost: VirtualHost, to bytes: inout [UInt8]) {
    Self.record(exchange, in: vhost).append(to: &bytes)
  }

  func append(_ queue: Queue, to bytes: inout [UInt8]) {
    Self.record(queue).append(to: &bytes)
  }

  func append(_ binding: Binding, to bytes: inout [UInt8]) {
    Self.record(binding, kind: CatalogRecord.binding).append(to: &bytes)
  }

  /// What is in lane files and alive follows in records of its own.
  func appendState(of queue: Queue, to bytes: inout [UInt8]) {
    var moved = queue.movedUpTo
    if Sabotage.is(.forgetsMovedUpTo) { moved = 0 }
    if Sabotage.is(.recordsMovedUpToTooHigh), moved > 0 { moved += 1 }
    EncodedRecord(
      kind: CatalogRecord.queueState, word: queue.id,
      payload: Self.bytes(queue.nextSequence) + Self.bytes(queue.horizon.upTo)
        + Self.bytes(moved) + Self.bytes(moved + 1)
    ).append(to: &bytes)
  }

  func appendAlive(
    _ ranges: [ClosedRange<UInt64>], of queue: UInt32, to bytes: inout [UInt8]
  ) {
    var payload: [UInt8] = []
    payload.reserveCapacity(16 * ranges.count)
    for range in ranges {
      payload += Self.bytes(range.lowerBound)
      payload += Self.bytes(range.upperBound - range.lowerBound + 1)
    }
    EncodedRecord(kind: CatalogRecord.queueAlive, word: queue, payload: payload)
      .append(to: &bytes)
  }

  // MARK: The bytes

  private static func record(_ queue: Queue) -> EncodedRecord {
    EncodedRecord(
      kind: CatalogRecord.queue, flags: queue.isAutoDelete ? CatalogRecord.isAutoDelete : 0,
      word: queue.id, payload: payload([queue.vhost.name, queue.name], queue.arguments))
  }

  private static func record(_ exchange: Exchange, in vhost: VirtualHost) -> EncodedRecord {
    EncodedRecord(
      kind: CatalogRecord.exchange,
      flags: (exchange.isAutoDelete ? CatalogRecord.isExchangeAutoDelete : 0)
        | (exchange.isInternal ? CatalogRecord.isInternal : 0),
      word: exchange.id,
      payload: payload(
        [vhost.name, exchange.name, Name(exchange.kind.rawValue)], exchange.arguments))
  }

  private static func record(_ binding: Binding, kind: UInt8) -> EncodedRecord {
    EncodedRecord(
      kind: kind, flags: binding.destination.isExchange ? CatalogRecord.isToExchange : 0,
      word: binding.source.id,
      payload: bytes(binding.destination.id) + payload(binding))
  }

  private static func payload(_ binding: Binding) -> [UInt8] {
    [UInt8(binding.key.bytes.count)] + binding.key.bytes
      + (binding.arguments.isEmpty ? [0, 0, 0, 0] : binding.arguments)
  }

  private static func payload(_ names: [Name], _ table: FieldTable) -> [UInt8] {
    var buffer = ByteBuffer()
    for name in names { buffer.append(name) }
    buffer.append(table)
    return Array(buffer.readable)
  }

  private static func bytes<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }
}

/// A record that is not in the log yet.
private struct EncodedRecord {
  let kind: UInt8
  var flags: UInt8 = 0
  let word: UInt32
  let payload: [UInt8]

  /// Appends the record with its header, its checksum zero, and padding.
  func append(to bytes: inout [UInt8]) {
    let size = Record.headerSize + payload.count
    var header = [UInt8](repeating: 0, count: Record.headerSize)
    header.withUnsafeMutableBytes { header in
      header.storeBytes(of: UInt32(size), as: UInt32.self)
      header[8] = kind
      header[9] = flags
      header.storeBytes(of: word, toByteOffset: 12, as: UInt32.self)
    }
    bytes += header
    bytes += payload
    bytes += [UInt8](repeating: 0, count: Record.padded(size) - size)
  }
}
