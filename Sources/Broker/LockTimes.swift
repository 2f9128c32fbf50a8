import AMQP
import Base

/// How long deliveries may stay unacknowledged, as the arguments of a queue or of a consumer say it.
struct LockTimes: Equatable {
  static let lockArgument: Name = "x-lock-timeout"
  static let consumerArgument: Name = "x-consumer-timeout"

  /// Milliseconds until a delivery goes back; 0 for ever, nil if nothing is said.
  private let lock: Int64?
  /// Milliseconds until all deliveries of the consumer go back and it ends; the same.
  private let consumer: Int64?

  /// Of arguments that were checked.
  init(_ arguments: FieldTable) {
    lock = arguments[Self.lockArgument]?.integer
    consumer = arguments[Self.consumerArgument]?.integer
  }

  /// For deliveries by basic.get from a queue of these arguments, in milliseconds.
  var ofGet: Int64? { Self.positive(lock) }

  /// For a consumer with arguments of its own, which count before these of its queue.
  func ofConsumer(with own: LockTimes) -> LockTime? {
    let lock = Self.positive(own.lock ?? lock)
    let consumer = Self.positive(own.consumer ?? consumer)
    // A delivery that went back by the one is not there for the other.
    if let consumer, consumer < lock ?? .max {
      return LockTime(milliseconds: consumer, endsConsumer: true)
    }
    return lock.map { LockTime(milliseconds: $0, endsConsumer: false) }
  }

  private static func positive(_ number: Int64?) -> Int64? { number == 0 ? nil : number }
}

/// How long the deliveries of a consumer may stay unacknowledged, and what happens then.
struct LockTime: Equatable {
  let milliseconds: Int64
  /// All of the consumer's deliveries go back, and it is cancelled; otherwise the one whose time is over.
  let endsConsumer: Bool
}

/// What was not acknowledged in time, of all clients since the start.
public struct LockCounts: Equatable, Sendable {
  /// Deliveries that went back since their time was over, or since their consumer's was.
  public internal(set) var deliveries = 0
  /// Consumers that were cancelled.
  public internal(set) var consumers = 0
  /// Acknowledgements and rejections of deliveries that had gone back.
  public internal(set) var lateAnswers = 0
}

/// What a client publishes to, on the channel that has a delivery, to have its lock prolonged:
/// `amq.lock.<delivery tag>` at the default exchange. No queue has such a name.
enum LockName {
  private static let prefix = Array("amq.lock.".utf8)
  /// A tag has so many digits at most.
  private static let digitsMax = 20

  /// The tag that a message names by exchange and routing key; nil if it names none.
  static func tag(_ names: RawSpan) -> UInt64? {
    let (exchange, key) = RouteMemo.split(names)
    guard exchange.isEmpty, key.bytes.starts(with: prefix) else { return nil }
    let digits = key.bytes.dropFirst(prefix.count)
    guard (1...digitsMax).contains(digits.count) else { return nil }
    var tag: UInt64 = 0
    for byte in digits {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
      let (shifted, isTooMuch) = tag.multipliedReportingOverflow(by: 10)
      let (sum, isTooMuchAdded) = shifted.addingReportingOverflow(UInt64(byte - UInt8(ascii: "0")))
      guard !isTooMuch, !isTooMuchAdded else { return nil }
      tag = sum
    }
    return tag
  }
}
