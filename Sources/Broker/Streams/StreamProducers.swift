import Base
import Journal

/// How far a stream has what its producers publish. They are bounded in number: when there are too many, or too
/// much memory is used for such, those go that have published longest ago.
struct StreamProducers {
  private struct Known {
    /// The highest one that was stored.
    var sequence: UInt64
    /// Counts what was stored of all producers: the lower, the longer ago.
    var stamp: UInt64
  }

  private var known: [Name: Known] = [:]
  private var lastStamp: UInt64 = 0
  /// About what they take of memory.
  private(set) var memoryBytes = 0

  /// One of so many goes at once, so that many new ones cost each little.
  private static let forgottenShare = 8
  private static let bytesPerProducer = 128

  /// Whether this message, or one behind it, was stored.
  func has(_ mark: ProducerMark) -> Bool {
    known[mark.producer].map { mark.sequence <= $0.sequence } ?? false
  }

  /// All up to this one are stored. `isOverBudget` says that others are to go for a new producer.
  mutating func note(_ producer: Name, _ sequence: UInt64, isOverBudget: Bool) {
    lastStamp += 1
    if let before = known[producer] {
      known[producer] = Known(sequence: max(before.sequence, sequence), stamp: lastStamp)
      return
    }
    if known.count >= BrokerLimits.streamProducersMax || isOverBudget { forgetOldest() }
    known[producer] = Known(sequence: sequence, stamp: lastStamp)
    memoryBytes += Self.bytes(of: producer)
  }

  private mutating func forgetOldest() {
    let oldest = known.sorted { $0.value.stamp < $1.value.stamp }
    for (producer, _) in oldest.prefix(1 + known.count / Self.forgottenShare) {
      known[producer] = nil
      memoryBytes -= Self.bytes(of: producer)
    }
  }

  private static func bytes(of producer: Name) -> Int { bytesPerProducer + producer.bytes.count }

  /// For a checkpoint: those that have published longest ago first.
  func records(of stream: UInt32) -> [RawRecord] {
    known.sorted { $0.value.stamp < $1.value.stamp }.map {
      ProducerSequenceRecord.raw(stream: stream, sequence: $0.value.sequence, producer: $0.key)
    }
  }
}
