import AMQP
import Base

/// What a client declares of a queue.
public struct QueueDeclaration {
  public var name: Name
  public var isPassive = false
  public var isDurable = false
  public var isExclusive = false
  public var isAutoDelete = false
  public var arguments = FieldTable()

  public init(name: Name) { self.name = name }
}

/// What a client declares of an exchange.
public struct ExchangeDeclaration {
  public var name: Name
  public var type: Name
  public var isPassive = false
  public var isDurable = false
  public var isAutoDelete = false
  public var isInternal = false
  public var arguments = FieldTable()

  public init(name: Name, type: Name) {
    self.name = name
    self.type = type
  }
}

/// The answer to a declaration of a queue.
public struct QueueStatus: Equatable {
  public let name: Name
  public let readyCount: Int
  public let consumerCount: Int
}

/// A change of the virtual host was made; its reply may leave once the log is durable up to there.
public enum Committed: Equatable {
  case now
  case whenDurable(Int)
}

extension VirtualHost {
  /// Declares or checks a queue for a channel, whose current queue it becomes.
  public func declareQueue(
    _ wanted: QueueDeclaration, on channel: Channel
  ) throws(BrokerError) -> (QueueStatus, Committed) {
    let given = Name(wanted.name.bytes.filter { $0 != 10 && $0 != 13 })
    let name = wanted.isPassive ? try channel.resolved(given) : given
    if DirectReplies.isAddress(name) || DirectReplies.isQueueName(name) {
      guard DirectReplies.isQueueName(name) || replyChannel(name) != nil else {
        throw .notFound(.queue(name, in: self.name))
      }
      return (QueueStatus(name: name, readyCount: 0, consumerCount: 1), .now)
    }
    if destinations[name] != nil {
      let found = try accessible(name, by: channel.peer)
      if !wanted.isPassive { try requireEquivalent(found, wanted) }
      found.used()
      channel.currentQueue = name
      return (status(found), .whenDurable(found.declaredAt))
    }
    guard !wanted.isPassive else {
      throw .notFound(.queue(name, in: self.name))
    }
    guard !name.hasPrefix("amq.") else { throw .reservedName(.queue(name, in: self.name)) }
    try broker.limits.check(wanted.arguments)
    guard destinationCount < broker.limits.queuesMax else {
      throw .limitReached(.declared(.queue(name, in: self.name), max: broker.limits.queuesMax))
    }
    try broker.requireRoom(for: "a queue")
    if wanted.arguments["x-queue-type"]?.text == "stream" {
      return try declareStream(wanted, name, on: channel)
    }
    let arguments = try QueueArguments.checked(wanted.arguments, queue: name, vhost: self.name)
    let isExclusive = wanted.isExclusive
    let isDurable = wanted.isDurable && !isExclusive
    let ids = try broker.takeQueueIDs(isDurable: isDurable)
    let queue = Queue(
      id: ids.queue, lane: ids.lane,
      name: name.isEmpty ? broker.makeName("amq.gen-") : name,
      vhost: self, isDurable: isDurable,
      isAutoDelete: wanted.isAutoDelete, owner: isExclusive ? channel.peer : nil,
      arguments: arguments)
    insert(queue)
    if isExclusive { channel.peer.own(queue) }
    channel.currentQueue = queue.name
    let committed = queue.isDurable ? broker.catalog.append(queue) : .now
    broker.events.created(queue, by: channel.peer)
    return (status(queue), committed)
  }

  private func declareStream(
    _ wanted: QueueDeclaration, _ name: Name, on channel: Channel
  ) throws(BrokerError) -> (QueueStatus, Committed) {
    for (property, isRefused) in [
      ("exclusive", wanted.isExclusive), ("auto-delete", wanted.isAutoDelete),
      ("non-durable", !wanted.isDurable),
    ] where isRefused {
      throw .refusedProperty(property, queue: name, in: self.name)
    }
    let arguments = try QueueArguments.checked(ofStream: wanted.arguments, name, vhost: self.name)
    if let reason = broker.journal.failure { throw .journalFailed(reason: reason) }
    let count = StreamSettings(arguments).partitionCount
    let ids = try broker.takeQueueIDs(isDurable: true)
    // Before there is something that refers to the stream.
    let more = try (1..<max(1, count)).map { (_) throws(BrokerError) in
      try broker.takeLaneID(isDurable: true)
    }
    let stream = Stream(
      id: ids.queue, name: name.isEmpty ? broker.makeName("amq.gen-") : name, vhost: self,
      arguments: arguments)
    for id in [ids.lane] + more { stream.addPartition(id: id) }
    insert(stream)
    channel.currentQueue = stream.name
    let committed = broker.catalog.append(stream)
    broker.events.created(stream, by: channel.peer)
    return (status(stream), committed)
  }

  private func status(_ queue: Destination) -> QueueStatus {
    QueueStatus(
      name: queue.name, readyCount: queue.readyCount, consumerCount: queue.consumerCount)
  }

