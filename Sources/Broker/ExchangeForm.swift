import AMQP
import Base

/// What an exchange's type and arguments come to: how it routes, and whether it keeps messages back before.
struct ExchangeForm {
  let kind: Exchange.Kind
  /// Messages with the header `x-delay` wait here for their time.
  let isDelaying: Bool

  /// The type of exchanges that delay and route as another type, which `x-delayed-type` names.
  private static let delayingType: Name = "x-delayed-message"

  /// The form of arguments that may be a client's. `name` is for the error's text.
  init(type: Name, arguments: FieldTable, name: Name, vhost: Name) throws(BrokerError) {
    let subject = BrokerError.ArgumentHolder.subject(.exchange(name, in: vhost))
    guard type == Self.delayingType else {
      guard let kind = Exchange.Kind(rawValue: type.description) else {
        throw .unknownExchangeType(type)
      }
      self.kind = kind
      isDelaying = try Self.flag(arguments, subject)
      return
    }
    guard let inner = arguments["x-delayed-type"] else {
      throw .refusedArgument(
        "x-delayed-type", of: subject, reason: "'x-delayed-type' must be an existing exchange type")
    }
    guard let text = inner.text, let kind = Exchange.Kind(rawValue: text) else {
      throw .refusedArgument(
        "x-delayed-type", of: subject,
        reason: "'\(inner.text ?? inner.typeName)' is not a type that messages are routed by")
    }
    self.kind = kind
    isDelaying = true
  }

  /// One that needs no arguments.
  init(_ kind: Exchange.Kind) {
    self.kind = kind
    isDelaying = false
  }

  private static func flag(
    _ arguments: FieldTable, _ subject: BrokerError.ArgumentHolder
  ) throws(BrokerError) -> Bool {
    guard let value = arguments["x-delay"] else { return false }
    guard case .bool(let delays) = value else {
      throw .refusedArgument(
        "x-delay", of: subject, reason: "{unacceptable_type,\(value.typeName)}")
    }
    return delays
  }

  /// Arguments that say what an exchange does; a declaration that differs in one is for another exchange.
  static let arguments: [Name] = ["alternate-exchange", "x-delayed-type", "x-delay"]
}
