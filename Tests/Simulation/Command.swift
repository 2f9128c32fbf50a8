import AMQP
import Base

/// What a client asks of the broker: the bytes, and what they mean for the model.
struct Command {
  enum Action {
    /// Protocol header, start-ok, tune-ok and open in one. `isTold`: of consumers that the broker ends.
    case connect(isTold: Bool = true)
    case openChannel, closeChannel
    /// The answer to the broker's closing of the channel.
    case closeChannelOk
    case confirmSelect
    case selectTransactions, commit, rollback
    /// `isShared`: for all consumers of the channel together.
    case prefetch(Int, isShared: Bool)
    case publish(Message)
    case consume(queue: String, tag: String, isAutomatic: Bool, priority: Int)
    case cancel(tag: String)
    case get(queue: String, isAutomatic: Bool)
    case acknowledge(tag: UInt64, isMultiple: Bool)
    case reject(tag: UInt64, isMultiple: Bool, requeues: Bool)
    case recover
    case purge(queue: String)
    /// A passive declaration, which tells the counts.
    case inspect(queue: String)
    case declare(queue: String)
    case delete(queue: String)
    case declareExchange(String)
    case deleteExchange(String)
    case bind(Topology.Binding)
    case unbind(Topology.Binding)
    /// Something that closes the channel.
    case mistake
  }

  let action: Action
  let channel: UInt16
  let bytes: [UInt8]

  init(_ action: Action, on channel: UInt16, in topology: Topology) {
    self.action = action
    self.channel = channel
    switch action {
    case .connect(let isTold): bytes = Self.hello(frameMax: topology.frameMax, isTold: isTold)
    case .publish(let message):
      bytes = message.frames(on: channel, frameMax: topology.frameMax)
    default:
      var buffer = ByteBuffer()
      buffer.append(Self.method(action, topology), channel: channel)
      bytes = Array(buffer.readable)
    }
  }

  private static func method(_ action: Action, _ topology: Topology) -> Method {
    switch action {
    case .connect, .publish: invariantFailed("\(action) is more than a method")
    case .openChannel: .channelOpen(ChannelOpen())
    case .closeChannel:
      .channelClose(ChannelClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0))
    case .closeChannelOk: .channelCloseOk(ChannelCloseOk())
    case .confirmSelect: .confirmSelect(ConfirmSelect())
    case .selectTransactions: .txSelect(TxSelect())
    case .commit: .txCommit(TxCommit())
    case .rollback: .txRollback(TxRollback())
    case .prefetch(let count, let isShared):
      .basicQos(BasicQos(prefetchSize: 0, prefetchCount: UInt16(count), global: isShared))
    case .consume(let queue, let tag, let isAutomatic, let priority):
      .basicConsume(
        BasicConsume(
          queue: Name(queue), consumerTag: Name(tag), noAck: isAutomatic,
          arguments: priority == 0 ? [:] : ["x-priority": .int32(Int32(priority))]))
    case .cancel(let tag): .basicCancel(BasicCancel(consumerTag: Name(tag)))
    case .get(let queue, let isAutomatic):
      .basicGet(BasicGet(queue: Name(queue), noAck: isAutomatic))
    case .acknowledge(let tag, let isMultiple):
      .basicAck(BasicAck(deliveryTag: tag, multiple: isMultiple))
    case .reject(let tag, let isMultiple, let requeues):
      isMultiple
        ? .basicNack(BasicNack(deliveryTag: tag, multiple: true, requeue: requeues))
        : .basicReject(BasicReject(deliveryTag: tag, requeue: requeues))
    case .recover: .basicRecover(BasicRecover(requeue: true))
    case .purge(let queue): .queuePurge(QueuePurge(queue: Name(queue)))
    case .inspect(let queue): .queueDeclare(QueueDeclare(queue: Name(queue), passive: true))
    case .declare(let queue):
      .queueDeclare(
        QueueDeclare(
          queue: Name(queue), durable: topology.isDurable(queue),
          exclusive: topology.kind(queue) == .exclusive,
          autoDelete: topology.kind(queue) == .autoDelete,
          arguments: topology.countsDeliveries(queue) ? ["x-queue-type": .string("quorum")] : [:]))
    case .delete(let queue): .queueDelete(QueueDelete(queue: Name(queue)))
    case .declareExchange(let name):
      .exchangeDeclare(
        ExchangeDeclare(
          exchange: Name(name), type: Name(topology.exchanges[name]!.rawValue),
          durable: topology.isDurable(exchange: name)))
    case .deleteExchange(let name): .exchangeDelete(ExchangeDelete(exchange: Name(name)))
    case .bind(let binding): bind(binding)
    case .unbind(let binding): unbind(binding)
    case .mistake: .basicAck(BasicAck(deliveryTag: 1 << 40))
    }
  }

  private static func bind(_ binding: Topology.Binding) -> Method {
    let arguments = binding.condition?.arguments ?? [:]
    return binding.isToExchange
      ? .exchangeBind(
        ExchangeBind(
          destination: Name(binding.destination), source: Name(binding.exchange),
          routingKey: Name(binding.key), arguments: arguments))
      : .queueBind(
        QueueBind(
          queue: Name(binding.destination), exchange: Name(binding.exchange),
          routingKey: Name(binding.key), arguments: arguments))
  }

  private static func unbind(_ binding: Topology.Binding) -> Method {
    let arguments = binding.condition?.arguments ?? [:]
    return binding.isToExchange
      ? .exchangeUnbind(
        ExchangeUnbind(
          destination: Name(binding.destination), source: Name(binding.exchange),
          routingKey: Name(binding.key), arguments: arguments))
      : .queueUnbind(
        QueueUnbind(
          queue: Name(binding.destination), exchange: Name(binding.exchange),
          routingKey: Name(binding.key), arguments: arguments))
  }

  private static func hello(frameMax: Int, isTold: Bool) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(Frame.protocolHeader)
    buffer.append(
      .connectionStartOk(
        ConnectionStartOk(
          clientProperties: [
            "capabilities": .table([
              "connection.blocked": .bool(true), "consumer_cancel_notify": .bool(isTold),
            ])
          ], mechanism: "PLAIN", response: Array("\0guest\0guest".utf8), locale: "en_US")),
      channel: 0)
    buffer.append(
      .connectionTuneOk(
        ConnectionTuneOk(channelMax: 0, frameMax: UInt32(frameMax), heartbeat: 0)), channel: 0)
    buffer.append(.connectionOpen(ConnectionOpen(virtualHost: "/")), channel: 0)
    return Array(buffer.readable)
  }
}
