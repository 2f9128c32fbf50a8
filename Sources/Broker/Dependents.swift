/// The exchanges that go with their last binding and have bindings to a queue or an exchange, and how many
/// each has. So it is known what goes with a destination without a look at its bindings, which may be
/// very many.
struct Dependents {
  /// What they depend on is deleted, and each has it in its `leavingCount`.
  private(set) var areCounted = false
  private var counts: [ObjectIdentifier: (exchange: Exchange, count: Int)] = [:]

  mutating func add(_ exchange: Exchange) {
    counts[ObjectIdentifier(exchange), default: (exchange, 0)].count += 1
  }

  mutating func remove(_ exchange: Exchange) {
    let key = ObjectIdentifier(exchange)
    guard let found = counts[key] else { return }
    counts[key] = found.count > 1 ? (exchange, found.count - 1) : nil
  }

  /// All of them, which are to be counted now, in the order of their ids, so that the log does not depend on
  /// chance; nil if they are more than `limit`.
  mutating func count(atMost limit: Int) -> [(exchange: Exchange, count: Int)]? {
    guard counts.count <= limit else { return nil }
    areCounted = true
    return counts.values.sorted { $0.exchange.id < $1.exchange.id }
  }
}
