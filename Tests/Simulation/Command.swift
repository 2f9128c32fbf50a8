import AMQP
import Base

/// What a client asks of the broker: the bytes, and what they mean for the model.
struct Command {
  enum Action {
    /// Protocol header, start-ok, tune-ok and open in one.
    case connect
    case openChannel, closeChannel
    /// The answer to the broker's closing of the channel.
    case closeChannelOk
    case confirmSelect
    case prefetch(Int)
    case publish(Message)
    case consume(queue: String, tag: String, isAutomatic: Bool)
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
    case .connect: bytes = Self.hello(frameMax: topology.frameMax)
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
    case .prefetch(let count):
      .basicQos(BasicQos(prefetchSize: 0, prefetchCount: UInt16(count)))
    case .consume(let queue, let tag, let isAutomatic):
      .basicConsume(
        BasicConsume(queue: Name(queue), consumerTag: Name(tag), noAck: isAutomatic))
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
      .queueDeclare(QueueDeclare(queue: Name(queue), durable: topology.isDurable(queue)))
    case .delete(let queue): .queueDelete(QueueDelete(queue: Name(queue)))
    case .declareExchange(let name):
      .exchangeDeclare(
        ExchangeDeclare(
          exchange: Name(name), type: Name(topology.exchanges[name]!.rawValue), durable: true))
    case .bind(let binding):
      .queueBind(
        QueueBind(
          queue: Name(binding.queue), exchange: Name(binding.exchange),
          routingKey: Name(binding.key)))
    case .unbind(let binding):
      .queueUnbind(
        QueueUnbind(
          queue: Name(binding.queue), exchange: Name(binding.exchange),
          routingKey: Name(binding.key)))
    case .mistake: .basicAck(BasicAck(deliveryTag: 1 << 40))
    }
  }

  private static func hello(frameMax: Int) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(Frame.protocolHeader)
    buffer.append(
      .connectionStartOk(
        ConnectionStartOk(
          clientProperties: [
            "capabilities": .table([
              "connection.blocked": .bool(true), "consumer_cancel_notify": .bool(true),
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
