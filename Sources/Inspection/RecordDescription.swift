import Base
import Broker
import Journal

/// What a record of the log says, in words, for people who look into a journal.
package struct RecordDescription {
  /// Such as `message, 100 bytes, exchange "" key "orders", to 1#7`.
  package let text: String
  /// Why the record cannot be understood.
  package let problem: RecordProblem?
  private let known: BrokerRecord?

  /// Describes a record, as long as its bytes are there.
  package init(_ record: RecordView) {
    do throws(RecordProblem) {
      if record.kind < Record.brokerKinds {
        text = try OwnRecord(record).text
        known = nil
      } else {
        let record = try BrokerRecord(record)
        text = record.text
        known = record
      }
      problem = nil
    } catch {
      (text, problem, known) = (error.description, error, nil)
    }
  }

  package static let kindNames =
    OwnRecord.Kind.allCases.map(\.name) + BrokerRecord.Kind.allCases.map(\.name)

  /// The kind's name, for counts.
  package static func kindName(_ kind: UInt8) -> String {
    OwnRecord.Kind(rawValue: kind)?.name ?? BrokerRecord.Kind(rawValue: kind)?.name
      ?? "kind \(kind)"
  }

  /// The beginning of a message's body, as text; nothing for other records, or when nothing is wanted.
  package func body(bytesMax: Int) -> String {
    guard case .message(let message) = known, bytesMax > 0 else { return "" }
    var text = ""
    let body = message.body
    for scalar in String(decoding: body.prefix(bytesMax), as: UTF8.self).unicodeScalars {
      text +=
        scalar.value < 32 || scalar.value == 127 ? scalar.escaped(asASCII: true) : String(scalar)
    }
    return ", body \"\(text)\"" + (body.count > bytesMax ? "..." : "")
  }

  /// The queue that the record declares, if it has this name.
  package func declaredQueue(named name: String) -> UInt32? {
    guard case .queue(let queue) = known, queue.name.description == name else { return nil }
    return queue.id
  }

  /// The lane that the record declares, and its queue.
  package var declaredLane: (lane: UInt32, queue: UInt32)? {
    guard case .lane(let lane) = known else { return nil }
    return (lane.id, lane.queue)
  }

  /// Whether the record says something of one of these queues, or of one of their lanes.
  package func concerns(oneOf queues: Set<UInt32>, lanes: Set<UInt32>) -> Bool {
    switch known {
    case .settle(let record): lanes.contains(record.lane)
    case .delivered(let record): lanes.contains(record.lane)
    case .deliveryCounts(let record): lanes.contains(record.lane)
    case .queue(let record): queues.contains(record.id)
    case .queueDeleted(let record): queues.contains(record.id)
    case .lane(let record): queues.contains(record.queue)
    case .laneState(let record): lanes.contains(record.lane)
    case .laneAlive(let record): lanes.contains(record.lane)
    case .partitionState(let record): lanes.contains(record.lane)
    case .partitionTrimmed(let record): lanes.contains(record.lane)
    case .groupOffset(let record): lanes.contains(record.lane)
    case .groupDeleted(let record): queues.contains(record.queue)
    case .binding(let record), .bindingRemoved(let record):
      !record.isToExchange && queues.contains(record.destination)
    case .message(let record): record.destinations.contains { lanes.contains($0.lane) }
    case .remembered(let record): record.isOfQueue && queues.contains(record.id)
    case .producerSequence(let record): queues.contains(record.stream)
    case .exchange, .exchangeDeleted, .kept, .ids, .ignorable, nil: false
    }
  }
}
