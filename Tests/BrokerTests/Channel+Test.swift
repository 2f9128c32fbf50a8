import AMQP
import Base
import Glibc

@testable import Broker

/// The calls of a session, with the arguments that tests leave out.
extension Channel {
  func publish(
    _ body: [UInt8], to exchange: Name = "", key: Name, properties: BasicProperties = .init(),
    isPersistent: Bool = false, isMandatory: Bool = false
  ) throws(BrokerError) {
    let (names, block) = Self.encoded(exchange, key, properties, isPersistent: isPersistent)
    try publish(
      names: names.span.bytes, isMandatory: isMandatory, properties: block.span.bytes,
      body: body.span.bytes)
  }

  /// Names and properties as a session has them.
  private static func encoded(
    _ exchange: Name, _ key: Name, _ properties: BasicProperties, isPersistent: Bool
  ) -> (names: [UInt8], properties: [UInt8]) {
    var properties = properties
    if isPersistent { properties.deliveryMode = 2 }
    var names = ByteBuffer()
    names.append(exchange)
    names.append(key)
    var block = ByteBuffer()
    properties.encode(into: &block)
    return (Array(names.readable), Array(block.readable))
  }

  /// The same as a session does it with a large body.
  func publishLarge(
    _ body: [UInt8], to exchange: Name = "", key: Name, properties: BasicProperties = .init(),
    isPersistent: Bool = false, isMandatory: Bool = false
  ) throws(BrokerError) {
    let (names, block) = Self.encoded(exchange, key, properties, isPersistent: isPersistent)
    let draft = draft(names: names.span.bytes, properties: block.span.bytes)
    draft.append(body.span.bytes, of: body.count)
    try publish(
      draft, names: names.span.bytes, isMandatory: isMandatory,
      properties: block.span.bytes)
  }

  func publish(
    _ text: String, to exchange: Name = "", key: Name, properties: BasicProperties = .init(),
    isPersistent: Bool = false, isMandatory: Bool = false
  ) throws(BrokerError) {
    try publish(
      Array(text.utf8), to: exchange, key: key, properties: properties,
      isPersistent: isPersistent, isMandatory: isMandatory)
  }

  func publish(
    _ text: String, to exchange: Name = "", key: Name = "", headers: FieldTable
  ) throws(BrokerError) {
    var properties = BasicProperties()
    properties.headers = headers
    try publish(text, to: exchange, key: key, properties: properties)
  }

  @discardableResult
  func declare(
    _ name: Name, isDurable: Bool = false, isExclusive: Bool = false, isAutoDelete: Bool = false,
    isPassive: Bool = false, arguments: FieldTable = [:]
  ) throws(BrokerError) -> QueueStatus {
    var wanted = QueueDeclaration(name: name)
    wanted.isDurable = isDurable
    wanted.isExclusive = isExclusive
    wanted.isAutoDelete = isAutoDelete
    wanted.isPassive = isPassive
    wanted.arguments = arguments
    return try vhost.declareQueue(wanted, on: self).0
  }

  func bind(
    _ queue: Name, to exchange: Name, key: Name = "", arguments: FieldTable = [:]
  ) throws(BrokerError) {
    _ = try vhost.bindQueue(queue, to: exchange, key: key, arguments: arguments, on: self)
  }

  func unbind(
    _ queue: Name, from exchange: Name, key: Name = "", arguments: FieldTable = [:]
  ) throws(BrokerError) {
    _ = try vhost.unbindQueue(queue, from: exchange, key: key, arguments: arguments, on: self)
  }

  @discardableResult
  func delete(
    _ queue: Name, ifUnused: Bool = false, ifEmpty: Bool = false
  ) throws(BrokerError) -> Int {
    try vhost.deleteQueue(queue, ifUnused: ifUnused, ifEmpty: ifEmpty, on: self).0
  }

