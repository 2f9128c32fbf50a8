/// The exchanges that go with their last binding and have bindings to a queue or an exchange, and how many
/// each has. So it is known what goes with a destination without a look at its bindings, which may be
/// very many.
struct Dependents {
  /// What they depend on is deleted, and each has it in its `leavingCount`.
  private(set) var areCounted = false
  /// nil before there was one: most destinations have none.
  private var counts: SpreadDictionary<ObjectKey, (exchange: Exchange, count: Int)>?

  mutating func add(_ exchange: Exchange) {
    var all = counts.take() ?? SpreadDictionary()
    let key = ObjectKey(exchange)
    all[key] = (exchange, (all[key]?.count ?? 0) + 1)
    counts = all
  }

  mutating func remove(_ exchange: Exchange) {
    let key = ObjectKey(exchange)
    guard let found = counts?[key] else { return }
    counts?[key] = found.count > 1 ? (exchange, found.count - 1) : nil
  }

  /// All of them, which are to be counted now, in the order of their ids, so that the log does not depend on
  /// chance; nil if they are more than `limit`.
  mutating func count(atMost limit: Int) -> [(exchange: Exchange, count: Int)]? {
    let counts = counts ?? SpreadDictionary()
    guard counts.count <= limit else { return nil }
    areCounted = true
    return counts.values.sorted { $0.exchange.id < $1.exchange.id }
  }
}
