import AMQP
import Arbitrary
import Base

/// What the client asks for.
extension FuzzClient {
  private static let queues: [Name] = ["q0", "q1", "q2", "durable-0", "durable-1"]
  private static let exchanges: [Name] = [
    "x0", "x1", "x2", "durable-x", "x3", "durable-x4", "durable-x5", "x6",
  ]
  private static let sources =
    exchanges + ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"]
  private static let keys: [Name] = ["", "a", "a.b", "a.b.c", "*.b", "a.#", "#", "#.c.*", "1", "3"]

  /// The frames of one request.
  func request() -> [[UInt8]] {
    guard let channel = channels.keys.sorted().randomElement(using: &random), !random.oneIn(30)
    else { return [openOrClose()] }
    switch random.number(0...19) {
    case 0...4: return publish(on: channel)
    case 5, 6: return [Wire.method(declareQueue(), on: channel)]
    case 7: return [Wire.method(declareExchange(), on: channel)]
    case 8, 9: return [Wire.method(bind(), on: channel)]
    case 10, 11: return [Wire.method(consumption(channel), on: channel)]
    case 12...15: return [Wire.method(settlement(channel), on: channel)]
    case 16: return [Wire.method(deletion(), on: channel)]
    case 17: return [Wire.method(setting(), on: channel)]
    case 18: return [Wire.heartbeat]
    default: return [random.oneIn(5) ? anything(on: channel) : Wire.method(setting(), on: channel)]
    }
  }

  private func queue() -> Name {
    random.oneIn(30) ? "" : random.choose(Self.queues + exclusiveNames)
  }

  private func openOrClose() -> [UInt8] {
    if random.oneIn(50) {
      let close = ConnectionClose(replyCode: 200, classId: 0, methodId: 0)
      return Wire.method(.connectionClose(close), on: 0)
    }
    let channel = UInt16(random.number(1...4))
    guard channels[channel] != nil else { return openFrame(channel) }
    channels[channel] = nil
    let close = ChannelClose(replyCode: 200, classId: 0, methodId: 0)
    return Wire.method(.channelClose(close), on: channel)
  }

  /// The client takes it for open at once.
  func openFrame(_ channel: UInt16) -> [UInt8] {
    channels[channel] = OpenChannel()
    return Wire.method(.channelOpen(ChannelOpen()), on: channel)
  }

  /// Declares all there may be.
  func topology(on channel: UInt16) -> [[UInt8]] {
    let methods =
      Self.exchanges.map(declaration(exchange:))
      + (Self.queues + exclusiveNames).map(declaration(queue:))
      + (0..<8).map { _ in bind() }
    return methods.map { Wire.method($0, on: channel) }
  }

  // MARK: Messages

  private func publish(on channel: UInt16) -> [[UInt8]] {
    let toQueue = random.flag()
    let key = random.oneIn(10) ? replyAddress : toQueue ? queue() : random.choose(Self.keys)
    let publish = BasicPublish(
      exchange: toQueue ? "" : random.choose(Self.sources), routingKey: key,
      mandatory: random.oneIn(4), immediate: random.oneIn(500))
    let body = random.bytes(upTo: random.choose([10, 1000, 5000, 60_000]))
    let payloadMax = frameMax - Frame.overhead
    var pieces = [Int](repeating: payloadMax, count: body.count / payloadMax)
    if random.oneIn(5) { pieces.insert(random.number(0...min(body.count, 4000)), at: 0) }
    return Wire.publish(
      publish, body: body, properties: messageProperties(channel), pieces: pieces, on: channel)
  }

  private func messageProperties(_ channel: UInt16) -> [UInt8] {
    var properties = BasicProperties()
    switch random.number(0...9) {
    case 0, 1, 2: break
    case 3, 4: properties.deliveryMode = 1
    case 5, 6: properties.deliveryMode = 2
    case 7 where channels[channel]?.hasReplies ?? false || random.oneIn(20):
      properties.replyTo = "amq.rabbitmq.reply-to"
    case 8:
      properties.headers = [
        random.choose(["CC", "BCC", "h"]): .array([.string(random.choose(Self.queues).bytes)]),
        "n": random.fieldValue(depth: 1),
      ]
    default:
      properties = random.properties()
      properties.userID = random.oneIn(20) ? properties.userID : "guest"
      properties.expiration = random.oneIn(20) ? properties.expiration : "1000"
    }
    return properties.bytes
  }

  private func consumption(_ channel: UInt16) -> Method {
    let tag = Name("\(name)-\(random.number(0...5))")
    switch random.number(0...9) {
    case 0...2: return .basicGet(BasicGet(queue: queue(), noAck: random.flag()))
    case 3:
      let consumers = channels[channel]?.consumers ?? []
      let known = consumers.isEmpty ? tag : random.choose(consumers)
      return .basicCancel(BasicCancel(consumerTag: known, noWait: random.oneIn(5)))
    case 4:
      channels[channel]?.hasReplies = true
      return .basicConsume(
        BasicConsume(queue: "amq.rabbitmq.reply-to", consumerTag: tag, noAck: !random.oneIn(30)))
    default:
      return .basicConsume(
        BasicConsume(
          queue: queue(), consumerTag: random.oneIn(4) ? "" : tag, noAck: random.flag(),
          exclusive: random.oneIn(10), noWait: random.oneIn(10),
          arguments: random.oneIn(5) ? ["x-priority": random.fieldValue(depth: 0)] : [:]))
    }
  }

