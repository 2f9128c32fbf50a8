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
    try requireText("alternate-exchange")
    switch kind {
    case .direct, .fanout, .topic, .headers, .modulusHash, .random, .localRandom: break
    case .consistentHash:
      for name in ["hash-header", "hash-property", "x-hash-on", "x-algorithm"] as [Name] {
        try requireText(name)
      }
      try checkHash(arguments)
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