  private func requireEquivalent(
    _ queue: Destination, _ wanted: QueueDeclaration
  ) throws(BrokerError) {
    // An exclusive queue is never durable, whatever was asked for.
    let isDurable = wanted.isDurable && !wanted.isExclusive
    guard wanted.isExclusive == queue.isExclusive else {
      throw .locked(queue: queue.name, in: self.name)
    }
    for (name, received, current) in [
      ("durable", isDurable, queue.isDurable),
      ("auto_delete", wanted.isAutoDelete, queue.isAutoDelete),
    ] where received != current {
      throw .existsOtherwise(
        .queue(queue.name, in: self.name), property: name, wanted: "\(received)",
        present: "\(current)")
    }
    if let difference = QueueArguments.difference(wanted.arguments, queue.arguments),
      QueueArguments.difference(wanted.arguments, queue.presentArguments) != nil
    {
      throw .existsWithArgument(
        .queue(queue.name, in: self.name), argument: difference.name, wanted: difference.received,
        present: difference.current)
    }
  }

  /// Deletes a queue; returns how many messages were ready in it. A queue that is not there is none.
  public func deleteQueue(
    _ name: Name, ifUnused: Bool, ifEmpty: Bool, on channel: Channel
  ) throws(BrokerError) -> (Int, Committed) {
    let name = try channel.resolved(name)
    guard destinations[name] != nil else { return (0, broker.catalog.known) }
    let queue = try usable(name, by: channel.peer)
    if ifUnused, queue.consumerCount > 0 {
      throw .inUse(.queue(name, in: self.name))
    }
    if ifEmpty, queue.readyCount > 0 { throw .notEmpty(queue: name, in: self.name) }
    let isDurable = queue.isDurable
    let count = remove(queue, .deleted, for: channel.peer)
    return (count, isDurable ? .whenDurable(broker.journal.endPosition) : .now)
  }

  /// Deletes the ready messages of a queue; returns how many.
  public func purgeQueue(_ name: Name, on channel: Channel) throws(BrokerError) -> (Int, Committed)
  {
    let queue = try accessible(channel.resolved(name), by: channel.peer)
    let count = try queue.purge(for: channel.peer)
    return (count, queue.isDurable ? .whenDurable(broker.journal.endPosition) : .now)
  }

  /// Declares or checks an exchange for a connection.
  public func declareExchange(
    _ wanted: ExchangeDeclaration, by peer: Peer
  ) throws(BrokerError) -> Committed {
    let name = Name(wanted.name.bytes.filter { $0 != 10 && $0 != 13 })
    guard !name.isEmpty else { throw .isDefaultExchange }
    if wanted.isPassive {
      return .whenDurable(try exchange(name).declaredAt)
    }
    let form = try ExchangeForm(
      type: wanted.type, arguments: wanted.arguments, name: name, vhost: self.name)
    if let current = exchanges[name] {
      try requireEquivalent(current, wanted)
      return .whenDurable(current.declaredAt)
    }
    guard !name.hasPrefix("amq.") else { throw .reservedName(.exchange(name, in: self.name)) }
    try broker.limits.check(wanted.arguments)
    guard exchangeCount < broker.limits.exchangesMax else {
      throw .limitReached(
        .declared(.exchange(name, in: self.name), max: broker.limits.exchangesMax))
    }
    try broker.requireRoom(for: "an exchange")
    try ExchangeArguments.check(wanted.arguments, of: form.kind, exchange: name, vhost: self.name)
    let exchange = Exchange(
      id: try broker.takeExchangeID(isDurable: wanted.isDurable), name: name, type: wanted.type,
      form: form, isDurable: wanted.isDurable, isAutoDelete: wanted.isAutoDelete,
      isInternal: wanted.isInternal, arguments: wanted.arguments, seed: broker.random())
    insert(exchange)
    let committed = exchange.isDurable ? broker.catalog.append(exchange, in: self) : .now
    broker.events.created(exchange, in: self, by: peer)
    return committed
  }

  private func requireEquivalent(
    _ current: Exchange, _ wanted: ExchangeDeclaration
  ) throws(BrokerError) {
    guard wanted.type == current.type else {
      throw .existsOtherwise(
        .exchange(current.name, in: name), property: "type", wanted: wanted.type.description,
        present: current.type.description)
    }
    for (argument, received, present) in [
      ("durable", wanted.isDurable, current.isDurable),
      ("auto_delete", wanted.isAutoDelete, current.isAutoDelete),
      ("internal", wanted.isInternal, current.isInternal),
    ] where received != present {
      throw .existsOtherwise(
        .exchange(current.name, in: name), property: argument, wanted: "\(received)",
        present: "\(present)")
    }
    for argument in ExchangeForm.arguments {
      let received = wanted.arguments[argument]
      let present = current.arguments[argument]
      guard received != present else { continue }
      throw .existsWithArgument(
        .exchange(current.name, in: name), argument: argument,
        wanted: QueueArguments.described(received, beside: present),
        present: QueueArguments.described(present, beside: received))
    }
  }

  /// Deletes an exchange; one that is not there is deleted already. `peer` waits until its bindings are
  /// gone as well.
  public func deleteExchange(
    _ name: Name, ifUnused: Bool, by peer: Peer
  ) throws(BrokerError) -> Committed {
    guard !name.isEmpty else { throw .isDefaultExchange }
    guard !name.hasPrefix("amq.") else {
      throw .isPredeclared(exchange: name, in: self.name)
    }
    guard let exchange = exchanges[name] else { return broker.catalog.known }
    if ifUnused, !exchange.bindings.isEmpty {
      throw .inUse(.exchange(name, in: self.name))
    }
    remove(exchange, for: peer)
    return exchange.isDurable ? .whenDurable(broker.journal.endPosition) : .now
  }
}
