import AMQP
import Base
import Filters
import Journal

/// A message that an exchange keeps for what will be bound to it.
final class KeptMessage {
  /// Counts all that the exchange has kept, from 1 on.
  let number: UInt64
  /// Exchange and routing key, each with its length in front.
  let names: [UInt8]
  let properties: [UInt8]
  let body: [UInt8]

  init(number: UInt64, names: [UInt8], properties: [UInt8], body: [UInt8]) {
    self.number = number
    self.names = names
    self.properties = properties
    self.body = body
  }

  /// About what it takes of memory.
  var bytes: Int { 192 + names.count + properties.count + body.count }
}

/// The last messages of an exchange of type `x-recent-history`, which whatever is bound to it gets. They are
/// bounded in number and in bytes; the oldest go.
final class RecentMessages {
  let exchange: UInt32
  /// Survives a restart, and so do persistent messages.
  let isDurable: Bool
  let lengthMax: Int
  // Unsafe but sound: the broker outlives all exchanges.
  private unowned(unsafe) let broker: Broker
  /// Each is retained once for its place.
  private var messages = Ring<Unmanaged<KeptMessage>>()
  private var bytes = 0
  private var lastNumber: UInt64 = 0
  private var isForgotten = false

  static let lengthDefault = 20
  private static let noStore: Name = "x-recent-history-no-store"

  /// `arguments` were checked.
  init(exchange: UInt32, _ arguments: FieldTable, isDurable: Bool, _ broker: Broker) {
    self.exchange = exchange
    self.isDurable = isDurable
    self.broker = broker
    lengthMax = arguments["x-recent-history-length"]?.integer.map { Int($0) } ?? Self.lengthDefault
  }

  deinit {
    while messages.count > 0 { messages.removeFirst().release() }
  }

  /// All of them, the oldest first.
  var all: [KeptMessage] {
    (0..<messages.count).map { messages[$0].takeUnretainedValue() }
  }
  var count: Int { messages.count }

  /// Whether a message is to be kept, as its headers say. `headers` is a well-formed table or nothing.
  static func wants(_ message: FilteredMessage, _ walk: inout RouteWalk) -> Bool {
    !HashSource.isTrue(noStore, in: message.headerTable, &walk)
  }

  /// A message as each of some exchanges keeps it. A body that was put together is in its draft.
  static func copies(
    _ keepers: [RecentMessages], _ names: RawSpan, _ properties: RawSpan, _ draft: RecordDraft?,
    _ body: RawSpan
  ) -> [Kept] {
    keepers.compactMap { keeper in
      let message =
        if let draft {
          keeper.copy(names: names, properties: properties, body: draft.body.bytes)
        } else {
          keeper.copy(names: names, properties: properties, body: body)
        }
      return message.map { Kept(recent: keeper, message: $0) }
    }
  }

  /// A message that is to be kept once it is stored.
  struct Kept {
    let recent: RecentMessages
    let message: KeptMessage
  }

  /// The message as it is kept; nil if it is too large for that.
  private func copy(names: RawSpan, properties: RawSpan, body: RawSpan) -> KeptMessage? {
    guard names.byteCount + properties.byteCount + body.byteCount < BrokerLimits.recentBytesMax
    else { return nil }
    return KeptMessage(
      number: lastNumber + 1, names: names.withUnsafeBytes { Array($0) },
      properties: properties.withUnsafeBytes { Array($0) }, body: body.withUnsafeBytes { Array($0) }
    )
  }

  /// Keeps a message, unless it was kept before. The oldest go for it.
  func keep(_ message: KeptMessage) {
    guard !isForgotten, message.number > lastNumber else { return }
    lastNumber = message.number
    messages.append(.passRetained(message))
    bytes += message.bytes
    broker.account.add(message.bytes, to: .remembered)
    while messages.count > lengthMax || bytes > BrokerLimits.recentBytesMax { forgetFirst() }
    if broker.account.isOverBudget(.remembered), messages.count > 1 { forgetFirst() }
  }

  /// The exchange is gone.
  func forgetAll() {
    isForgotten = true
    while messages.count > 0 { forgetFirst() }
  }

  private func forgetFirst() {
    let first = messages.removeFirst().takeRetainedValue()
    bytes -= first.bytes
    broker.account.add(-first.bytes, to: .remembered)
  }
}
