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
  ) throws(PeerError) -> (QueueStatus, Committed) {
    let given = Name(wanted.name.bytes.filter { $0 != 10 && $0 != 13 })
    let name = wanted.isPassive ? try channel.resolved(given) : given
    if DirectReplies.isAddress(name) || DirectReplies.isQueueName(name) {
      guard DirectReplies.isQueueName(name) || replyChannel(name) != nil else {
        throw .noQueue(queue: name, vhost: self.name)
      }
      return (QueueStatus(name: name, readyCount: 0, consumerCount: 1), .now)
    }
    if let queue = queues[name] {
      let queue = try accessible(queue.name, by: channel.peer)
      if !wanted.isPassive { try requireEquivalent(queue, wanted) }
      channel.currentQueue = queue.name
      return (status(queue), .whenDurable(queue.declaredAt))
    }
    guard !wanted.isPassive else {
      throw .noQueue(queue: name, vhost: self.name)
    }
    guard !name.hasPrefix("amq.") else { throw .reservedQueueName(queue: name) }
    try broker.limits.check(wanted.arguments)
    guard queueCount < broker.limits.queuesMax else {
      throw .tooManyQueues(queue: name, vhost: self.name, limit: broker.limits.queuesMax)
    }
    try broker.requireRoom(for: "a queue")
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
    return (status(queue), queue.isDurable ? broker.catalog.append(queue) : .now)
  }

  private func status(_ queue: Queue) -> QueueStatus {
    QueueStatus(
      name: queue.name, readyCount: queue.readyCount, consumerCount: queue.consumerCount)
  }

  private func requireEquivalent(
    _ queue: Queue, _ wanted: QueueDeclaration
  ) throws(PeerError) {
    // An exclusive queue is never durable, whatever was asked for.
    let isDurable = wanted.isDurable && !wanted.isExclusive
    guard wanted.isExclusive == queue.isExclusive else {
      throw .queueLocked(queue: queue.name, vhost: self.name)
    }
    for (name, received, current) in [
      ("durable", isDurable, queue.isDurable),
      ("auto_delete", wanted.isAutoDelete, queue.isAutoDelete),
    ] where received != current {
      throw .inequivalentQueueFlag(
        argument: name, queue: queue.name, vhost: self.name, received: received, current: current)
    }
    if let difference = QueueArguments.difference(wanted.arguments, queue.arguments) {
      throw .inequivalentQueueArg(
        argument: difference.name, queue: queue.name, vhost: self.name,
        received: difference.received, current: difference.current)
    }
  }

  /// Deletes a queue; returns how many messages were ready in it. A queue that is not there is none.
  public func deleteQueue(
    _ name: Name, ifUnused: Bool, ifEmpty: Bool, on channel: Channel
  ) throws(PeerError) -> (Int, Committed) {
    let name = try channel.resolved(name)
    guard queues[name] != nil else { return (0, broker.catalog.known) }
    let queue = try accessible(name, by: channel.peer)
    if ifUnused, queue.consumerCount > 0 {
      throw .queueInUse(queue: name, vhost: self.name)
    }
    if ifEmpty, queue.readyCount > 0 { throw .queueNotEmpty(queue: name, vhost: self.name) }
    let isDurable = queue.isDurable
    let count = remove(queue, for: channel.peer)
    return (count, isDurable ? .whenDurable(broker.journal.endPosition) : .now)
  }

  /// Deletes the ready messages of a queue; returns how many.
  public func purgeQueue(_ name: Name, on channel: Channel) throws(PeerError) -> (Int, Committed) {
    let queue = try accessible(channel.resolved(name), by: channel.peer)
    let count = queue.purge(for: channel.peer)
    return (count, queue.isDurable ? .whenDurable(broker.journal.endPosition) : .now)
  }

  /// Declares or checks an exchange.
  public func declareExchange(_ wanted: ExchangeDeclaration) throws(PeerError) -> Committed {
    let name = Name(wanted.name.bytes.filter { $0 != 10 && $0 != 13 })
    guard !name.isEmpty else { throw .defaultExchange }
    if wanted.isPassive {
      return .whenDurable(try exchange(name).declaredAt)
    }
    guard let kind = Exchange.Kind(rawValue: wanted.type.description) else {
      throw .unknownExchangeType(type: wanted.type)
    }
    if let current = exchanges[name] {
      try requireEquivalent(current, wanted)
      return .whenDurable(current.declaredAt)
    }
    guard !name.hasPrefix("amq.") else { throw .reservedExchangeName(exchange: name) }
    try broker.limits.check(wanted.arguments)
    guard exchangeCount < broker.limits.exchangesMax else {
      throw .tooManyExchanges(
        exchange: name, vhost: self.name, limit: broker.limits.exchangesMax)
    }
    try broker.requireRoom(for: "an exchange")
    if let alternate = wanted.arguments["alternate-exchange"], alternate.text == nil {
      throw .invalidExchangeArg(
        argument: "alternate-exchange", exchange: name, vhost: self.name,
        reason: "{unacceptable_type,\(alternate.typeName)}")
    }
    let exchange = Exchange(
      id: try broker.takeExchangeID(isDurable: wanted.isDurable), name: name, kind: kind,
      isDurable: wanted.isDurable,
      isAutoDelete: wanted.isAutoDelete, isInternal: wanted.isInternal,
      arguments: wanted.arguments)
    insert(exchange)
    return exchange.isDurable ? broker.catalog.append(exchange, in: self) : .now
  }

  private func requireEquivalent(
    _ current: Exchange, _ wanted: ExchangeDeclaration
  ) throws(PeerError) {
    guard wanted.type.description == current.kind.rawValue else {
      throw .inequivalentExchangeFlag(
        argument: "type", exchange: current.name, vhost: name, received: wanted.type,
        current: current.kind.rawValue)
    }
    for (argument, received, present) in [
      ("durable", wanted.isDurable, current.isDurable),
      ("auto_delete", wanted.isAutoDelete, current.isAutoDelete),
      ("internal", wanted.isInternal, current.isInternal),
    ] where received != present {
      throw .inequivalentExchangeFlag(
        argument: argument, exchange: current.name, vhost: name, received: received,
        current: present)
    }
    let received = wanted.arguments["alternate-exchange"]
    let present = current.arguments["alternate-exchange"]
    guard received == present else {
      throw .inequivalentExchangeArg(
        argument: "alternate-exchange", exchange: current.name, vhost: name,
        received: QueueArguments.described(received, beside: present),
        current: QueueArguments.described(present, beside: received))
    }
  }

  /// Deletes an exchange; one that is not there is deleted already. `peer` waits until its bindings are
  /// gone as well.
  public func deleteExchange(
    _ name: Name, ifUnused: Bool, for peer: Peer? = nil
  ) throws(PeerError) -> Committed {
    guard !name.isEmpty else { throw .defaultExchange }
    guard !name.hasPrefix("amq.") else {
      throw .systemExchange(exchange: name, vhost: self.name)
    }
    guard let exchange = exchanges[name] else { return broker.catalog.known }
    if ifUnused, !exchange.bindings.isEmpty {
      throw .exchangeInUse(exchange: name, vhost: self.name)
    }
    remove(exchange, for: peer)
    return exchange.isDurable ? .whenDurable(broker.journal.endPosition) : .now
  }
}
