import AMQP
import Base

/// A name space of exchanges and destinations with the bindings between them.
public final class VirtualHost {
  public let name: Name
  // Unsafe but sound: the broker owns this, and outlives it.
  unowned(unsafe) let broker: Broker

  private(set) var exchanges: SpreadDictionary<Name, Exchange> = SpreadDictionary()
  /// Queues and streams, which share one table of names.
  private(set) var destinations: SpreadDictionary<Name, Destination> = SpreadDictionary()
  /// Bindings, with those of deleted queues and exchanges that are not taken out yet.
  private(set) var bindings = 0
  /// About what all bindings and the tables that route by them take of the memory.
  private(set) var bindingBytes = 0
  /// About what all queues and exchanges take, without bindings and messages.
  private var nodeBytes = 0
  /// Goes up with everything that may change a route.
  private(set) var bindingGeneration = 0
  var routes = RouteCache()
  var routeMark: UInt64 = 0
  /// What waits for its time; nil before there was something.
  private(set) var delays: Delays?
  /// What clients publish here, and what they get, is copied to the exchange `amq.rabbitmq.trace`.
  public private(set) var isTraced = false
  /// Channels that wait for direct replies, by their address.
  private var replyChannels = SpreadDictionary<Name, Channel>()
  /// What consumers of direct replies are said to consume from.
  private(set) lazy var replyQueue = Queue(
    id: 0, lane: 0, name: Name(DirectReplies.queueName), vhost: self, isDurable: false,
    isAutoDelete: false, owner: nil, arguments: FieldTable())

  init(name: Name, broker: Broker) {
    self.name = name
    self.broker = broker
    let predeclared: [(Name, Exchange.Kind, Bool)] = [
      ("", .direct, false), ("amq.direct", .direct, false), ("amq.fanout", .fanout, false),
      ("amq.topic", .topic, false), ("amq.headers", .headers, false),
      ("amq.match", .headers, false), (Firehose.exchangeName, .topic, true),
      (Events.exchangeName, .topic, true),
    ]
    for (index, (exchange, kind, isInternal)) in predeclared.enumerated() {
      // Events of all virtual hosts are told in one.
      guard exchange != Events.exchangeName || name == Self.defaultName else { continue }
      exchanges[exchange] = Exchange(
        id: UInt32(index + 1), name: exchange, kind: kind, isDurable: true, isInternal: isInternal)
    }
  }

  static let defaultName: Name = "/"

  /// Ids up to this one belong to exchanges that every virtual host has.
  static let predeclaredIDMax: UInt32 = 15

  // MARK: Looking up

  func exchange(_ name: Name) throws(BrokerError) -> Exchange {
    guard let exchange = exchanges[name] else {
      throw .notFound(.exchange(name, in: self.name))
    }
    return exchange
  }

  package func hasExchange(_ name: Name) -> Bool { exchanges[name] != nil }
  package func hasQueue(_ name: Name) -> Bool { destinations[name] != nil }

  func destination(_ name: Name) throws(BrokerError) -> Destination {
    guard let found = destinations[name] else { throw .notFound(.queue(name, in: self.name)) }
    return found
  }

  /// The queue or stream, unless it is exclusive to another connection.
  func accessible(_ name: Name, by peer: Peer) throws(BrokerError) -> Destination {
    let found = try destination(name)
    guard !found.isExclusive || found.owner === peer || Sabotage.is(.opensLockedQueue) else {
      throw .locked(queue: name, in: self.name)
    }
    return found
  }

  /// The same for what a client does with its messages, or with where they come from.
  func usable(_ name: Name, by peer: Peer) throws(BrokerError) -> Destination {
    let found = try accessible(name, by: peer)
    guard found.isClients else { throw .isDelayedQueue(name, in: self.name) }
    return found
  }

  /// The exchange that a client publishes to.
  func publishable(_ name: Name) throws(BrokerError) -> Exchange {
    let exchange = try exchange(name)
    guard !exchange.isInternal else {
      throw .isInternal(exchange: name, in: self.name)
    }
    return exchange
  }

  // MARK: The table

  func insert(_ exchange: Exchange) {
    exchanges[exchange.name] = exchange
    exchange.seen = ExchangeArguments.deduplication(exchange).map {
      SeenValues(
        .init(id: exchange.id, isQueue: false, isDurable: exchange.isDurable), $0, broker)
    }
    if exchange.kind == .recentHistory {
      exchange.recent = RecentMessages(
        exchange: exchange.id, exchange.arguments, isDurable: exchange.isDurable, broker)
    }
    nodeBytes += exchange.memoryBytes
    changed()
  }

  func insert(_ destination: Destination) {
    destinations[destination.name] = destination
    nodeBytes += destination.memoryBytes
    changed()
  }

  /// A destination that is there takes more of the memory, by itself.
  func grew(by bytes: Int) { nodeBytes += bytes }

