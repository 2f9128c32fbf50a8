import AMQP
import Base

/// The arguments that a queue can be declared with. Those that name something are checked and
/// compared when a queue is declared again; any others are kept and not compared.
public enum QueueArguments {
  enum Rule {
    /// A whole number that is not negative, and one above zero.
    case count, positiveCount
    /// Milliseconds, of which there can be too many.
    case life
    /// The same above zero.
    case positiveLife
    case priority
    /// Any whole number.
    case number
    case flag
    /// How many values of messages are remembered, and for how long; also as text.
    case rememberedCount, rememberedLife
    /// What names an exchange is refused in words of its own.
    case text, exchange
    case queueType
    case overflow, strategy
    /// Whatever old clients send.
    case anything
  }

  private static let rules: [Name: Rule] = [
    "x-message-ttl": .life, "x-expires": .positiveLife, "x-max-length": .count,
    "x-max-length-bytes": .count, "x-max-priority": .priority, "x-overflow": .overflow,
    "x-dead-letter-exchange": .exchange, "x-dead-letter-routing-key": .text,
    "x-message-deduplication": .flag, "x-cache-size": .rememberedCount,
    "x-cache-ttl": .rememberedLife, "x-deduplication-header": .text,
    "x-single-active-consumer": .flag, "x-queue-type": .queueType, "x-queue-mode": .anything,
    "x-dead-letter-strategy": .strategy, "x-quorum-initial-group-size": .positiveCount,
    "x-queue-version": .anything, "x-delivery-limit": .number,
    LockTimes.lockArgument: .life, LockTimes.consumerArgument: .life,
  ]

  /// The arguments, if their values are possible.
  static func checked(
    _ arguments: FieldTable, queue: Name, vhost: Name
  ) throws(BrokerError) -> FieldTable {
    for entry in arguments.entries {
      guard let rule = rules[entry.name] else { continue }
      if rule == .exchange, entry.value.text == nil {
        throw .mistypedArgument(
          entry.name, of: .queue(queue, in: vhost), type: entry.value.typeName)
      }
      guard let reason = problem(entry.value, rule) else { continue }
      throw .refusedArgument(entry.name, of: .subject(.queue(queue, in: vhost)), reason: reason)
    }
    if arguments["x-dead-letter-routing-key"] != nil, arguments["x-dead-letter-exchange"] == nil {
      throw .refusedArgument(
        "x-dead-letter-routing-key", of: .subject(.queue(queue, in: vhost)),
        reason: "routing_key_but_no_dlx_defined")
    }
    return arguments
  }

  /// Arguments that streams have beside their type.
  private static let streamRules: [Name: Rule] = [
    "x-max-length-bytes": .count, "x-initial-cluster-size": .positiveCount,
    "x-queue-leader-locator": .text, "x-stream-filter-size-bytes": .positiveCount,
  ]
  private static let streamSettings: [Name] = [
    "x-stream-partitions", "x-stream-partition-key", "x-max-age",
    "x-stream-max-segment-size-bytes",
  ]

  /// The arguments of a stream, if their values are possible.
  static func checked(
    ofStream arguments: FieldTable, _ queue: Name, vhost: Name
  ) throws(BrokerError) -> FieldTable {
    for entry in arguments.entries {
      let reason: String?
      if streamSettings.contains(entry.name) {
        reason = StreamSettings.problem(entry.name, entry.value)
      } else if let rule = streamRules[entry.name] {
        reason = problem(entry.value, rule)
      } else if rules[entry.name] != nil, entry.name != "x-queue-type" {
        throw .refusedForType(entry.name, queue: queue, in: vhost, type: "stream")
      } else {
        reason = nil
      }
      guard let reason else { continue }
      throw .refusedArgument(entry.name, of: .subject(.queue(queue, in: vhost)), reason: reason)
    }
    return arguments
  }

