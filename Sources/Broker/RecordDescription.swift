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

  /// The kind's name, for counts.
  public static func kindName(_ kind: UInt8) -> String {
    switch kind {
    case Record.pad: "pad"
    case Record.epoch: "epoch"
    case Record.batch: "batch"
    case Record.stop: "stop"
    case MessageView.kind: "message"
    case CatalogRecord.settle: "settle"
    case CatalogRecord.delivered: "delivered"
    case CatalogRecord.queue: "queue"
    case CatalogRecord.queueDeleted: "queue-deleted"
    case CatalogRecord.exchange: "exchange"
    case CatalogRecord.exchangeDeleted: "exchange-deleted"
    case CatalogRecord.binding: "binding"
    case CatalogRecord.bindingRemoved: "binding-removed"
    default: "kind \(kind)"
    }
  }

  private static func message(_ record: RecordView) -> String {
    let view = MessageView(record.base)
    let (exchange, key) = RouteMemo.split(view.names.bytes)
    var text =
      "message, \(record.word) bytes, exchange \"\(exchange)\" key \"\(key)\", to"
    var offset = record.size - view.destinationCount * MessageView.destinationSize
    for _ in 0..<view.destinationCount {
      let queue = record.base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
      let sequence = record.base.loadUnaligned(fromByteOffset: offset + 4, as: UInt64.self)
      text += " \(queue)#\(sequence)"
      offset += MessageView.destinationSize
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
