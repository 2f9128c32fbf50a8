import AMQP
import Base

/// Where dead letters go: by the arguments of their queue, or by their own headers, which come first.
struct DeadLetterTarget: Equatable {
  let exchange: Name
  /// In place of their own routing keys; nil keeps those.
  let key: Name?

  static let exchangeHeader: StaticString = "x-dead-letter-exchange"
  static let keyHeader: StaticString = "x-dead-letter-routing-key"
  private static let exchangeName: Name = "x-dead-letter-exchange"
  private static let keyName: Name = "x-dead-letter-routing-key"

  init(exchange: Name, key: Name?) {
    self.exchange = exchange
    self.key = key
  }

  /// Of a message with these headers in a queue with this target; nil if it is not sent on. A header that is
  /// no name counts as one that is not there.
  init?(_ headers: FieldTable, or queue: DeadLetterTarget?) {
    guard let exchange = Self.name(headers[Self.exchangeName]) ?? queue?.exchange else {
      return nil
    }
    self.exchange = exchange
    key = Self.name(headers[Self.keyName]) ?? queue?.key
  }

  private static func name(_ value: FieldValue?) -> Name? {
    guard case .string(let bytes)? = value, bytes.count <= Name.sizeMax else { return nil }
    return Name(bytes)
  }

  /// The headers of a dead letter do not send it on once more.
  static func remove(from headers: inout FieldTable) {
    headers.entries.removeAll { $0.name == exchangeName || $0.name == keyName }
  }

  /// A message names an exchange of its own. Costs the test of a bit if it has no headers, and little if their
  /// bytes have no such name.
  static func isNamed(in properties: RawSpan) -> Bool {
    guard let place = PropertyFlags.headers.place(in: properties) else { return false }
    let headers = properties.extracting(place)
    return HeaderLookup.mayHave(exchangeHeader, in: headers)
      && HeaderLookup.place(of: exchangeHeader, in: headers) != nil
  }
}
