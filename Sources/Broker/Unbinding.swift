import Base

/// Takes the bindings of deleted queues and exchanges out of their other ends. What is deleted is out of
/// its table and of all routes before this begins, with the exchanges that go with their last binding
/// (`VirtualHost.cascade`); that the log has one record of each is enough, since reading the log does
/// the same. Of more exchanges than a cascade has at most, the rest goes here, one by one, and a stop in
/// between can leave some of them.
final class Unbinding: Chore {
  enum Deleted {
    case destination(Destination)
    case exchange(Exchange)
  }

  private let vhost: VirtualHost
  private var deleted: [Deleted]
  private let actor: Name
  /// Bindings from an exchange that are still to be removed.
  private var batch: [Binding] = []

  /// A binding touches some places that are far apart.
  private static let stepsPerBinding = 6
  private static let stepsPerExchange = 4

  init(_ vhost: VirtualHost, _ deleted: [Deleted], by actor: Name) {
    self.vhost = vhost
    self.actor = actor
    self.deleted = deleted
  }

  /// All at once, when nobody waits.
  func finish() {
    var steps = Int.max
    _ = advance(&steps)
  }

  func advance(_ steps: inout Int) -> Bool {
    while let binding = next() {
      vhost.remove(binding)
      vhost.broker.events.deleted(binding, in: vhost, by: actor)
      let source = binding.source
      if vhost.goesWithoutBindings(source) {
        let going = vhost.goesWithCascade(source)
        vhost.takeOut(going, isLogged: false, by: actor)
        deleted += going.map { .exchange($0) }
        steps -= Self.stepsPerExchange * going.count
      }
      steps -= Self.stepsPerBinding + source.steps(for: binding)
      guard steps > 0 else { return false }
    }
    return true
  }

  /// The next binding to remove; nil when all are.
  private func next() -> Binding? {
    while true {
      while let binding = batch.popLast() {
        if !binding.isGone { return binding }
      }
      guard let last = deleted.last else { return nil }
      switch last {
      case .destination(let destination):
        if let binding = destination.bindings.last { return binding }
      case .exchange(let exchange):
        batch = exchange.takeSome()
        if !batch.isEmpty { continue }
        if let binding = exchange.incoming.last { return binding }
      }
      deleted.removeLast()
    }
  }
}