  @discardableResult
  func purge(_ queue: Name) throws(BrokerError) -> Int {
    try vhost.purgeQueue(queue, on: self).0
  }

  @discardableResult
  func consume(
    _ queue: Name, tag: Name = "", isAutomatic: Bool = false, isExclusive: Bool = false,
    priority: Int64? = nil
  ) throws(BrokerError) -> Name {
    let arguments: FieldTable = priority.map { ["x-priority": .int64($0)] } ?? [:]
    return try consume(
      queue, tag: tag, isAutomatic: isAutomatic, isExclusive: isExclusive, arguments: arguments)
  }

  /// basic.get. Waits for the log when the message may not be seen before.
  func take(_ queue: Name, isAutomatic: Bool = true) throws(BrokerError) -> Delivery? {
    var result: Delivery?
    while true {
      let outcome = try get(queue, isAutomatic: isAutomatic) {
        view, properties, tag, isRedelivered, _ in
        result = Delivery(
          consumer: "", channel: number, tag: tag, isRedelivered: isRedelivered,
          message: Message(view, properties))
      }
      guard case .notBefore(let position) = outcome else { return result }
      waitForLog(position)
    }
  }

  /// Has the log written and gives way to its threads until it is durable up to `position`, and what
  /// was asked for is read back; work on queues goes on as in a turn.
  private func waitForLog(_ position: Int) {
    let journal = broker.journal
    if !broker.chores.isEmpty {
      broker.chores.renew()
      broker.chores.advance()
    }
    broker.deadlines.advance(to: broker.time)
    while journal.failure == nil && journal.durablePosition < position || journal.isLoading {
      broker.journal.commit(now: broker.now)
      broker.journalMoved()
      sched_yield()
    }
  }

  /// All ready messages, taken for good.
  func drain(_ queue: Name) throws(BrokerError) -> [Delivery] {
    var result: [Delivery] = []
    while let delivery = try take(queue) { result.append(delivery) }
    return result
  }
}

extension VirtualHost {
  func declare(
    exchange name: Name, _ type: Name = "direct", isDurable: Bool = false,
    isAutoDelete: Bool = false, isInternal: Bool = false, isPassive: Bool = false,
    arguments: FieldTable = [:]
  ) throws(BrokerError) {
    var wanted = ExchangeDeclaration(name: name, type: type)
    wanted.isDurable = isDurable
    wanted.isAutoDelete = isAutoDelete
    wanted.isInternal = isInternal
    wanted.isPassive = isPassive
    wanted.arguments = arguments
    try asked { (peer) throws(BrokerError) in _ = try declareExchange(wanted, by: peer) }
  }

  func bind(
    exchange destination: Name, to source: Name, key: Name = "", arguments: FieldTable = [:]
  ) throws(BrokerError) {
    try asked { (peer) throws(BrokerError) in
      _ = try bindExchange(destination, to: source, key: key, arguments: arguments, by: peer)
    }
  }

  func unbind(
    exchange destination: Name, from source: Name, key: Name = "", arguments: FieldTable = [:]
  ) throws(BrokerError) {
    try asked { (peer) throws(BrokerError) in
      _ = try unbindExchange(destination, from: source, key: key, arguments: arguments, by: peer)
    }
  }

  func delete(exchange name: Name, ifUnused: Bool = false) throws(BrokerError) {
    try asked { (peer) throws(BrokerError) in
      _ = try deleteExchange(name, ifUnused: ifUnused, by: peer)
    }
  }

  /// Has a connection ask that is there for nothing else.
  private func asked(_ body: (Peer) throws(BrokerError) -> Void) throws(BrokerError) {
    let client = TestClient(vhost: self, user: "guest")
    defer { client.close() }
    try body(client.peer)
  }
}

/// The peer's mistake that `body` makes; nil if there is none.
func mistake(_ body: () throws -> Void) -> BrokerError? {
  do {
    try body()
    return nil
  } catch {
    return error as? BrokerError
  }
}
