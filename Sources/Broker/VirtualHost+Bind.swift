import AMQP
import Base

extension VirtualHost {
  /// Binds a queue to an exchange. With an empty name it is the channel's current queue, and then an
  /// empty key is that queue's name.
  public func bindQueue(
    _ name: Name, to source: Name, key: Name, arguments: FieldTable, on channel: Channel
  ) throws(BrokerError) -> Committed {
    guard !source.isEmpty else { throw .isDefaultExchange }
    let queueName = try channel.resolved(name)
    let key = name.isEmpty && key.isEmpty ? queueName : key
    let exchange = try exchange(source)
    let found = try usable(queueName, by: channel.peer)
    return try bind(.destination(found), to: exchange, key, arguments, by: channel.peer)
  }

  public func unbindQueue(
    _ name: Name, from source: Name, key: Name, arguments: FieldTable, on channel: Channel
  ) throws(BrokerError) -> Committed {
    guard !source.isEmpty else { throw .isDefaultExchange }
    let queueName = try channel.resolved(name)
    let key = name.isEmpty && key.isEmpty ? queueName : key
    guard destinations[queueName] != nil else { return broker.catalog.known }
    let found = try usable(queueName, by: channel.peer)
    return try unbind(.destination(found), from: source, key, arguments, by: channel.peer)
  }

  /// Binds an exchange to another, so that messages of `source` go on to `destination`.
  public func bindExchange(
    _ destination: Name, to source: Name, key: Name, arguments: FieldTable, by peer: Peer
  ) throws(BrokerError) -> Committed {
    guard !source.isEmpty, !destination.isEmpty else { throw .isDefaultExchange }
    let from = try exchange(source)
    return try bind(.exchange(exchange(destination)), to: from, key, arguments, by: peer)
  }

  public func unbindExchange(
    _ destination: Name, from source: Name, key: Name, arguments: FieldTable, by peer: Peer
  ) throws(BrokerError) -> Committed {
    guard !source.isEmpty, !destination.isEmpty else { throw .isDefaultExchange }
    guard let exchange = exchanges[destination] else { return broker.catalog.known }
    return try unbind(.exchange(exchange), from: source, key, arguments, by: peer)
  }

  private func bind(
    _ end: BindingEnd, to source: Exchange, _ key: Name, _ arguments: FieldTable,
    by peer: Peer
  ) throws(BrokerError) -> Committed {
    guard bindings < broker.limits.bindingsMax else {
      throw .limitReached(.bindings(in: self.name, max: broker.limits.bindingsMax))
    }
    try broker.limits.check(arguments)
    try broker.requireRoom(for: "a binding")
    let binding = try Binding(
      source: source, destination: end, key: key, arguments: arguments)
    let isNew = insert(binding)
    if isNew { pay(for: binding, by: peer) }
    let isLogged = isNew && binding.isDurable
    let committed = isLogged ? broker.catalog.append(binding) : broker.catalog.known
    if isNew { broker.events.created(binding, in: self, by: peer.user) }
    if isNew, let recent = source.recent, recent.count > 0 {
      broker.chores.begin(HistoryReplay(recent.all, to: binding, in: self), for: peer)
      if isLogged { return .whenDurable(broker.journal.endPosition) }
    }
    return binding.isDurable ? committed : .now
  }

  /// A binding that came or went may have been dear.
  private func pay(for binding: Binding, by peer: Peer) {
    let steps = binding.source.steps(for: binding)
    if steps > 0 { broker.chores.begin(Payment(steps: steps), for: peer) }
  }

  private func unbind(
    _ end: BindingEnd, from name: Name, _ key: Name, _ arguments: FieldTable,
    by peer: Peer
  ) throws(BrokerError) -> Committed {
    guard let source = exchanges[name] else { return broker.catalog.known }
    let wanted = Binding(
      unchecked: source, destination: end, key: key, arguments: arguments)
    guard let binding = source.binding(like: wanted) else { return broker.catalog.known }
    remove(binding)
    pay(for: binding, by: peer)
    let isLogged = binding.isDurable
    let going = goesWithoutBindings(source) ? goesWithCascade(source) : []
    let committed = takeOut(
      going, with: { if isLogged { broker.catalog.appendRemoved(binding) } }, isLogged: isLogged,
      by: peer.user)
    broker.events.deleted(binding, in: self, by: peer.user)
    if !going.isEmpty {
      begin(Unbinding(self, going.map { .exchange($0) }, by: peer.user), for: peer)
    }
    // What only came along is promised to nobody.
    return isLogged ? committed : .now
  }
}
