import AMQP
import Base
import Journal

/// What a record of the log says, in words, for people who look into a journal.
public enum RecordDescription {
  /// Such as `message, 2 queues, 100 bytes, exchange "" key "orders"`.
  public static func text(_ record: RecordView) -> String {
    switch record.kind {
    case Record.pad: "pad"
    case Record.epoch: "epoch \(record.payload.loadUnaligned(as: UInt64.self))"
    case Record.batch:
      "batch; durable before: \(record.payload.loadUnaligned(as: UInt64.self))"
    case Record.stop: "stop"
    case Record.laneFile: "lane file \(record.payload.loadUnaligned(as: UInt64.self))"
    case Record.laneFileRemoved:
      "lane file \(record.payload.loadUnaligned(as: UInt64.self)) removed"
    case CatalogRecord.queueState: state(record)
    case CatalogRecord.queueAlive:
      "alive in lane files, queue \(record.word): \(record.payload.count / 16) ranges"
    case CatalogRecord.ids:
      "ids; next queue \(record.word), next exchange "
        + "\(record.payload.loadUnaligned(as: UInt32.self))"
    case MessageView.kind: message(record)
    case CatalogRecord.settle: settled(record)
    case CatalogRecord.delivered:
      "delivered, queue \(record.word) up to \(record.payload.loadUnaligned(as: UInt64.self))"
    case CatalogRecord.queue: "queue \(record.word) declared: \(names(record, 2, skipping: 0))"
    case CatalogRecord.queueDeleted: "queue \(record.word) deleted"
    case CatalogRecord.exchange:
      "exchange \(record.word) declared: \(names(record, 3, skipping: 0))"
    case CatalogRecord.exchangeDeleted: "exchange \(record.word) deleted"
    case CatalogRecord.binding: "bound: \(binding(record))"
    case CatalogRecord.bindingRemoved: "unbound: \(binding(record))"
    default: "record of kind \(record.kind)"
    }
  }

  private static let names: [(kind: UInt8, name: String)] = [
    (Record.pad, "pad"), (Record.epoch, "epoch"), (Record.batch, "batch"), (Record.stop, "stop"),
    (Record.laneFile, "lane-file"), (Record.laneFileRemoved, "lane-file-removed"),
    (MessageView.kind, "message"), (CatalogRecord.settle, "settle"),
    (CatalogRecord.delivered, "delivered"), (CatalogRecord.queue, "queue"),
    (CatalogRecord.queueDeleted, "queue-deleted"), (CatalogRecord.exchange, "exchange"),
    (CatalogRecord.exchangeDeleted, "exchange-deleted"), (CatalogRecord.binding, "binding"),
    (CatalogRecord.bindingRemoved, "binding-removed"), (CatalogRecord.queueState, "queue-state"),
    (CatalogRecord.ids, "ids"), (CatalogRecord.queueAlive, "queue-alive"),
  ]

  public static let kindNames = names.map(\.name)

  /// The kind's name, for counts.
  public static func kindName(_ kind: UInt8) -> String {
    names.first { $0.kind == kind }?.name ?? "kind \(kind)"
  }

  /// The beginning of a message's body, as text; nothing for other records, or when nothing is wanted.
  public static func body(_ record: RecordView, bytesMax: Int) -> String {
    guard record.kind == MessageView.kind, bytesMax > 0 else { return "" }
    let view = MessageView(record.base)
    let body = view.body(behind: view.properties(behind: view.names))
    var text = ""
    for scalar in String(decoding: body.prefix(bytesMax), as: UTF8.self).unicodeScalars {
      text +=
        scalar.value < 32 || scalar.value == 127 ? scalar.escaped(asASCII: true) : String(scalar)
    }
    return ", body \"\(text)\"" + (body.count > bytesMax ? "..." : "")
  }

  /// Whether the record declares a queue of this name.
  public static func declares(_ record: RecordView, queue name: String) -> Bool {
    guard record.kind == CatalogRecord.queue, RecordForm.isSound(record) else { return false }
    return RawRecord(record).names(2)[1].description == name
  }

  /// Whether the record says something of one of these queues.
  public static func concerns(_ record: RecordView, oneOf queues: Set<UInt32>) -> Bool {
    guard RecordForm.isUnderstood(record) else { return false }
    switch record.kind {
    case CatalogRecord.settle, CatalogRecord.delivered, CatalogRecord.queue,
      CatalogRecord.queueDeleted, CatalogRecord.queueState:
      return queues.contains(record.word)
    case CatalogRecord.binding, CatalogRecord.bindingRemoved:
      let (isToExchange, id) = RawRecord(record).destination
      return !isToExchange && queues.contains(id)
    case MessageView.kind: return destinations(record).contains { queues.contains($0.queue) }
    default: return false
    }
  }

  private static func destinations(_ record: RecordView) -> [(queue: UInt32, sequence: UInt64)] {
    let count = MessageView(record.base).destinationCount
    let start = record.size - count * MessageView.destinationSize
    return (0..<count).map { index in
      let offset = start + index * MessageView.destinationSize
      return (
        record.base.loadUnaligned(fromByteOffset: offset, as: UInt32.self),
        record.base.loadUnaligned(fromByteOffset: offset + 4, as: UInt64.self)
      )
    }
  }

  private static func message(_ record: RecordView) -> String {
    let view = MessageView(record.base)
    let (exchange, key) = RouteMemo.split(view.names.bytes)
    var text = "message, \(record.word) bytes, exchange \"\(exchange)\" key \"\(key)\""
    for (index, place) in destinations(record).enumerated() {
      text += "\(index == 0 ? ", to" : "") \(place.queue)#\(place.sequence)"
    }
    return text
  }

  private static func state(_ record: RecordView) -> String {
    func field(_ index: Int) -> UInt64 {
      record.payload.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)
    }
    var text = "state of queue \(record.word): next \(field(0)), delivered up to \(field(1))"
    guard record.payload.count >= 32 else { return text }
    text += ", moved up to \(field(2)), alive from \(field(3)) on"
    for index in stride(from: 4, to: record.payload.count / 8 - 1, by: 2) {
      text += "\(index == 4 ? " and" : "") \(field(index))-\(field(index) + field(index + 1) - 1)"
    }
    return text
  }

  private static func settled(_ record: RecordView) -> String {
    var text = "settled, queue \(record.word):"
    for index in 0..<Int(record.count) {
      let first = record.payload.loadUnaligned(fromByteOffset: 16 * index, as: UInt64.self)
      let count = record.payload.loadUnaligned(fromByteOffset: 16 * index + 8, as: UInt64.self)
      text += count == 1 ? " \(first)" : " \(first)-\(first + count - 1)"
    }
    return text
  }

  private static func binding(_ record: RecordView) -> String {
    let destination = record.payload.loadUnaligned(as: UInt32.self)
    let kind = record.flags & CatalogRecord.isToExchange != 0 ? "exchange" : "queue"
    return "exchange \(record.word) to \(kind) \(destination) key "
      + names(record, 1, skipping: 4)
  }

  private static func names(_ record: RecordView, _ count: Int, skipping: Int) -> String {
    do throws(MalformedInput) {
      var reader = ByteReader(record.payload.bytes)
      _ = try reader.take(skipping)
      var texts: [String] = []
      for _ in 0..<count { texts.append("\"\(try reader.name())\"") }
      return texts.joined(separator: " ")
    } catch {
      return error.reason
    }
  }
}
