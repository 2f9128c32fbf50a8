import AMQP
import Base
import Testing

/// What a client sends, step by step; it waits for the answers behind each step. It leaves nothing
/// behind in the broker.
struct Dialogue: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let steps: [[UInt8]]

  /// A little of everything that clients do.
  static let whole = Dialogue(
    testDescription: "whole",
    steps: hello + declarations + publishes + deliveries + otherChannels + goodbye)

  /// The same client each time, and a mistake at the end.
  static let mistakes = [
    mistake("missing queue", [.basicGet(BasicGet(queue: "none"))]),
    mistake("passive", [.queueDeclare(QueueDeclare(queue: "none", passive: true))]),
    mistake("tag", [.basicAck(BasicAck(deliveryTag: 9))]),
    mistake("not implemented", [.txSelect(TxSelect()), .basicQos(qos(1))]),
    mistake("second open", [.channelOpen(ChannelOpen()), .basicQos(qos(1))]),
    mistake("server's method", [.basicQosOk(BasicQosOk()), .basicQos(qos(1))]),
    mistake("unknown method", [Wire.frame(Frame.method, [0, 99, 0, 1]), Wire.heartbeat]),
    mistake("short method", [Wire.frame(Frame.method, [0, 60, 0])]),
    mistake("truncated method", [Wire.frame(Frame.method, [0, 60, 0, 70, 0, 0, 9])]),
    mistake("unknown type", [Wire.frame(9, [1, 2, 3])]),
    mistake("heartbeat with channel", [Wire.frame(Frame.heartbeat, [])]),
    mistake("large frame", [[1, 0, 1, 0, 2, 0, 1, 0, 60]]),
    mistake("missing end", [Array(Wire.method(.basicQos(qos(1))).dropLast()) + [0]]),
    mistake("header without method", [Wire.header(3)]),
    mistake("body without header", [Wire.frame(Frame.body, [1, 2, 3])]),
    mistake("method in content", [publish("q"), Wire.method(.basicQos(qos(1)))]),
    mistake("long body", [publish("q"), Wire.header(2), Wire.frame(Frame.body, [1, 2, 3])]),
    mistake(
      "long body in pieces",
      [publish("q"), Wire.header(2), Wire.frame(Frame.body, [1]), Wire.frame(Frame.body, [2, 3])]),
    mistake("large message", [publish("q"), Wire.header(1 << 40), Wire.frame(Frame.body, [1])]),
    mistake("other class", [publish("q"), Wire.frame(Frame.header, [0, 10] + zeros(12))]),
    mistake("weight", [publish("q"), Wire.frame(Frame.header, [0, 60, 0, 1] + zeros(10))]),
    mistake("short header", [publish("q"), Wire.frame(Frame.header, [0, 60, 0, 0])]),
    mistake("properties", [publish("q"), Wire.header(0, properties: [0x80, 0, 5, 1])]),
    mistake("headers", [publish("q"), Wire.header(0, properties: [0x20, 0, 0, 0, 0, 9])]),
    mistake("missing exchange", [publish("q", exchange: "none"), Wire.header(0), Wire.heartbeat]),
    mistake("closed channel", [Wire.method(.basicQos(qos(1)), on: 7)]),
    mistake("channel zero", [Wire.method(.basicQos(qos(1)), on: 0)]),
    mistake("content on channel zero", [Wire.frame(Frame.body, [1], on: 0)]),
    Dialogue(testDescription: "other protocol", steps: [Array("GET / HTTP/1.1\r\n\r\n".utf8)]),
    Dialogue(testDescription: "other version", steps: [Array("AMQP".utf8) + [3, 1, 0, 0]]),
    Dialogue(testDescription: "older version", steps: [Array("AMQP".utf8) + [1, 1, 0, 9]]),
  ]

  private static func mistake(_ name: String, _ methods: [Method]) -> Dialogue {
    mistake(name, methods.map { Wire.method($0) })
  }

  /// All in one step, and the answer to our closing of the channel or the connection.
  private static func mistake(_ name: String, _ frames: [[UInt8]]) -> Dialogue {
    let closeOK = Wire.method(.channelCloseOk(ChannelCloseOk()))
    let declare = Wire.method(.queueDeclare(QueueDeclare(queue: "q", exclusive: true)))
    return Dialogue(
      testDescription: name,
      steps: hello + [declare, frames.flatMap(\.self) + closeOK + Wire.heartbeat])
  }

  private static func qos(_ count: UInt16) -> BasicQos {
    BasicQos(prefetchSize: 0, prefetchCount: count)
  }

  private static func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

  private static func publish(_ key: Name, exchange: Name = "") -> [UInt8] {
    Wire.method(.basicPublish(BasicPublish(exchange: exchange, routingKey: key)))
  }

  // MARK: The parts of the whole

  private static let hello: [[UInt8]] = [
    Frame.protocolHeader, Wire.method(.connectionStartOk(Wire.startOK), on: 0),
    Wire.method(.connectionTuneOk(Wire.tuneOK(frameMax: 4096)), on: 0)
      + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0),
    Wire.method(.channelOpen(ChannelOpen())) + Wire.heartbeat
      + Wire.method(.channelOpen(ChannelOpen()), on: 2),
  ]

  private static let declarations: [[UInt8]] = [
    Wire.method(
      .exchangeDeclare(
        ExchangeDeclare(
          exchange: "split-topic", type: "topic", durable: true,
          arguments: ["alternate-exchange": .string("split-all")])))
      + Wire.method(
        .exchangeDeclare(ExchangeDeclare(exchange: "split-all", type: "fanout", noWait: true))),
    Wire.method(
      .queueDeclare(
        QueueDeclare(
          queue: "split-durable", durable: true,
          arguments: ["x-max-length": .int32(1000), "note": .table(["a": .array([.void])])]))),
    Wire.method(.queueDeclare(QueueDeclare(exclusive: true)))
      + Wire.method(.queueBind(QueueBind(exchange: "split-all")))
      + Wire.method(.queueDeclare(QueueDeclare(queue: "split-own", exclusive: true))),
    Wire.method(
      .queueBind(QueueBind(queue: "split-own", exchange: "split-topic", routingKey: "a.*.#")))
      + Wire.method(
        .queueBind(
          QueueBind(
            queue: "split-durable", exchange: "split-topic", routingKey: "#.z", noWait: true)))
      + Wire.method(
        .exchangeBind(
          ExchangeBind(destination: "split-all", source: "amq.headers", arguments: ["k": .void]))),
    Wire.method(.confirmSelect(ConfirmSelect())),
  ]

  private static func message(
    _ exchange: Name, _ key: Name, _ body: String, mandatory: Bool = false, pieces: [Int] = [],
    _ describe: (inout BasicProperties) -> Void = { _ in }
  ) -> [UInt8] {
    var properties = BasicProperties()
    describe(&properties)
    return Wire.publish(
      BasicPublish(exchange: exchange, routingKey: key, mandatory: mandatory),
      body: Array(body.utf8), properties: properties.bytes, pieces: pieces
    ).flatMap(\.self)
  }

  /// One in each step, so that each is confirmed by itself.
  private static let publishes: [[UInt8]] = [
    message("", "split-own", "hello"), message("", "split-own", ""),
    message("split-topic", "a.b", "in pieces", pieces: [1, 0, 3]),
    message("split-topic", "a.b.z", "to two queues") { $0.deliveryMode = 2 },
    message("split-topic", "z", "kept") {
      $0.deliveryMode = 2
      $0.contentType = "text/plain"
      $0.headers = ["n": .int32(1)]
    }, message("split-topic", "nowhere", "to the alternate", mandatory: true),
    message("amq.headers", "", "by header") { $0.headers = ["k": .bool(true)] },
    message("amq.direct", "nowhere", "returned", mandatory: true) { $0.messageID = "m1" },
    message("amq.direct", "nowhere", "lost"),
    message("", "split-own", "copied") { $0.headers = ["CC": .array([.string("split-durable")])] },
  ]

  private static let deliveries: [[UInt8]] = [
    Wire.method(.basicQos(qos(2)))
      + Wire.method(.basicConsume(BasicConsume(queue: "split-own", consumerTag: "c1"))),
    Wire.method(.basicAck(BasicAck(deliveryTag: 1))),
    Wire.method(.basicNack(BasicNack(deliveryTag: 3, multiple: true))),
    Wire.method(.basicReject(BasicReject(deliveryTag: 4, requeue: true))),
    Wire.method(.basicCancel(BasicCancel(consumerTag: "c1"))),
    Wire.method(.basicRecover(BasicRecover(requeue: true)))
      + Wire.method(.basicGet(BasicGet(queue: "split-own", noAck: true)))
      + Wire.method(.basicGet(BasicGet(queue: "split-own", noAck: true)))
      + Wire.method(.queuePurge(QueuePurge(queue: "split-own"))),
    Wire.method(.basicGet(BasicGet(queue: "split-own"))) + Wire.heartbeat,
    Wire.method(.basicGet(BasicGet(queue: "split-durable"))),
  ]

  private static let otherChannels: [[UInt8]] = [
    Wire.method(.accessRequest(AccessRequest(realm: "/data")), on: 2)
      + Wire.method(.channelFlow(ChannelFlow(active: true)), on: 2)
      + Wire.method(.queueDeclare(QueueDeclare(queue: "missing", passive: true)), on: 2)
      + Wire.publish(BasicPublish(exchange: "", routingKey: "x"), body: [1, 2], on: 2)
      .flatMap(\.self)
      + Wire.method(.channelCloseOk(ChannelCloseOk()), on: 2)
      + Wire.method(.channelOpen(ChannelOpen()), on: 2),
    Wire.method(
      .basicConsume(BasicConsume(queue: "split-durable", consumerTag: "c2", noAck: true)), on: 2),
    Wire.method(
      .queueUnbind(
        QueueUnbind(queue: "split-durable", exchange: "split-topic", routingKey: "#.z")), on: 2),
    Wire.method(.queueDelete(QueueDelete(queue: "split-durable")), on: 2),
    Wire.method(.exchangeDelete(ExchangeDelete(exchange: "split-topic")), on: 2),
    Wire.method(.exchangeDelete(ExchangeDelete(exchange: "split-all")), on: 2)
      + Wire.method(
        .channelClose(ChannelClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0)),
        on: 2),
  ]

  private static let goodbye: [[UInt8]] = [
    Wire.method(
      .connectionClose(
        ConnectionClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0)), on: 0)
      + Wire.heartbeat
  ]
}
