import AMQP
import Base

/// A name space of exchanges and queues with the bindings between them.
public final class VirtualHost {
  public let name: Name
  unowned(unsafe) let broker: Broker

  private(set) var exchanges: [Name: Exchange] = [:]
  private(set) var queues: [Name: Queue] = [:]
  private var bindingCount = 0
  /// Goes up with everything that may change a route.
  private(set) var bindingGeneration = 0
  private var routes = RouteCache()
  private var routeMark: UInt64 = 0
  /// Channels that wait for direct replies, by their address.
  private var replyChannels: [Name: Channel] = [:]
  /// What consumers of direct replies are said to consume from.
  private(set) lazy var replyQueue = Queue(
    id: 0, name: Name(DirectReplies.queueName), vhost: self, isDurable: false,
    isAutoDelete: false, owner: nil, arguments: FieldTable())

  init(name: Name, broker: Broker) {
    self.name = name
    self.broker = broker
    let predeclared: [(Name, Exchange.Kind, Bool)] = [
      ("", .direct, false), ("amq.direct", .direct, false), ("amq.fanout", .fanout, false),
      ("amq.topic", .topic, false), ("amq.headers", .headers, false),
      ("amq.match", .headers, false), ("amq.rabbitmq.trace", .topic, true),
    ]
    for (index, (name, kind, isInternal)) in predeclared.enumerated() {
      exchanges[name] = Exchange(
        id: UInt32(index + 1), name: name, kind: kind, isDurable: true, isInternal: isInternal)
    }
  }

  /// Ids up to this one belong to exchanges that every virtual host has.
  static let predeclaredIDMax: UInt32 = 15

  // MARK: Looking up

  func exchange(_ name: Name) throws(PeerError) -> Exchange {
    guard let exchange = exchanges[name] else {
      throw .noExchange(exchange: name, vhost: self.name)
    }
    return exchange
  }

  func queue(_ name: Name) throws(PeerError) -> Queue {
    guard let queue = queues[name] else { throw .noQueue(queue: name, vhost: self.name) }
    return queue
  }

  /// The queue, unless it is exclusive to another connection.
  func accessible(_ name: Name, by peer: Peer) throws(PeerError) -> Queue {
    let queue = try queue(name)
    guard !queue.isExclusive || queue.owner === peer || Sabotage.is(.opensLockedQueue) else {
      throw .queueLocked(queue: name, vhost: self.name)
    }
    return queue
  }

  /// The exchange that a client publishes to.
  func publishable(_ name: Name) throws(PeerError) -> Exchange {
    let exchange = try exchange(name)
    guard !exchange.isInternal else {
      throw .internalExchange(exchange: name, vhost: self.name)
    }
    return exchange
  }

  // MARK: The table

  func insert(_ exchange: Exchange) {
    exchanges[exchange.name] = exchange
    changed()
  }

  func insert(_ queue: Queue) {
    queues[queue.name] = queue
    changed()
  }

  var exchangeCount: Int { exchanges.count }
  var queueCount: Int { queues.count }
  var bindings: Int { bindingCount }

  /// Adds a row; false if it was there.
  func insert(_ binding: Binding) -> Bool {
    let identity = BindingIdentity(
      destination: binding.destination, key: binding.key, arguments: binding.arguments)
    guard binding.source.bindings[identity] == nil else { return false }
    binding.source.add(binding, identity)
    switch binding.destination {
    case .queue(let queue): queue.bindings.append(binding)
    case .exchange(let exchange): exchange.incoming.append(binding)
    }
    bindingCount += 1
    changed()
    return true
  }

  /// Removes a row; false if there is none.
  func remove(_ identity: BindingIdentity, from source: Exchange) -> Bool {
    guard let binding = source.bindings[identity] else { return false }
    source.remove(identity)
    switch binding.destination {
    case .queue(let queue): queue.bindings.removeAll { $0 === binding }
    case .exchange(let exchange): exchange.incoming.removeAll { $0 === binding }
    }
    bindingCount -= 1
    changed()
    return true
  }

  /// Deletes a queue with its messages, bindings and consumers; returns how many messages were ready.
  @discardableResult
  func remove(_ queue: Queue) -> Int {
    guard !queue.isDeleted else { return 0 }
    let count = queue.readyCount
    queues[queue.name] = nil
    let isSilent = queue.isAutoDelete && Sabotage.is(.revivesAutoDeleteQueue)
    if queue.isDurable, !broker.isRecovering, !isSilent { broker.catalog.appendDeleted(queue) }
    for consumer in queue.consumers {
      queue.remove(consumer)
      consumer.channel.queueDeleted(consumer)
    }
    queue.dropAll()
    broker.letGo(queue)
    if queue.unacknowledgedCount > 0 { broker.keepUntilSettled(queue) }
    let bindings = queue.bindings
    queue.bindings = []
    remove(bindings.compactMap(detach))
    queue.owner?.exclusiveQueues.removeAll { $0 === queue }
    changed()
    return count
  }

  /// Deletes an exchange with all bindings from and to it.
  func remove(_ exchange: Exchange) { remove([exchange]) }

  /// Deletes exchanges, and those that go with their last binding, in chains of any length.
  private func remove(_ exchanges: [Exchange]) {
    var doomed = exchanges
    while let exchange = doomed.popLast() {
      if !exchange.isDeleted { doomed += takeOut(exchange) }
    }
  }

