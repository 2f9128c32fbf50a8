import Base
import Broker
import Journal

/// Whether records have the form that their kinds have; for tools, which also meet records whose
/// checksum says nothing.
package enum RecordForm {
  /// Whether a record's size goes with its header, of which 32 bytes are there.
  package static func isPlausible(_ record: RecordView) -> Bool {
    guard let kind = BrokerRecord.Kind(rawValue: record.kind) else {
      return record.isIgnorable && record.size < Record.catalogSizeMax
    }
    return kind.isInLog && kind.isPlausible(record)
  }

  /// Whether a record is a message and can be understood.
  package static func isMessage(_ record: RecordView) -> Bool { message(record) != nil }

  /// The record if it is a message and can be understood.
  static func message(_ record: RecordView) -> MessageRecord? {
    guard record.kind == BrokerRecord.Kind.message.rawValue else { return nil }
    do throws(MalformedInput) {
      return try MessageRecord(record)
    } catch {
      return nil
    }
  }
}

extension BrokerRecord {
  /// Whether a checkpoint has it, or what it does, so that the log before the checkpoint says nothing new.
  var isOfCatalog: Bool {
    switch self {
    case .message, .settle, .delivered, .deliveryCounts, .partitionTrimmed, .groupOffset,
      .groupDeleted:
      false
    case .queue, .queueDeleted, .exchange, .exchangeDeleted, .binding, .bindingRemoved, .lane,
      .remembered, .kept, .producerSequence, .laneState, .partitionState, .ids, .laneAlive,
      .ignorable:
      true
    }
  }

  /// Whether checkpoints have it.
  var isInCheckpoint: Bool {
    switch self {
    case .deliveryCounts, .groupOffset: true
    case .message, .settle, .delivered, .partitionTrimmed, .groupDeleted: false
    case .queue, .queueDeleted, .exchange, .exchangeDeleted, .binding, .bindingRemoved, .lane,
      .remembered, .kept, .producerSequence, .laneState, .partitionState, .ids, .laneAlive,
      .ignorable:
      isOfCatalog
    }
  }
}
