import AMQP
import Base

extension Channel {
  /// Starts to consume a queue. The broker sends at most `prefetch` messages that are not answered
  /// (0: as many as it has), so that no more wait in the consumer's buffer. `withoutAck` lets the
  /// broker forget each message as it sends it: faster, and lost with the connection. `arguments` are
  /// the broker's own, such as `x-stream-offset` or `x-priority`.
  public func consume(
    _ queue: Name, prefetch: UInt16 = 256, withoutAck: Bool = false, exclusive: Bool = false,
    tag: Name = "", arguments: FieldTable = [:]
  ) async throws(ClientError) -> Consumer {
    if !withoutAck { try await setPrefetch(prefetch) }
    let consumer = state.withLock { state in
      state.consumersStarted += 1
      let consumer = Consumer(
        self, tag: tag.isEmpty ? Name("consumer-\(state.consumersStarted)") : tag)
      state.consumers.append(consumer)
      return consumer
    }
    let consume = BasicConsume(
      queue: queue, consumerTag: consumer.tag, noLocal: false, noAck: withoutAck,
      exclusive: exclusive, noWait: false, arguments: arguments)
    do throws(ClientError) {
      let reply = try await call(.basicConsume(consume))
      guard case .method(.basicConsumeOk) = reply else {
        throw unexpected(reply, to: "basic.consume")
      }
    } catch {
      remove(consumer)?.end(error)
      if error == .cancelled {
        try send(.basicCancel(BasicCancel(consumerTag: consumer.tag, noWait: true)))
      }
      throw error
    }
    return consumer
  }

  /// Limits how many unanswered messages the broker sends to each consumer that is started from now
  /// on or, if `isGlobal`, to all consumers of the channel together. 0 is no limit.
  public func setPrefetch(_ count: UInt16, isGlobal: Bool = false) async throws(ClientError) {
    let qos = BasicQos(prefetchSize: 0, prefetchCount: count, global: isGlobal)
    let reply = try await call(.basicQos(qos))
    guard case .method(.basicQosOk) = reply else { throw unexpected(reply, to: "basic.qos") }
  }

  /// Takes one message of a queue, and says how many remain; nil if there is none. To read more than
  /// a few, consume.
  public func get(
    _ queue: Name, withoutAck: Bool = false
  ) async throws(ClientError) -> (delivery: Delivery, remaining: Int)? {
    let reply = try await call(.basicGet(BasicGet(queue: queue, noAck: withoutAck)))
    switch reply {
    case .method(.basicGetEmpty): return nil
    case .message(let delivery, let remaining): return (delivery, remaining)
    case .method: throw unexpected(reply, to: "basic.get")
    }
  }

  /// Answers the delivery with number `tag`, and with `multiple` all unanswered ones before it; with
  /// `multiple`, 0 is all there are.
  public func ack(_ tag: UInt64, multiple: Bool = false) throws(ClientError) {
    try send(.basicAck(BasicAck(deliveryTag: tag, multiple: multiple)))
  }

  /// Gives deliveries back, to be delivered again or, without `requeue`, to be dead-lettered or
  /// dropped.
  public func nack(
    _ tag: UInt64, multiple: Bool = false, requeue: Bool = true
  ) throws(ClientError) {
    try send(.basicNack(BasicNack(deliveryTag: tag, multiple: multiple, requeue: requeue)))
  }

  /// Refuses one delivery.
  public func reject(_ tag: UInt64, requeue: Bool = false) throws(ClientError) {
    try send(.basicReject(BasicReject(deliveryTag: tag, requeue: requeue)))
  }

  /// Gives all unanswered deliveries of the channel back to their queues.
  public func recover() async throws(ClientError) {
    let reply = try await call(.basicRecover(BasicRecover(requeue: true)))
    guard case .method(.basicRecoverOk) = reply else {
      throw unexpected(reply, to: "basic.recover")
    }
  }

  /// Ends a consumer: what the broker has already sent can still be taken, then its sequence ends.
  func cancel(_ consumer: Consumer) async throws(ClientError) {
    let reply = try await call(
      .basicCancel(BasicCancel(consumerTag: consumer.tag, noWait: false)))
    guard case .method(.basicCancelOk) = reply else { throw unexpected(reply, to: "basic.cancel") }
    remove(consumer)?.end(nil)
  }

  /// The consumer, unless it was removed before.
  func remove(_ consumer: Consumer) -> Consumer? {
    state.withLock { state in
      guard let index = state.consumers.firstIndex(where: { $0 === consumer }) else { return nil }
      return state.consumers.remove(at: index)
    }
  }
}

/// Transactions, as AMQP has them: what is published and answered on the channel takes effect at
/// `commit`.
extension Channel {
  /// Puts the channel into transaction mode, which excludes confirm mode.
  public func beginTransactions() async throws(ClientError) {
    let reply = try await call(.txSelect(TxSelect()))
    guard case .method(.txSelectOk) = reply else { throw unexpected(reply, to: "tx.select") }
  }

  /// All of it happens. Throws `rolledBack` on a connection that wants that (`ConnectionOptions.wantsRollback`) if
  /// no queue takes a mandatory message; then nothing has happened, and deliveries that were answered are
  /// unanswered again.
  public func commit() async throws(ClientError) {
    let reply = try await call(.txCommit(TxCommit()))
    switch reply {
    case .method(.txCommitOk): return
    case .method(.txRollbackOk) where connection.options.wantsRollback: throw .rolledBack
    case .method, .message: throw unexpected(reply, to: "tx.commit")
    }
  }

  public func rollback() async throws(ClientError) {
    let reply = try await call(.txRollback(TxRollback()))
    guard case .method(.txRollbackOk) = reply else {
      throw unexpected(reply, to: "tx.rollback")
    }
  }
}