  var exchangeCount: Int { exchanges.count }
  var destinationCount: Int { destinations.count }
  /// About what queues, exchanges and bindings take of the memory, without messages.
  var topologyBytes: Int { bindingBytes + nodeBytes }
  /// What the routes that are kept take of the memory.
  var routeBytes: Int { routes.bytes }

  /// Adds a row; false if it was there.
  func insert(_ binding: Binding) -> Bool {
    let source = binding.source
    guard source.binding(like: binding) == nil else { return false }
    let before = source.routerBytes
    source.add(binding)
    switch binding.destination {
    case .destination(let destination):
      destination.bindings.add(binding)
      if source.isAutoDelete { destination.dependents.add(source) }
    case .exchange(let exchange):
      exchange.incoming.add(binding)
      if source.isAutoDelete { exchange.dependents.add(source) }
    }
    bindings += 1
    bindingBytes += binding.bytes + source.routerBytes - before
    changed()
    return true
  }

  /// Takes a row out of both of its ends, unless that was done.
  func remove(_ binding: Binding) {
    guard !binding.isGone else { return }
    binding.isGone = true
    let source = binding.source
    let before = source.routerBytes
    bindingBytes -= binding.bytes
    source.remove(binding)
    switch binding.destination {
    case .destination(let destination):
      destination.bindings.remove(binding)
      if source.isAutoDelete { destination.dependents.remove(source) }
    case .exchange(let exchange):
      exchange.incoming.remove(binding)
      if source.isAutoDelete { exchange.dependents.remove(source) }
    }
    if source.isAutoDelete, binding.destination.isCountedAsLeaving { source.leavingCount -= 1 }
    bindings -= 1
    bindingBytes += source.routerBytes - before
    broker.noteReleased()
    // Routes have nothing of what is deleted.
    if !source.isDeleted, !binding.destination.isDeleted { changed() }
  }

  /// Deletes a queue or stream with its messages, bindings and consumers; returns how many messages were
  /// ready. It is gone at once; `peer` waits until its bindings are.
  @discardableResult
  func remove(_ leaving: Destination, _ ending: QueueEnding, for peer: Peer? = nil) -> Int {
    guard !leaving.isDeleted else { return 0 }
    let actor = peer?.user ?? Actor.broker
    let count = leaving.readyCount
    destinations[leaving.name] = nil
    leaving.seen?.forgetAll()
    nodeBytes -= leaving.memoryBytes
    let isSilent = leaving.isAutoDelete && Sabotage.is(.revivesAutoDeleteQueue)
    let isLogged = leaving.isDurable && !broker.isRecovering && !isSilent
    let going = cascade(from: .destination(leaving))
    takeOut(
      going, with: { if isLogged { broker.catalog.appendDeleted(leaving) } }, isLogged: isLogged,
      by: actor)
    broker.events.deleted(leaving, ending, by: actor)
    leaving.drop()
    broker.keepUntilDone(leaving)
    leaving.owner?.disown(leaving)
    broker.retire(leaving)
    broker.noteReleased()
    changed()
    if !leaving.bindings.isEmpty {
      begin(
        Unbinding(self, [.destination(leaving)] + going.map { .exchange($0) }, by: actor), for: peer
      )
    }
    return count
  }

  /// Deletes an exchange with all bindings from and to it, and those that go with their last binding.
  /// It is gone at once; `peer` waits until its bindings are.
  func remove(_ exchange: Exchange, for peer: Peer? = nil) {
    let going = goesWithCascade(exchange)
    let actor = peer?.user ?? Actor.broker
    takeOut(going, isLogged: false, by: actor)
    begin(Unbinding(self, going.map { .exchange($0) }, by: actor), for: peer)
  }

  /// The exchange is not in the table any more.
  func forget(_ exchange: Exchange) {
    exchanges[exchange.name] = nil
    exchange.seen?.forgetAll()
    exchange.recent?.forgetAll()
    nodeBytes -= exchange.memoryBytes
    changed()
  }

  func begin(_ unbinding: Unbinding, for peer: Peer?) {
    if broker.isRecovering { return unbinding.finish() }
    broker.chores.begin(unbinding, for: peer)
  }

  private func changed() {
    if Sabotage.is(.keepsStaleRoutes) { return }
    bindingGeneration += 1
    routes.removeAll()
  }

  // MARK: Traces

  /// Begins or ends to copy messages to the exchange `amq.rabbitmq.trace`. A start ends it.
  public func trace(_ isOn: Bool) {
    guard isTraced != isOn else { return }
    isTraced = isOn
    broker.tracedCount += isOn ? 1 : -1
    // Routes say whether each message is to be looked at.
    changed()
  }

  // MARK: Delays

  @discardableResult
  func adopt(_ delays: Delays) -> Delays {
    self.delays = delays
    return delays
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
