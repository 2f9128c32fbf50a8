import Base
import Journal

/// Why a message leaves its queue without having been consumed.
enum DeathReason: String {
  case rejected
  case expired
  case maxLength = "maxlen"
}

extension Broker {
  /// A message that was taken from its lane and is not locked leaves it for good.
  func bury(_ entry: Entry, of lane: Lane, for reason: DeathReason) {
    lane.settle(entry)
  }
}
