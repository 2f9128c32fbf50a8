import Base

/// What goes with what goes: an exchange that was declared to do so, with its last binding, and so on up
/// the chain. It is known at once, and stands in the log as one, however long the bindings take that are
/// then taken out (`Unbinding`).
extension VirtualHost {
  /// Exchanges that are looked at for it at once. Of what more than that depend on, each goes later, when its
  /// last binding is taken out; a stop in between can leave some.
  static let cascadeMax = 4096

  /// The exchanges that go with what is deleted: all of whose bindings lead to such. They count as deleted
  /// from now on, and are still to be taken out of the table.
  func cascade(from deleted: BindingEnd) -> [Exchange] {
    var going: [Exchange] = []
    var next = [deleted]
    var left = Self.cascadeMax
    while let end = next.popLast() {
      guard let dependents = end.countDependents(atMost: left) else { continue }
      left -= dependents.count
      for (exchange, count) in dependents {
        exchange.leavingCount += count
        guard goesWithoutBindings(exchange) else { continue }
        exchange.isDeleted = true
        going.append(exchange)
        next.append(.exchange(exchange))
      }
    }
    return going
  }

  /// All its bindings are gone, or lead to what is deleted. The log says itself, when it is being read, that
  /// an exchange went.
  func goesWithoutBindings(_ exchange: Exchange) -> Bool {
    exchange.isAutoDelete && exchange.bindings.count == exchange.leavingCount
      && !exchange.isDeleted && !broker.isRecovering
  }

  /// The exchange goes, since it has no binding any more, and what goes with it.
  func goesWithCascade(_ exchange: Exchange) -> [Exchange] {
    exchange.isDeleted = true
    return [exchange] + cascade(from: .exchange(exchange))
  }

  /// Takes exchanges out of the table; the log gets that as one with what `body` tells it.
  @discardableResult
  func takeOut(
    _ exchanges: [Exchange], with body: () -> Void = {}, isLogged: Bool, by actor: Name
  ) -> Committed {
    let count = (isLogged ? 1 : 0) + exchanges.count(where: \.isDurable)
    let committed = broker.catalog.change(recordCount: broker.isRecovering ? 0 : count) {
      body()
      for exchange in exchanges { takeOut(exchange) }
    }
    // Behind the group of the log, which is there as a whole.
    for exchange in exchanges { broker.events.deleted(exchange, in: self, by: actor) }
    return committed
  }

  /// Takes an exchange out of the table; its bindings are still to be taken out.
  private func takeOut(_ exchange: Exchange) {
    exchange.isDeleted = true
    forget(exchange)
    if exchange.isDurable, !broker.isRecovering { broker.catalog.appendDeleted(exchange) }
    broker.exchangeNumbers.giveBack(exchange.id)
  }
}
