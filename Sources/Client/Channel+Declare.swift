import AMQP
import Base

/// What the broker says of a queue.
public struct QueueState: Equatable, Sendable {
  /// The name, which the broker chose if it was declared without one.
  public let name: Name
  /// Messages that wait for a consumer.
  public let messageCount: Int
  public let consumerCount: Int
}

extension Channel {
  /// Declares a queue; an empty name lets the broker choose one. A queue that exists must have been
  /// declared alike. A passive declaration only asks whether it exists.
  @discardableResult
  public func declareQueue(
    _ name: Name = "", durable: Bool = false, exclusive: Bool = false, autoDelete: Bool = false,
    passive: Bool = false, arguments: FieldTable = [:]
  ) async throws(ClientError) -> QueueState {
    let declare = QueueDeclare(
      queue: name, passive: passive, durable: durable, exclusive: exclusive,
      autoDelete: autoDelete, noWait: false, arguments: arguments)
    let reply = try await call(.queueDeclare(declare))
    guard case .method(.queueDeclareOk(let answer)) = reply else {
      throw unexpected(reply, to: "queue.declare")
    }
    return QueueState(
      name: answer.queue, messageCount: Int(answer.messageCount),
      consumerCount: Int(answer.consumerCount))
  }

  /// Declares an exchange of a type such as `direct`, `fanout`, `topic` or `headers`.
  public func declareExchange(
    _ name: Name, type: Name, durable: Bool = false, autoDelete: Bool = false,
    internal isInternal: Bool = false, passive: Bool = false, arguments: FieldTable = [:]
  ) async throws(ClientError) {
    let declare = ExchangeDeclare(
      exchange: name, type: type, passive: passive, durable: durable, autoDelete: autoDelete,
      internal: isInternal, noWait: false, arguments: arguments)
    let reply = try await call(.exchangeDeclare(declare))
    guard case .method(.exchangeDeclareOk) = reply else {
      throw unexpected(reply, to: "exchange.declare")
    }
  }

  /// Lets an exchange route to a queue what matches the key and the arguments.
  public func bindQueue(
    _ queue: Name, to exchange: Name, key: Name = "", arguments: FieldTable = [:]
  ) async throws(ClientError) {
    let bind = QueueBind(
      queue: queue, exchange: exchange, routingKey: key, noWait: false, arguments: arguments)
    let reply = try await call(.queueBind(bind))
    guard case .method(.queueBindOk) = reply else { throw unexpected(reply, to: "queue.bind") }
  }

  /// Takes a binding back; one that does not exist is no error.
  public func unbindQueue(
    _ queue: Name, from exchange: Name, key: Name = "", arguments: FieldTable = [:]
  ) async throws(ClientError) {
    let unbind = QueueUnbind(
      queue: queue, exchange: exchange, routingKey: key, arguments: arguments)
    let reply = try await call(.queueUnbind(unbind))
    guard case .method(.queueUnbindOk) = reply else {
      throw unexpected(reply, to: "queue.unbind")
    }
  }

  /// Lets an exchange route to another exchange what matches the key and the arguments.
  public func bindExchange(
    _ destination: Name, to source: Name, key: Name = "", arguments: FieldTable = [:]
  ) async throws(ClientError) {
    let bind = ExchangeBind(
      destination: destination, source: source, routingKey: key, noWait: false,
      arguments: arguments)
    let reply = try await call(.exchangeBind(bind))
    guard case .method(.exchangeBindOk) = reply else {
      throw unexpected(reply, to: "exchange.bind")
    }
  }

  /// Takes a binding between exchanges back.
  public func unbindExchange(
    _ destination: Name, from source: Name, key: Name = "", arguments: FieldTable = [:]
  ) async throws(ClientError) {
    let unbind = ExchangeUnbind(
      destination: destination, source: source, routingKey: key, noWait: false,
      arguments: arguments)
    let reply = try await call(.exchangeUnbind(unbind))
    guard case .method(.exchangeUnbindOk) = reply else {
      throw unexpected(reply, to: "exchange.unbind")
    }
  }

  /// Deletes a queue with its messages, and says how many those were. A queue that does not exist is
  /// no error.
  @discardableResult
  public func deleteQueue(
    _ name: Name, ifUnused: Bool = false, ifEmpty: Bool = false
  ) async throws(ClientError) -> Int {
    let delete = QueueDelete(queue: name, ifUnused: ifUnused, ifEmpty: ifEmpty, noWait: false)
    let reply = try await call(.queueDelete(delete))
    guard case .method(.queueDeleteOk(let answer)) = reply else {
      throw unexpected(reply, to: "queue.delete")
    }
    return Int(answer.messageCount)
  }

  /// Deletes an exchange with its bindings. One that does not exist is no error.
  public func deleteExchange(
    _ name: Name, ifUnused: Bool = false
  ) async throws(ClientError) {
    let delete = ExchangeDelete(exchange: name, ifUnused: ifUnused, noWait: false)
    let reply = try await call(.exchangeDelete(delete))
    guard case .method(.exchangeDeleteOk) = reply else {
      throw unexpected(reply, to: "exchange.delete")
    }
  }

  /// Drops the messages of a queue that nobody is dealing with, and says how many those were.
  @discardableResult
  public func purgeQueue(_ name: Name) async throws(ClientError) -> Int {
    let reply = try await call(.queuePurge(QueuePurge(queue: name, noWait: false)))
    guard case .method(.queuePurgeOk(let answer)) = reply else {
      throw unexpected(reply, to: "queue.purge")
    }
    return Int(answer.messageCount)
  }
}
