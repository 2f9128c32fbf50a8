import Base
import Journal

/// What a lane is for; the raw value is what the log has.
package enum LaneRole: UInt32 {
  /// Its messages are for consumers, in their order.
  case ready = 0
  /// Its messages wait for their time, at a place of the wheel of due times, which its priority says.
  case delayed = 1
  /// It is a partition of a stream, of the number that its priority says.
  case partition = 2
  /// It is what a consumer reads of a stream; the log has none.
  case reader = 255

  /// The queue that has them, if there is only one.
  package var queueName: Name? {
    switch self {
    case .ready, .partition, .reader: nil
    case .delayed: "amq.delayed"
    }
  }
}

extension LaneRecord {
  /// No number that the first queues have, so that neither is taken for the other unnoticed.
  package static let firstID: UInt32 = 1001
  private static let priorityMax: UInt32 = 255

  /// Why the lane is none that this program has; nil if it is one.
  package var problem: RecordProblem? {
    guard let role = LaneRole(rawValue: role) else { return .unknownLane("role \(role)") }
    let isKnown =
      switch role {
      case .ready: priority <= Self.priorityMax
      case .delayed: priority < DelayWheel.placeCount
      case .partition: priority < StreamSettings.partitionsMax
      case .reader: false
      }
    return isKnown ? nil : .unknownLane("priority \(priority)")
  }
}