  /// The mistake in a value, if there is one.
  static func problem(_ value: FieldValue, _ rule: Rule) -> String? {
    switch rule {
    case .anything: return nil
    case .number:
      return value.integer == nil ? noInteger(value) : nil
    case .rememberedCount, .rememberedLife: return Deduplication.problem(value, rule)
    case .flag:
      if case .bool = value { return nil }
      return "{unacceptable_type,\(value.typeName)}"
    case .text, .exchange, .overflow, .strategy, .queueType:
      guard let text = value.text else { return "{unacceptable_type,\(value.typeName)}" }
      return textProblem(text, rule)
    case .count, .positiveCount, .life, .positiveLife, .priority:
      guard let number = value.integer else { return noInteger(value) }
      return numberProblem(number, rule)
    }
  }

  static func noInteger(_ value: FieldValue) -> String {
    "\"expected integer, got \(value.typeName)\""
  }

  private static func numberProblem(_ number: Int64, _ rule: Rule) -> String? {
    if number < 0 { return "{value_negative,\(number)}" }
    if rule == .positiveLife || rule == .positiveCount, number == 0 { return "{value_zero,0}" }
    if rule == .life || rule == .positiveLife, number > QueueSettings.lifeMax {
      return "{value_too_large,\(number)}"
    }
    if rule == .priority, number > 255 { return "{max_value_exceeded,\(number)}" }
    return nil
  }

  private static func textProblem(_ text: String, _ rule: Rule) -> String? {
    switch rule {
    case .queueType where text != "classic" && text != "quorum":
      "\"unsupported queue type '\(text)'\""
    case .overflow where !["drop-head", "reject-publish", "reject-publish-dlx"].contains(text):
      "invalid_overflow"
    case .strategy where !["at-most-once", "at-least-once"].contains(text):
      "invalid_dlx_strategy"
    default: nil
    }
  }

  /// Those that change nothing here: what only other brokers know, and what nobody knows.
  public static func withoutEffect(in arguments: FieldTable) -> [Name] {
    let isStream = arguments["x-queue-type"] == .string("stream")
    return arguments.entries.lazy.map(\.name).filter { name in
      if let rule = rules[name] { return rule == .anything || forOthers.contains(name) }
      let isOfStreams = streamRules[name] != nil || streamSettings.contains(name)
      return forOthers.contains(name) || !(isStream && isOfStreams)
    }
  }

  private static let forOthers: Set<Name> = [
    "x-quorum-initial-group-size", "x-initial-cluster-size", "x-queue-leader-locator",
    "x-stream-filter-size-bytes",
  ]

  struct Difference: Equatable {
    let name: Name
    let received: String
    let current: String
  }

  /// The first known argument in which a new declaration differs. Integers are the same whatever
  /// their width; no queue type is the classic one.
  static func difference(_ received: FieldTable, _ current: FieldTable) -> Difference? {
    for name in (rules.keys + streamSettings).sorted() where rules[name] != .anything {
      let new = normalised(name, received[name])
      let old = normalised(name, current[name])
      guard !equal(new, old) else { continue }
      return Difference(
        name: name, received: described(new, beside: old), current: described(old, beside: new))
    }
    return nil
  }

  private static func normalised(_ name: Name, _ value: FieldValue?) -> FieldValue? {
    name == "x-queue-type" && value == nil ? .string("classic") : value
  }

  private static func equal(_ left: FieldValue?, _ right: FieldValue?) -> Bool {
    if let left = left?.integer, let right = right?.integer { return left == right }
    return left == right
  }

  /// Only the value when both have the same type; with its type otherwise.
  static func described(_ value: FieldValue?, beside other: FieldValue?) -> String {
    guard let value else { return "none" }
    let text = value.text ?? value.integer.map(String.init) ?? "\(value)"
    if other?.typeName == value.typeName { return "'\(text)'" }
    return "the value '\(text)' of type '\(value.typeName)'"
  }
}