  /// Takes an exchange out of the table; returns those that go with it.
  private func takeOut(_ exchange: Exchange) -> [Exchange] {
    exchange.isDeleted = true
    exchanges[exchange.name] = nil
    if exchange.isDurable, !broker.isRecovering { broker.catalog.appendDeleted(exchange) }
    bindingCount -= exchange.bindings.count
    for destination in exchange.destinations {
      switch destination {
      case .queue(let queue): queue.bindings.removeAll { $0.source === exchange }
      case .exchange(let other): other.incoming.removeAll { $0.source === exchange }
      }
    }
    exchange.removeAll()
    let incoming = exchange.incoming
    exchange.incoming = []
    changed()
    return incoming.compactMap(detach)
  }

  /// Takes the binding of a destination that is being deleted out of its source; returns the source
  /// if it goes with it.
  private func detach(_ binding: Binding) -> Exchange? {
    let identity = BindingIdentity(
      destination: binding.destination, key: binding.key, arguments: binding.arguments)
    let source = binding.source
    guard source.bindings[identity] != nil else { return nil }
    source.remove(identity)
    bindingCount -= 1
    return goesWithoutBindings(source) ? source : nil
  }

  /// A binding from the exchange was removed: it may go with its last one.
  func bindingsLeft(_ exchange: Exchange) {
    if goesWithoutBindings(exchange) { remove(exchange) }
  }

  /// The log says itself, when it is being read, that an exchange went.
  private func goesWithoutBindings(_ exchange: Exchange) -> Bool {
    exchange.isAutoDelete && exchange.bindings.isEmpty && !broker.isRecovering
  }

  /// A consumer of the queue ended: the queue may go with its last one.
  func consumerLeft(_ queue: Queue) {
    if Sabotage.is(.keepsAutoDeleteQueue) { return }
    if queue.isAutoDelete, queue.hadConsumers, queue.consumerCount == 0 { remove(queue) }
  }

  private func changed() {
    if Sabotage.is(.keepsStaleRoutes) { return }
    bindingGeneration += 1
    routes.removeAll()
  }

  // MARK: Routing

  /// The route of a message whose headers are not known; `names` is exchange and key as on the wire.
  func cachedRoute(_ names: RawSpan) throws(PeerError) -> Route {
    if let route = routes.find(names) { return route }
    let (exchange, key) = RouteMemo.split(names)
    let route = route(try publishable(exchange), keys: [key], headers: FieldTable())
    routes.insert(names, route)
    return route
  }

  /// All queues that the exchange, and those behind it, lead to with any of the keys.
  func route(_ exchange: Exchange, keys: [Name], headers: FieldTable) -> Route {
    routeMark += 1
    var walk = RouteWalk(mark: routeMark, keys: keys, headers: headers)
    walk.add(exchange)
    // Clients make chains of any length: they are followed without recursion.
    while let next = walk.exchanges.popLast() { visit(next, &walk) }
    return Route(walk.queues, needsHeaders: walk.needsHeaders)
  }

  private func visit(_ exchange: Exchange, _ walk: inout RouteWalk) {
    if exchange.kind == .headers { walk.needsHeaders = true }
    var found = false
    for key in walk.keys {
      if exchange.name.isEmpty {
        if let queue = queues[key] {
          found = true
          walk.add(queue)
        }
        continue
      }
      exchange.match(key, headers: walk.headers) { binding in
        found = true
        switch binding.destination {
        case .queue(let queue): walk.add(queue)
        case .exchange(let other): walk.add(other)
        }
      }
    }
    if !found, let name = exchange.alternate, let alternate = exchanges[name] {
      walk.add(alternate)
    }
  }

  // MARK: Direct replies

  func addReplyChannel(_ address: Name, _ channel: Channel) {
    replyChannels[address] = channel
  }

  func removeReplyChannel(_ address: Name) {
    replyChannels[address] = nil
  }

  func replyChannel(_ address: Name) -> Channel? {
    replyChannels[address]
  }
}

/// What one walk over the exchanges has found.
private struct RouteWalk {
  let mark: UInt64
  let keys: [Name]
  let headers: FieldTable
  var queues: [Queue] = []
  /// Those that are still to be visited.
  var exchanges: [Exchange] = []
  var needsHeaders = false

  init(mark: UInt64, keys: [Name], headers: FieldTable) {
    self.mark = mark
    self.keys = keys
    self.headers = headers
  }

  mutating func add(_ queue: Queue) {
    guard queue.routeMark != mark else { return }
    queue.routeMark = mark
    queues.append(queue)
  }

  mutating func add(_ exchange: Exchange) {
    guard exchange.routeMark != mark else { return }
    exchange.routeMark = mark
    exchanges.append(exchange)
  }
}

/// Routes by exchange and key; emptied when it is full and whenever something changes.
struct RouteCache: ~Copyable {
  private var table = NameTable()
  private var routes: [Route] = []

  private static let countMax = 8192

  func find(_ names: RawSpan) -> Route? {
    names.withUnsafeBytes { table.find($0) }.map { routes[Int($0)] }
  }

  mutating func insert(_ names: RawSpan, _ route: Route) {
    if routes.count == Self.countMax { removeAll() }
    table.insert(names.withUnsafeBytes { Array($0) }, Int32(routes.count))
    routes.append(route)
  }

  mutating func removeAll() {
    guard !routes.isEmpty else { return }
    table = NameTable()
    routes.removeAll(keepingCapacity: true)
  }
}
