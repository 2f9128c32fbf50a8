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

  static let isAutoDelete: UInt8 = 2
  static let isInternal: UInt8 = 2
  static let isExchangeAutoDelete: UInt8 = 1
  static let isToExchange: UInt8 = 1

  private static let rangesMax = 4096

  static func appendDelivered(_ journal: Journal, queue: UInt32, upTo sequence: UInt64) {
    let (_, payload) = journal.append(kind: delivered, word: queue, payloadSize: 8)
    payload.storeBytes(of: sequence, as: UInt64.self)
  }

  /// `ranges` in ascending order; neighbours are written as one.
  static func appendSettled(
    _ journal: Journal, queue: UInt32, ranges: [Queue.SettledRange]
  ) {
    var merged: [Queue.SettledRange] = []
    for range in ranges {
      if let last = merged.last, last.first + last.count == range.first {
        merged[merged.count - 1].count += range.count
      } else {
        merged.append(range)
      }
    }
    var start = 0
    while start < merged.count {
      let count = min(rangesMax, merged.count - start)
      let (_, payload) = journal.append(
        kind: settle, count: UInt16(count), word: queue, payloadSize: 16 * count)
      for index in 0..<count {
        let range = merged[start + index]
        payload.storeBytes(of: range.first, toByteOffset: 16 * index, as: UInt64.self)
        payload.storeBytes(of: range.count, toByteOffset: 16 * index + 8, as: UInt64.self)
      }
      start += count
    }
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
  private unowned(unsafe) let broker: Broker
  private let journal: Journal
  /// Where the log ended behind the last change.
  private var changedAt = 0

  init(broker: Broker, journal: Journal) {
    self.broker = broker
    self.journal = journal
  }

  // MARK: To the log

  func append(_ queue: Queue) -> Committed {
    let committed = append(Self.record(queue))
    queue.declaredAt = journal.endPosition
    return committed
  }

  func append(_ exchange: Exchange, in vhost: VirtualHost) -> Committed {
    let committed = append(Self.record(exchange, in: vhost))
    exchange.declaredAt = journal.endPosition
    return committed
  }

  func append(_ binding: Binding) -> Committed {
    append(Self.record(binding, kind: CatalogRecord.binding))
  }

  func appendRemoved(_ binding: Binding) -> Committed {
    append(Self.record(binding, kind: CatalogRecord.bindingRemoved))
  }

  func appendDeleted(_ queue: Queue) {
    _ = append(EncodedRecord(kind: CatalogRecord.queueDeleted, word: queue.id, payload: []))
  }

  func appendDeleted(_ exchange: Exchange) {
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

  // MARK: To a checkpoint

  /// Records of everything durable that exists.
  func snapshot() -> [UInt8] {
    var bytes: [UInt8] = []
    let outstanding = outstandingMoved()
    EncodedRecord(
      kind: CatalogRecord.ids, word: broker.queueNumbers.nextDurable,
      payload: Self.bytes(broker.exchangeNumbers.nextDurable)
    )
      .append(to: &bytes)
    for vhost in broker.vhosts.values {
      for exchange in vhost.exchanges.values where exchange.isDurable && !exchange.isPredeclared {
        Self.record(exchange, in: vhost).append(to: &bytes)
      }
      for queue in vhost.queues.values where queue.isDurable {
        Self.record(queue).append(to: &bytes)
        EncodedRecord(
          kind: CatalogRecord.queueState, word: queue.id,
          payload: Self.state(queue, outstanding: outstanding[queue.id] ?? SequenceSet())
        ).append(to: &bytes)
      }
      for exchange in vhost.exchanges.values where exchange.isDurable {
        for binding in exchange.bindings.values where binding.isDurable {
          Self.record(binding, kind: CatalogRecord.binding).append(to: &bytes)
        }
      }
    }
    return bytes
  }

  /// The messages in lane files that are unacknowledged or given back, by queue.
  private func outstandingMoved() -> [UInt32: SequenceSet] {
    var sequences: [UInt32: [UInt64]] = [:]
    broker.forEachOutstanding { entry, queue in
      guard queue.isDurable, entry.sequence <= queue.movedUpTo else { return }
      sequences[queue.id, default: []].append(entry.sequence)
    }
    return sequences.mapValues { sequences in
      var set = SequenceSet()
      for sequence in sequences.sorted() { set.append(sequence...sequence) }
      return set
    }
  }

  // MARK: The bytes

  private static func state(_ queue: Queue, outstanding: SequenceSet) -> [UInt8] {
    var alive = outstanding
    queue.lane.forEachMoved(upTo: queue.movedUpTo) { alive.append($0) }
    var payload = bytes(queue.nextSequence) + bytes(queue.horizon.upTo)
    var moved = queue.movedUpTo
    if Sabotage.is(.forgetsMovedUpTo) { moved = 0 }
    if Sabotage.is(.recordsMovedUpToTooHigh), moved > 0 { moved += 1 }
    payload += bytes(moved) + bytes(moved + 1)
    for range in alive.ranges {
      payload += bytes(range.lowerBound) + bytes(range.upperBound - range.lowerBound + 1)
    }
    return payload
  }

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
