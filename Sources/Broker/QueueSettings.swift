import AMQP
import Base

/// What a queue's arguments come to: one value, made when the queue is, which nobody has to look up in a
/// table. A queue that asks for nothing has none, and its messages are only put behind the others.
final class QueueSettings {
  /// What becomes of messages for which there is no room.
  enum Overflow {
    /// The queue's next messages leave.
    case dropHead
    /// New messages are refused, and publishers that have publishes confirmed are told so.
    case rejectPublish
  }

  /// The highest priority of messages; 0 is a queue without priorities.
  let priorityMax: UInt32
  /// Messages that may be ready at once, and bytes of their bodies.
  let lengthMax: Int
  let bytesMax: Int
  let overflow: Overflow
  /// Refused publishes go where dead letters go.
  let sendsRefusedOn: Bool
  /// Nil if messages that leave without having been consumed are gone.
  let deadLetters: DeadLetterTarget?
  /// One consumer is served at a time, and the others stand by.
  let isSingleActive: Bool
  /// Nil if messages that are repeated come in as any others.
  let deduplication: Deduplication?

  /// How long messages live, in milliseconds; nil for ever.
  let messageTTL: Int64?
  /// How long the queue lives while nobody uses it, in milliseconds; nil for ever.
  let expires: Int64?
  /// The longest of both: ten years.
  static let lifeMax: Int64 = 315_360_000_000

  /// The settings of arguments that were checked; nil if they ask for nothing.
  init?(_ arguments: FieldTable) {
    priorityMax = UInt32(arguments["x-max-priority"]?.integer ?? 0)
    lengthMax = Self.limit(arguments["x-max-length"])
    bytesMax = Self.limit(arguments["x-max-length-bytes"])
    overflow =
      switch arguments["x-overflow"]?.text {
      case "reject-publish", "reject-publish-dlx": .rejectPublish
      default: .dropHead
      }
    sendsRefusedOn = arguments["x-overflow"]?.text == "reject-publish-dlx"
    deadLetters = Self.name(arguments["x-dead-letter-exchange"]).map {
      DeadLetterTarget(
        exchange: $0, key: Self.name(arguments["x-dead-letter-routing-key"]))
    }
    deduplication = Deduplication(arguments)
    isSingleActive = arguments["x-single-active-consumer"] == .bool(true)
    messageTTL = arguments["x-message-ttl"]?.integer.map { min($0, Self.lifeMax) }
    expires = arguments["x-expires"]?.integer.map { min($0, Self.lifeMax) }
    let isPlain = priorityMax == 0 && lengthMax == .max && bytesMax == .max
    let isTimeless = messageTTL == nil && expires == nil
    if isPlain, isTimeless, !isSingleActive, deadLetters == nil, deduplication == nil { return nil }
  }

  /// Of what a stream's consumer reads: it is looked after, but asks for nothing.
  static func ofReader() -> QueueSettings { QueueSettings() }

  private init() {
    priorityMax = 0
    lengthMax = .max
    bytesMax = .max
    overflow = .dropHead
    sendsRefusedOn = false
    deadLetters = nil
    isSingleActive = false
    deduplication = nil
    messageTTL = nil
    expires = nil
  }

  private static func limit(_ value: FieldValue?) -> Int {
    value?.integer.map { Int(clamping: $0) } ?? .max
  }

  private static func name(_ value: FieldValue?) -> Name? {
    guard case .string(let bytes)? = value else { return nil }
    return Name(bytes)
  }

  /// The bytes of what is ready have to be known.
  var countsBytes: Bool { bytesMax < .max }

  var refusesPublishes: Bool {
    overflow == .rejectPublish && (lengthMax < .max || bytesMax < .max)
  }

  var dropsHead: Bool { overflow == .dropHead && (lengthMax < .max || bytesMax < .max) }
}
