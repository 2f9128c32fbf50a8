import Client

/// Where a dead letter was published, before it died for the first time, by the headers that brokers give it.
///
/// `x-death` has an entry for each queue and reason, the last death first; a message that dies again in the same
/// way moves its entry to the front. So the first death is the entry that `x-first-death-queue` and
/// `x-first-death-reason` name, which never change, and only without those the last entry.
struct DeadLetterOrigin: Equatable, Sendable {
  let exchange: Name
  /// At least one.
  let keys: [Name]

  private static let deaths: Name = "x-death"
  /// What a message that is sent on its way anew does not have: its deaths, and how often it came back.
  private static let history: Set<Name> = [
    deaths, "x-first-death-reason", "x-first-death-queue", "x-first-death-exchange",
    "x-last-death-reason", "x-last-death-queue", "x-last-death-exchange", "x-delivery-count",
  ]
  private static let copies: Name = "CC"

  /// Nil if the headers do not tell.
  init?(_ headers: FieldTable?) {
    guard let headers, case .array(let values)? = headers[Self.deaths] else { return nil }
    var deaths: [FieldTable] = []
    for case .table(let death) in values { deaths.append(death) }
    let first = deaths.first {
      $0["queue"] != nil && $0["queue"] == headers["x-first-death-queue"]
        && $0["reason"] == headers["x-first-death-reason"]
    }
    guard let death = first ?? deaths.last, let exchange = Self.name(death["exchange"]) else {
      return nil
    }
    // What came by the default exchange belonged into that one queue, whatever copies others had.
    if exchange.isEmpty {
      guard let queue = Self.name(death["queue"]) else { return nil }
      keys = [queue]
    } else {
      guard case .array(let values)? = death["routing-keys"] else { return nil }
      keys = values.compactMap { Self.name($0) }
      guard !keys.isEmpty else { return nil }
    }
    self.exchange = exchange
  }

  /// The properties to send a dead letter on its way with. Those of its keys that are not its routing key are copies.
  func properties(
    _ properties: BasicProperties, keepingHistory: Bool
  ) -> BasicProperties {
    var properties = properties
    var headers = properties.headers ?? FieldTable()
    headers.entries.removeAll {
      $0.name == Self.copies || !keepingHistory && Self.history.contains($0.name)
    }
    if keys.count > 1 {
      let copies = keys.dropFirst().map { FieldValue.string($0.bytes) }
      headers.entries.append(.init(name: Self.copies, value: .array(copies)))
    }
    properties.headers = headers.isEmpty ? nil : headers
    return properties
  }

  private static func name(_ value: FieldValue?) -> Name? {
    guard case .string(let bytes)? = value, bytes.count <= Name.sizeMax else { return nil }
    return Name(bytes)
  }
}
