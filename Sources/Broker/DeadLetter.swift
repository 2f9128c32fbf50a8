import AMQP
import Base

/// Why a message leaves its queue without having been consumed; as clients read it.
enum DeathReason: String {
  case rejected
  case expired
  case maxLength = "maxlen"
  case deliveryLimit = "delivery_limit"
}

/// A message as it is sent on from the queue in which it died: with what has become of it among its headers,
/// in the form that RabbitMQ gives them and its clients parse.
struct DeadLetter {
  let exchange: Name
  /// The routing keys that it is sent on with.
  let keys: [Name]
  /// Exchange and first key, each with its length in front.
  let names: [UInt8]
  let properties: [UInt8]
  /// Where the properties have the table of headers, with its length.
  let headers: Range<Int>
  let isPersistent: Bool
  /// The queues in which it died since it was last rejected, the last first; empty if it was rejected now.
  private let rounds: [FieldValue]

  private static let deaths: Name = "x-death"

  /// Nil if neither the queue nor the message says where it is sent on.
  init?(
    names: RawSpan, properties: RawSpan, of queue: Queue, for reason: DeathReason, now: Int64
  ) {
    var decoded = MessageBytes.decode(properties)
    var table = decoded.headers ?? FieldTable()
    guard let target = DeadLetterTarget(table, or: queue.settings?.deadLetters) else { return nil }
    DeadLetterTarget.remove(from: &table)
    let (exchange, key) = RouteMemo.split(names)
    let copies = Self.copies(table)
    let history = Self.history(
      table,
      adding: Death(
        queue: queue.name, reason: reason, exchange: exchange, keys: [key] + copies,
        seconds: UInt64(max(0, now)) / 1000, expiration: decoded.expiration))
    if target.key != nil { table.entries.removeAll { $0.name == "CC" } }
    let unmarked = table
    Self.set(Self.deaths, .array(history.map { .table($0) }), in: &table)
    let circumstances = [
      ("exchange", exchange), ("queue", queue.name), ("reason", Name(reason.rawValue)),
    ]
    for (name, value) in circumstances {
      let first = Name("x-first-death-\(name)")
      if table[first] == nil { Self.set(first, .string(value.bytes), in: &table) }
    }
    for (name, value) in circumstances {
      Self.set(Name("x-last-death-\(name)"), .string(value.bytes), in: &table)
    }
    // A client may have sent as many values as a table can have, or a frame: nothing is added to those.
    if !MessageBytes.isReadable(table) { table = unmarked }
    decoded.headers = table
    decoded.expiration = nil
    self.exchange = target.exchange
    let first = target.key ?? key
    keys = target.key == nil ? [key] + copies : [first]
    isPersistent = decoded.deliveryMode == 2
    self.names = MessageBytes.encoded {
      $0.append(target.exchange)
      $0.append(first)
    }
    self.properties = MessageBytes.encoded { decoded.encode(into: &$0) }
    headers = MessageBytes.headers(self.properties)
    rounds = Self.rounds(history)
  }

  /// As another one, of a message with other properties.
  init(
    _ letter: DeadLetter, properties: [UInt8], headers: Range<Int>, isPersistent: Bool
  ) {
    exchange = letter.exchange
    keys = letter.keys
    names = letter.names
    rounds = letter.rounds
    self.properties = properties
    self.headers = headers
    self.isPersistent = isPersistent
  }

  /// The message has come back to a queue without anybody having rejected it: it would go round for ever.
  func wentRound(_ queue: Name) -> Bool {
    !rounds.isEmpty && rounds.contains(.string(queue.bytes))
  }

  // MARK: History

  private struct Death {
    let queue: Name
    let reason: DeathReason
    let exchange: Name
    let keys: [Name]
    let seconds: UInt64
    let expiration: Name?

    var table: FieldTable {
      var table: FieldTable = [
        "count": .int64(1), "reason": .string(reason.rawValue), "queue": .string(queue.bytes),
        "time": .timestamp(seconds), "exchange": .string(exchange.bytes),
        "routing-keys": .array(keys.map { .string($0.bytes) }),
      ]
      if let expiration {
        DeadLetter.set("original-expiration", .string(expiration.bytes), in: &table)
      }
      return table
    }
  }

  /// The deaths so far, the last first. A death in the same queue for the same reason is counted up, and keeps
  /// the time of the first.
  private static func history(_ headers: FieldTable, adding death: Death) -> [FieldTable] {
    var all: [FieldTable] = []
    if case .array(let values)? = headers[deaths] {
      for case .table(let table) in values { all.append(table) }
    }
    let index = all.firstIndex {
      $0["queue"] == .string(death.queue.bytes)
        && $0["reason"] == .string(death.reason.rawValue)
    }
    guard let index else { return [death.table] + all }
    var again = all.remove(at: index)
    let count = (again["count"]?.integer ?? 0) &+ 1
    set("count", .int64(count), in: &again)
    return [again] + all
  }

  private static func rounds(_ history: [FieldTable]) -> [FieldValue] {
    history.prefix { $0["reason"] != .string(DeathReason.rejected.rawValue) }
      .compactMap { $0["queue"] }
  }

  /// The keys of the header CC, which was looked at when the message was published.
  private static func copies(_ headers: FieldTable) -> [Name] {
    guard case .array(let values)? = headers["CC"] else { return [] }
    return values.compactMap { if case .string(let bytes) = $0 { Name(bytes) } else { nil } }
  }

  private static func set(_ name: Name, _ value: FieldValue, in table: inout FieldTable) {
    let entry = FieldTable.Entry(name: name, value: value)
    if let index = table.entries.firstIndex(where: { $0.name == name }) {
      table.entries[index] = entry
    } else {
      table.entries.append(entry)
    }
  }
}
