import AMQP
import Base
import Journal

/// Whether records have the form that their kinds have; for tools, which also meet records whose
/// checksum says nothing.
public enum RecordForm {
  /// Whether a record's size goes with its header, of which 32 bytes are there.
  public static func isPlausible(_ record: RecordView) -> Bool {
    switch record.kind {
    case MessageView.kind:
      guard record.size >= MessageView.namesOffset + 2 else { return false }
      let properties = Int(
        record.base.loadUnaligned(
          fromByteOffset: MessageView.propertiesSizeOffset, as: UInt32.self))
      let destinations = Int(
        record.base.loadUnaligned(
          fromByteOffset: MessageView.destinationsOffset, as: UInt32.self))
      let rest =
        record.size - MessageView.namesOffset - properties - Int(record.word)
        - destinations * MessageView.destinationSize
      return (2...2 + 2 * Name.sizeMax).contains(rest)
    case CatalogRecord.settle: return record.size == Record.headerSize + 16 * Int(record.count)
    case CatalogRecord.delivered: return record.size == Record.headerSize + 8
    case CatalogRecord.queueDeleted, CatalogRecord.exchangeDeleted:
      return record.size == Record.headerSize
    case CatalogRecord.queue, CatalogRecord.exchange, CatalogRecord.binding,
      CatalogRecord.bindingRemoved:
      return record.size < 1 << 24
    default: return false
    }
  }

  /// Whether a record that is all there can be understood.
  public static func isSound(_ record: RecordView) -> Bool {
    switch record.kind {
    case MessageView.kind:
      guard isPlausible(record) else { return false }
      let end = record.size
      let exchange =
        MessageView.namesOffset + 1
        + Int(
          record.base.load(
            fromByteOffset: MessageView.namesOffset, as: UInt8.self))
      guard exchange < end else { return false }
      let key = Int(record.base.load(fromByteOffset: exchange, as: UInt8.self))
      let view = MessageView(record.base)
      let properties = Int(
        record.base.loadUnaligned(
          fromByteOffset: MessageView.propertiesSizeOffset, as: UInt32.self))
      return exchange + 1 + key + properties + Int(record.word)
        + view.destinationCount * MessageView.destinationSize == end
    case CatalogRecord.queue: return hasForm(record, names: 2, skipping: 0)
    case CatalogRecord.exchange: return hasForm(record, names: 3, skipping: 0)
    case CatalogRecord.binding, CatalogRecord.bindingRemoved:
      return hasForm(record, names: 1, skipping: 4)
    case CatalogRecord.queueState: return record.payload.count >= 16
    case CatalogRecord.ids: return record.payload.count == 4
    case CatalogRecord.queueAlive: return record.payload.count % 16 == 0
    default: return isPlausible(record)
    }
  }

  /// Whether a record is a message and can be understood.
  public static func isMessage(_ record: RecordView) -> Bool {
    record.kind == MessageView.kind && isSound(record)
  }

  /// Whether a record of any kind, also one of the journal's own, can be understood.
  public static func isUnderstood(_ record: RecordView) -> Bool {
    record.kind < Record.brokerKinds || isSound(record)
  }

  /// What a sound record says that only a newer version can know; nil if there is nothing.
  static func unknown(_ record: RecordView, vhosts isKnown: (Name) -> Bool) -> String? {
    let flags: UInt8
    switch record.kind {
    case CatalogRecord.queue: flags = CatalogRecord.isAutoDelete
    case CatalogRecord.exchange:
      flags = CatalogRecord.isExchangeAutoDelete | CatalogRecord.isInternal
    case CatalogRecord.binding, CatalogRecord.bindingRemoved: flags = CatalogRecord.isToExchange
    case MessageView.kind, CatalogRecord.settle, CatalogRecord.delivered,
      CatalogRecord.queueDeleted, CatalogRecord.exchangeDeleted, CatalogRecord.queueState,
      CatalogRecord.ids, CatalogRecord.queueAlive:
      return nil
    default: return "a record of kind \(record.kind)"
    }
    guard record.flags & ~flags == 0 else {
      return "a record of kind \(record.kind) with flags \(record.flags)"
    }
    var reader = ByteReader(record.payload.bytes)
    guard record.kind == CatalogRecord.queue || record.kind == CatalogRecord.exchange,
      let vhost = try? reader.name()
    else { return nil }
    guard isKnown(vhost) else { return "the virtual host '\(vhost)'" }
    if record.kind == CatalogRecord.exchange, let name = try? reader.name(),
      let type = try? reader.name(), Exchange.Kind(rawValue: type.description) == nil
    {
      return "an exchange '\(name)' of type '\(type)'"
    }
    return nil
  }

  private static func hasForm(_ record: RecordView, names: Int, skipping: Int) -> Bool {
    do throws(MalformedInput) {
      var reader = ByteReader(record.payload.bytes)
      _ = try reader.take(skipping)
      for _ in 0..<names { _ = try reader.name() }
      _ = try reader.fieldTable()
      return reader.isAtEnd
    } catch {
      return false
    }
  }
}