  /// Of a tag that waits, of all of them, or seldom of one that does not.
  private func settlement(_ channel: UInt16) -> Method {
    let waiting = channels[channel]?.unacknowledged ?? []
    let isMultiple = random.oneIn(4)
    guard !waiting.isEmpty else { return .basicGet(BasicGet(queue: queue())) }
    let index = random.number(0...waiting.count - 1)
    let tag = random.oneIn(100) ? random.integer() : waiting[index]
    switch random.number(0...6) {
    case 0...3:
      forget(channel, index, isMultiple)
      return .basicAck(BasicAck(deliveryTag: tag, multiple: isMultiple))
    case 4:
      forget(channel, index, isMultiple)
      return .basicNack(
        BasicNack(deliveryTag: tag, multiple: isMultiple, requeue: random.flag()))
    case 5:
      forget(channel, index, false)
      return .basicReject(BasicReject(deliveryTag: tag, requeue: random.flag()))
    default:
      channels[channel]?.unacknowledged = []
      return .basicRecover(BasicRecover(requeue: random.flag()))
    }
  }

  private func forget(_ channel: UInt16, _ index: Int, _ isMultiple: Bool) {
    channels[channel]?.unacknowledged.removeSubrange(isMultiple ? 0...index : index...index)
  }

  // MARK: Topology

  private func declareQueue() -> Method {
    guard case .queueDeclare(var wanted) = declaration(queue: queue()) else { return setting() }
    wanted.passive = random.oneIn(10)
    wanted.exclusive = wanted.exclusive || random.oneIn(50)
    wanted.noWait = random.oneIn(10)
    if random.oneIn(20) { wanted.arguments = random.fieldTable(depth: 1) }
    if random.oneIn(50) { wanted.arguments = ["x-max-length": random.fieldValue(depth: 0)] }
    return .queueDeclare(wanted)
  }

  private func declareExchange() -> Method {
    guard case .exchangeDeclare(var wanted) = declaration(exchange: random.choose(Self.exchanges))
    else { return setting() }
    wanted.passive = random.oneIn(10)
    wanted.noWait = random.oneIn(10)
    if random.oneIn(50) { wanted.type = random.choose(["direct", "topic", "other"]) }
    return .exchangeDeclare(wanted)
  }

  private func declaration(queue: Name) -> Method {
    .queueDeclare(
      QueueDeclare(
        queue: queue, durable: queue.hasPrefix("durable"),
        exclusive: queue.isEmpty || exclusiveNames.contains(queue), autoDelete: queue == "q2"))
  }

  private func declaration(exchange: Name) -> Method {
    let types: [Name] = [
      "direct", "topic", "fanout", "headers", "x-consistent-hash", "x-recent-history", "x-random",
      "x-modulus-hash",
    ]
    let others: [Name: FieldTable] = [
      "x0": ["alternate-exchange": .string("x1")],
      "durable-x4": ["x-message-deduplication": .bool(true), "x-cache-size": .int32(3)],
      "durable-x5": [
        "x-message-deduplication": .bool(true), "x-deduplication-header": .string("n"),
      ],
    ]
    let index = Self.exchanges.firstIndex(of: exchange) ?? 0
    return .exchangeDeclare(
      ExchangeDeclare(
        exchange: exchange, type: types[index % types.count],
        durable: exchange.hasPrefix("durable"), autoDelete: exchange == "x2",
        arguments: others[exchange] ?? [:]))
  }

  private func bind() -> Method {
    let source = random.choose(Self.sources)
    let key = random.choose(Self.keys)
    let arguments: FieldTable = random.oneIn(4) ? ["x-match": .string("any"), "n": .void] : [:]
    let noWait = random.oneIn(10)
    switch random.number(0...7) {
    case 0:
      return .queueUnbind(
        QueueUnbind(queue: queue(), exchange: source, routingKey: key, arguments: arguments))
    case 1:
      return .exchangeBind(
        ExchangeBind(
          destination: random.choose(Self.exchanges), source: source, routingKey: key,
          noWait: noWait, arguments: arguments))
    case 2:
      return .exchangeUnbind(
        ExchangeUnbind(
          destination: random.choose(Self.exchanges), source: source, routingKey: key,
          noWait: noWait, arguments: arguments))
    default:
      return .queueBind(
        QueueBind(
          queue: queue(), exchange: source, routingKey: key, noWait: noWait, arguments: arguments))
    }
  }

  private func deletion() -> Method {
    switch random.number(0...3) {
    case 0: return .queuePurge(QueuePurge(queue: queue(), noWait: random.oneIn(10)))
    case 1:
      return .exchangeDelete(
        ExchangeDelete(exchange: random.choose(Self.exchanges), ifUnused: random.oneIn(9)))
    default:
      return .queueDelete(
        QueueDelete(queue: queue(), ifUnused: random.oneIn(9), ifEmpty: random.oneIn(9)))
    }
  }

  // MARK: The rest

  private func setting() -> Method {
    switch random.number(0...3) {
    case 0: return .confirmSelect(ConfirmSelect(noWait: random.oneIn(10)))
    case 1: return .channelFlow(ChannelFlow(active: !random.oneIn(3)))
    default:
      return .basicQos(
        BasicQos(
          prefetchSize: 0, prefetchCount: UInt16(random.choose([0, 1, 2, 10, 65_535])),
          global: random.oneIn(3)))
    }
  }

  /// Any method with any arguments.
  private func anything(on channel: UInt16) -> [UInt8] {
    let fromClients = MethodTable.methods.filter { $0.sender != "server" && $0.id.classID < 90 }
    let method = random.choose(random.oneIn(20) ? MethodTable.methods : fromClients)
    let id = [method.id.classID, method.id.methodID].flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] }
    let place = method.id.classID == 10 ? 0 : channel
    return Wire.frame(
      Frame.method, id + method.arguments(&random, reservedIsZero: random.flag()), on: place)
  }
}
