import AMQP
import Base

/// The arguments that an exchange can be declared with. Those that its type has are checked; any others are
/// kept.
enum ExchangeArguments {
  /// The mistake in them, if there is one.
  static func check(
    _ arguments: FieldTable, of kind: Exchange.Kind, exchange: Name, vhost: Name
  ) throws(BrokerError) {
    func requireText(_ name: Name) throws(BrokerError) {
      guard let value = arguments[name], value.text == nil else { return }
      throw .refusedArgument(
        name, of: .subject(.exchange(exchange, in: vhost)),
        reason: "{unacceptable_type,\(value.typeName)}")
    }
    if let value = arguments["alternate-exchange"], value.text == nil {
      throw .mistypedArgument(
        "alternate-exchange", of: .exchange(exchange, in: vhost), type: value.typeName)
    }
    if asksForDeduplication(arguments, of: kind) {
      try requireText("x-deduplication-header")
      try checkCache(arguments)
    }
    if let value = arguments["x-message-deduplication"], value.typeName != "bool" {
      throw .refusedArgument(
        "x-message-deduplication", of: .subject(.exchange(exchange, in: vhost)),
        reason: "{unacceptable_type,\(value.typeName)}")
    }
    switch kind {
    case .direct, .fanout, .topic, .headers, .modulusHash, .random, .localRandom, .deduplication:
      break
    case .recentHistory: try checkHistory(arguments)
    case .consistentHash:
      for name in ["hash-header", "hash-property", "x-hash-on", "x-algorithm"] as [Name] {
        try requireText(name)
      }
      try checkHash(arguments)
    }
  }

  private static func asksForDeduplication(
    _ arguments: FieldTable, of kind: Exchange.Kind
  ) -> Bool {
    kind == .deduplication || arguments["x-message-deduplication"] == .bool(true)
  }

  /// What an exchange remembers of messages, if it looks for repeated ones.
  static func deduplication(_ exchange: Exchange) -> Deduplication? {
    Deduplication(exchange.arguments, isAskedFor: exchange.kind == .deduplication)
  }

  private static func checkCache(_ arguments: FieldTable) throws(BrokerError) {
    if let size = arguments["x-cache-size"] {
      guard let number = Deduplication.number(size), number > 0 else {
        throw .refusedExchange(
          reason: "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0")
      }
      guard number <= BrokerLimits.rememberedValuesMax else {
        throw .refusedExchange(
          reason: "Invalid argument, 'x-cache-size' must be"
            + " at most \(BrokerLimits.rememberedValuesMax)")
      }
    }
    if let ttl = arguments["x-cache-ttl"] {
      guard let number = Deduplication.number(ttl), number > 0 else {
        throw .refusedExchange(
          reason: "Invalid argument, 'x-cache-ttl' must be an integer greater than 0")
      }
    }
  }

  private static func checkHistory(_ arguments: FieldTable) throws(BrokerError) {
    guard let length = arguments["x-recent-history-length"] else { return }
    let told = length.text.map { "<<\"\($0)\">>" } ?? length.integer.map { "\($0)" } ?? "\(length)"
    guard let number = length.integer, number > 0 else {
      throw .refusedExchange(
        reason: "Invalid argument \(told), 'x-recent-history-length' must be a positive integer")
    }
    guard number <= BrokerLimits.recentMessagesMax else {
      throw .refusedExchange(
        reason: "Invalid argument \(told), 'x-recent-history-length' must be"
          + " at most \(BrokerLimits.recentMessagesMax)")
    }
  }

  private static func checkHash(_ arguments: FieldTable) throws(BrokerError) {
    let header: Name = arguments["hash-header"] == nil ? "x-hash-on" : "hash-header"
    if let property = arguments["hash-property"]?.text {
      guard arguments[header] == nil else {
        throw .refusedExchange(reason: "\(header) and hash-property are mutually exclusive")
      }
      guard HashSource.property(property) != nil else {
        throw .refusedExchange(reason: "Unsupported property: \(property)")
      }
    }
    // There is one algorithm, which does what both of these are for.
    if let algorithm = arguments["x-algorithm"]?.text?.lowercased(),
      algorithm != "ring", algorithm != "jump"
    {
      throw .refusedExchange(reason: "Unsupported algorithm: \(algorithm)")
    }
  }
}
