import Base
import Journal

/// Whether records have the form that their kinds have; for tools, which also meet records whose
/// checksum says nothing.
public enum RecordForm {
  /// Whether a record's size goes with its header, of which 32 bytes are there.
  public static func isPlausible(_ record: RecordView) -> Bool {
    guard let kind = BrokerRecord.Kind(rawValue: record.kind) else {
      return record.isIgnorable && record.size < Record.catalogSizeMax
    }
    return kind.isInLog && kind.isPlausible(record)
  }

  /// Whether a record is a message and can be understood.
  public static func isMessage(_ record: RecordView) -> Bool {
    guard record.kind == BrokerRecord.Kind.message.rawValue else { return false }
    do throws(MalformedInput) {
      _ = try MessageRecord(record)
      return true
    } catch {
      return false
    }
  }
}

extension BrokerRecord {
  /// Whether a checkpoint has it, or what it does, so that the log before the checkpoint says nothing new.
  var isOfCatalog: Bool {
    switch self {
    case .message, .settle, .delivered: false
    case .queue, .queueDeleted, .exchange, .exchangeDeleted, .binding, .bindingRemoved, .queueState,
      .ids, .queueAlive, .ignorable:
      true
    }
  }
}
