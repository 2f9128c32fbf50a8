import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// Something that a client must not do, and the reply of the table that it gets.
struct Mistake: CustomTestStringConvertible, Sendable {
  /// The text's name in the table.
  let text: String
  /// What stands for its placeholders.
  var arguments: [String] = []
  /// The method that the reply names.
  var cause: MethodID = .none
  /// What is done before, all of it without a mistake.
  var before: [[UInt8]] = []
  /// The mistake itself, the last of the frames.
  let frames: [[UInt8]]

  var testDescription: String { "\(text) \(arguments)" }

  init(
    _ text: String, with arguments: [String] = [], by cause: MethodID = .none,
    after before: [[UInt8]] = [], _ frames: [UInt8]...
  ) {
    self.text = text
    self.arguments = arguments
    self.cause = cause
    self.before = before
    self.frames = frames
  }

  init(
    _ text: String, with arguments: [String] = [], after before: [Method] = [], _ method: Method
  ) {
    self.init(
      text, with: arguments, by: method.id, after: before.map { Wire.method($0) },
      Wire.method(method))
  }

  /// The reply; on channel 1 when it is a soft one.
  var reply: ClientEvent {
    let row = ReplyTable.texts[text]!
    let reply = row.filled(arguments)
    if row.code.isHard {
      return .method(
        .connectionClose(
          ConnectionClose(
            replyCode: row.code.number, replyText: reply, classId: cause.classID,
            methodId: cause.methodID)), channel: 0)
    }
    return .method(
      .channelClose(
        ChannelClose(
          replyCode: row.code.number, replyText: reply, classId: cause.classID,
          methodId: cause.methodID)), channel: 1)
  }
}

extension Mistake {
  static let all =
    framing + content + methods + names + declarations + equivalence + consumers + delays

  // MARK: Frames

  private static let qos = Method.basicQos(BasicQos(prefetchSize: 0, prefetchCount: 1))
  private static let publishID = BasicPublish.id

  private static let framing = [
    Mistake("unknown-frame-type", with: ["9"], Wire.frame(9, [1])),
    Mistake("frame-too-large", with: ["131081", "131072"], [1, 0, 1, 0, 2, 0, 1]),
    Mistake("missing-frame-end", Wire.method(qos).dropLast() + [0]),
    Mistake("missing-frame-end", Wire.frame(Frame.heartbeat, [], on: 0).dropLast() + [1]),
    Mistake("heartbeat-channel", with: ["1"], Wire.frame(Frame.heartbeat, [])),
    Mistake("heartbeat-payload", with: ["3"], Wire.frame(Frame.heartbeat, [1, 2, 3], on: 0)),
    Mistake(
      "malformed-method", with: ["method", "the bytes end too early"],
      Wire.frame(Frame.method, [0, 60])),
    Mistake(
      "malformed-method", with: ["basic.consume", "the bytes end too early"], by: BasicConsume.id,
      Wire.frame(Frame.method, [0, 60, 0, 20, 0, 0, 9])),
    Mistake(
      "malformed-method", with: ["basic.recover", "bytes behind its fields"], by: BasicRecover.id,
      Wire.frame(Frame.method, [0, 60, 0, 110, 1, 0])),
    Mistake(
      "unknown-method", with: ["60", "99"], by: MethodID(classID: 60, methodID: 99),
      Wire.frame(Frame.method, [0, 60, 0, 99])),
    Mistake(
      "server-only-method", with: ["basic.qos-ok"], by: BasicQosOk.id,
      Wire.method(.basicQosOk(BasicQosOk()))),
    Mistake(
      "channel-zero-only", with: ["connection.open"], by: ConnectionOpen.id,
      Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")))),
    Mistake(
      "unexpected-method", with: ["connection.open"], by: ConnectionOpen.id,
      Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)),
    Mistake("not-on-channel-zero", with: ["basic.qos"], by: BasicQos.id, Wire.method(qos, on: 0)),
    Mistake("channel-not-open", by: BasicQos.id, Wire.method(qos, on: 7)),
    Mistake("channel-not-open", by: BasicPublish.id, Wire.publish(in: 7)),
    Mistake("second-channel-open", .channelOpen(ChannelOpen())),
    Mistake(
      "channel-number-too-high", with: ["2048", "2047"], by: ChannelOpen.id,
      Wire.method(.channelOpen(ChannelOpen()), on: 2048)),
  ]

  // MARK: Content

  private static let start = Wire.method(.basicPublish(BasicPublish(exchange: "", routingKey: "q")))
  private static let body = Wire.frame(Frame.body, [1, 2, 3])

  private static let content = [
    Mistake("unexpected-content", with: ["content header"], Wire.header(3)),
    Mistake("unexpected-content", with: ["content body"], body),
    Mistake("unexpected-content", with: ["content body"], Wire.frame(Frame.body, [1], on: 0)),
    Mistake("expected-header", with: ["method"], by: qos.id, start, Wire.method(qos)),
    Mistake("expected-header", with: ["method"], by: publishID, start, start),
    Mistake("expected-header", with: ["content body"], start, body),
    Mistake("expected-body", with: ["method"], by: qos.id, start, Wire.header(4), Wire.method(qos)),
    Mistake("expected-body", with: ["content header"], start, Wire.header(4), Wire.header(4)),
    Mistake(
      "expected-body", with: ["method"], by: publishID, start, Wire.header(4), body, start),
    Mistake(
      "header-class", with: ["10", "60"], by: publishID, start,
      Wire.frame(Frame.header, [0, 10] + zeros(12))),
    Mistake(
      "header-weight", with: ["1"], by: publishID, start,
      Wire.frame(Frame.header, [0, 60, 0, 1] + zeros(10))),
    Mistake(
      "malformed-header", with: ["the bytes end too early"], by: publishID, start,
      Wire.frame(Frame.header, [0, 60, 0, 0])),
    Mistake(
      "malformed-header", with: ["unknown property flags"], by: publishID, start,
      Wire.header(0, properties: [0, 1])),
    Mistake(
      "malformed-header", with: ["bytes behind the properties"], by: publishID, start,
      Wire.header(0, properties: [0, 0, 7])),
    Mistake("body-too-long", with: ["3", "2"], by: publishID, start, Wire.header(2), body),
    Mistake("body-too-long", with: ["6", "4"], by: publishID, start, Wire.header(4), body, body),
    Mistake(
      "message-too-large", with: ["134217729", "134217728"], by: publishID, start,
      Wire.header(134_217_729)),
    Mistake(
      "message-too-large", with: ["18446744073709551615", "134217728"], by: publishID, start,
      Wire.header(.max)),
    Mistake(
      "user-id-mismatch", with: ["somebody", "guest"], by: publishID,
      message { $0.userID = "somebody" }),
    Mistake(
      "invalid-expiration", with: ["soon", "no_integer"], by: publishID,
      message { $0.expiration = "soon" }),
    Mistake(
      "invalid-expiration", with: ["-1", "{value_negative,-1}"], by: publishID,
      message { $0.expiration = "-1" }),
    Mistake(
      "invalid-header", with: ["{unacceptable_type_in_header,<<\"CC\">>,longstr}"], by: publishID,
      message { $0.headers = ["CC": .string("q")] }),
    Mistake(
      "no-reply-consumer", by: publishID, message { $0.replyTo = "amq.rabbitmq.reply-to" }),
    Mistake("no-exchange", with: ["x", "/"], by: publishID, Wire.publish(to: "x")),
    Mistake(
      "internal-exchange", with: ["amq.rabbitmq.trace", "/"], by: publishID,
      Wire.publish(to: "amq.rabbitmq.trace")),
    Mistake(
      "immediate", by: publishID,
      Wire.method(.basicPublish(BasicPublish(routingKey: "q", immediate: true)))),
  ]

  private static func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

  /// A whole message with these properties.
  private static func message(_ describe: (inout BasicProperties) -> Void) -> [UInt8] {
    var properties = BasicProperties()
    describe(&properties)
    return Wire.publish(
      BasicPublish(exchange: "", routingKey: "q"), body: [1], properties: properties.bytes
    ).flatMap(\.self)
  }

  // MARK: Methods

  private static let declareStream = Method.queueDeclare(
    QueueDeclare(queue: "stream", durable: true, arguments: ["x-queue-type": .string("stream")]))
  private static let declareQueue = Method.queueDeclare(QueueDeclare(queue: "q", exclusive: true))
  private static let declareExchange = Method.exchangeDeclare(
    ExchangeDeclare(exchange: "x", type: "direct"))

  private static let declareRing = Method.exchangeDeclare(
    ExchangeDeclare(exchange: "x", type: "x-consistent-hash"))

  private static let methods = [
    Mistake(
      "prefetch-size", with: ["7"], .basicQos(BasicQos(prefetchSize: 7, prefetchCount: 0))),
    Mistake("not-transactional", .txCommit(TxCommit())),
    Mistake("not-transactional", .txRollback(TxRollback())),
    Mistake(
      "confirm-to-transactions", after: [.confirmSelect(ConfirmSelect(noWait: true))],
      .txSelect(TxSelect())),
    Mistake(
      "transactions-to-confirm", after: [.txSelect(TxSelect())],
      .confirmSelect(ConfirmSelect(noWait: false))),
    Mistake(
      "unknown-delivery-tag", with: ["9"], after: [.txSelect(TxSelect())],
      .basicAck(BasicAck(deliveryTag: 9))),
    Mistake("unknown-delivery-tag", with: ["9"], .basicAck(BasicAck(deliveryTag: 9))),
    Mistake("unknown-delivery-tag", with: ["0"], .basicNack(BasicNack(deliveryTag: 0))),
    Mistake("unknown-delivery-tag", with: ["1"], .basicReject(BasicReject(deliveryTag: 1))),
  ]

  private static let names = [
    Mistake("no-queue", with: ["q", "/"], .queueDeclare(QueueDeclare(queue: "q", passive: true))),
    Mistake(
      "no-queue", with: ["q", "/"], .queueBind(QueueBind(queue: "q", exchange: "amq.direct"))),
    Mistake("no-queue", with: ["q", "/"], .queuePurge(QueuePurge(queue: "q"))),
    Mistake("no-queue", with: ["q", "/"], .basicGet(BasicGet(queue: "q"))),
    Mistake("no-queue", with: ["q", "/"], .basicConsume(BasicConsume(queue: "q"))),
    Mistake(
      "no-exchange", with: ["x", "/"],
      .exchangeDeclare(ExchangeDeclare(exchange: "x", type: "direct", passive: true))),
    Mistake(
      "no-exchange", with: ["x", "/"],
      .exchangeBind(ExchangeBind(destination: "amq.topic", source: "x"))),
    Mistake(
      "no-exchange", with: ["x", "/"], after: [declareQueue],
      .queueBind(QueueBind(queue: "q", exchange: "x"))),
    Mistake("no-previous-queue", .basicGet(BasicGet())),
    Mistake("no-previous-queue", .queueDelete(QueueDelete())),
    Mistake(
      "reserved-queue-name", with: ["amq.q"], .queueDeclare(QueueDeclare(queue: "amq.q"))),
    Mistake(
      "reserved-exchange-name", with: ["amq.x"],
      .exchangeDeclare(ExchangeDeclare(exchange: "amq.x", type: "direct"))),
    Mistake(
      "system-exchange", with: ["amq.topic", "/"],
      .exchangeDelete(ExchangeDelete(exchange: "amq.topic"))),
    Mistake("default-exchange", .exchangeDelete(ExchangeDelete(exchange: ""))),
    Mistake("default-exchange", .exchangeDeclare(ExchangeDeclare(exchange: "", type: "direct"))),
    Mistake(
      "default-exchange", after: [declareQueue], .queueBind(QueueBind(queue: "q", exchange: ""))),
  ]

  private static let declarations = [
    Mistake(
      "unknown-exchange-type", with: ["sundial"],
      .exchangeDeclare(ExchangeDeclare(exchange: "x", type: "sundial"))),
    Mistake(
      "invalid-queue-arg", with: ["x-expires", "q", "/", "{value_zero,0}"],
      .queueDeclare(QueueDeclare(queue: "q", arguments: ["x-expires": .int32(0)]))),
    Mistake(
      "argument-of-other-type", with: ["x-stream-offset", "q", "/", "rabbit_classic_queue"],
      after: [.queueDeclare(QueueDeclare(queue: "q", exclusive: true))],
      .basicConsume(BasicConsume(queue: "q", arguments: ["x-stream-offset": .int32(1)]))),
    Mistake(
      "invalid-queue-property", with: ["non-durable", "q", "/"],
      .queueDeclare(QueueDeclare(queue: "q", arguments: ["x-queue-type": .string("stream")]))),
    Mistake(
      "no-prefetch", with: ["stream", "/"], after: [declareStream],
      .basicConsume(BasicConsume(queue: "stream"))),
    Mistake(
      "not-of-streams", with: ["basic.get", "stream", "/"], after: [declareStream],
      .basicGet(BasicGet(queue: "stream"))),
    Mistake(
      "not-of-streams", with: ["queue.purge", "stream", "/"], after: [declareStream],
      .queuePurge(QueuePurge(queue: "stream"))),
    Mistake(
      "mistyped-queue-arg", with: ["bool", "x-dead-letter-exchange", "q", "/"],
      .queueDeclare(
        QueueDeclare(queue: "q", arguments: ["x-dead-letter-exchange": .bool(true)]))),
    Mistake(
      "invalid-exchange-arg",
      with: ["x-message-deduplication", "x", "/", "{unacceptable_type,signedint}"],
      .exchangeDeclare(
        ExchangeDeclare(
          exchange: "x", type: "direct", arguments: ["x-message-deduplication": .int32(1)]))),
    Mistake(
      "mistyped-exchange-arg", with: ["signedint", "alternate-exchange", "x", "/"],
      .exchangeDeclare(
        ExchangeDeclare(
          exchange: "x", type: "direct", arguments: ["alternate-exchange": .int32(1)]))),
    Mistake(
      "invalid-exchange", with: ["hash-header and hash-property are mutually exclusive"],
      .exchangeDeclare(
        ExchangeDeclare(
          exchange: "x", type: "x-consistent-hash",
          arguments: ["hash-header": .string("h"), "hash-property": .string("message_id")]))),
    Mistake(
      "invalid-binding", with: ["The binding key must be an integer: <<\"k\">>"],
      after: [declareQueue, declareRing],
      .queueBind(QueueBind(queue: "q", exchange: "x", routingKey: "k"))),
    Mistake(
      "hash-weight-too-high", with: ["1000", "1001"], after: [declareQueue, declareRing],
      .queueBind(QueueBind(queue: "q", exchange: "x", routingKey: "1001"))),
    Mistake(
      "invalid-binding-arg",
      with: ["x-match", "expected all, any, all-with-x or any-with-x, got most"],
      after: [declareQueue],
      .queueBind(
        QueueBind(
          queue: "q", exchange: "amq.headers", arguments: ["x-match": .string("most")]))),
    Mistake(
      "queue-in-use", with: ["q", "/"],
      after: [declareQueue, .basicConsume(BasicConsume(queue: "q", consumerTag: "c"))],
      .queueDelete(QueueDelete(queue: "q", ifUnused: true))),
    Mistake(
      "queue-not-empty", with: ["q", "/"], by: QueueDelete.id,
      after: [Wire.method(declareQueue), Wire.publish(to: "", key: "q")],
      Wire.method(.queueDelete(QueueDelete(queue: "q", ifEmpty: true)))),
    Mistake(
      "exchange-in-use", with: ["x", "/"],
      after: [
        declareQueue, declareExchange, .queueBind(QueueBind(queue: "q", exchange: "x")),
      ], .exchangeDelete(ExchangeDelete(exchange: "x", ifUnused: true))),
  ]

  private static let equivalence = [
    Mistake(
      "inequivalent-queue-flag", with: ["auto_delete", "q", "/", "true", "false"],
      after: [declareQueue],
      .queueDeclare(QueueDeclare(queue: "q", exclusive: true, autoDelete: true))),
    Mistake(
      "inequivalent-queue-arg",
      with: ["x-expires", "q", "/", "the value '9' of type 'signedint'", "none"],
      after: [declareQueue],
      .queueDeclare(
        QueueDeclare(queue: "q", exclusive: true, arguments: ["x-expires": .int32(9)]))),
    Mistake(
      "queue-locked", with: ["q", "/"], after: [declareQueue],
      .queueDeclare(QueueDeclare(queue: "q"))),
    Mistake(
      "inequivalent-exchange-flag", with: ["type", "x", "/", "fanout", "direct"],
      after: [declareExchange],
      .exchangeDeclare(ExchangeDeclare(exchange: "x", type: "fanout"))),
    Mistake(
      "inequivalent-exchange-arg",
      with: ["alternate-exchange", "x", "/", "the value 'y' of type 'longstr'", "none"],
      after: [declareExchange],
      .exchangeDeclare(
        ExchangeDeclare(
          exchange: "x", type: "direct", arguments: ["alternate-exchange": .string("y")]))),
  ]

  private static let declareDelaying = Method.exchangeDeclare(
    ExchangeDeclare(exchange: "x", type: "fanout", arguments: ["x-delay": .bool(true)]))

  private static func delayed(by delay: FieldValue) -> [UInt8] {
    var properties = BasicProperties()
    properties.headers = ["x-delay": delay]
    return Wire.publish(
      BasicPublish(exchange: "x", routingKey: "q"), body: [1], properties: properties.bytes
    ).flatMap(\.self)
  }

  private static let delays = [
    Mistake(
      "invalid-delay", with: ["expected an integer, got longstr"], by: publishID,
      after: [Wire.method(declareDelaying)], delayed(by: .string("soon"))),
    Mistake(
      "invalid-delay", with: ["315360000001 is more than 315360000000, ten years"], by: publishID,
      after: [Wire.method(declareDelaying)], delayed(by: .int64(315_360_000_001))),
    Mistake(
      "delayed-queue", with: ["amq.delayed", "/"], by: BasicGet.id,
      after: [Wire.method(declareDelaying), delayed(by: .int32(1000))],
      Wire.method(.basicGet(BasicGet(queue: "amq.delayed")))),
  ]

  private static let replies: Name = "amq.rabbitmq.reply-to"

  private static let consumers = [
    Mistake(
      "consumer-tag-reused", with: ["c"],
      after: [declareQueue, .basicConsume(BasicConsume(queue: "q", consumerTag: "c"))],
      .basicConsume(BasicConsume(queue: "q", consumerTag: "c"))),
    Mistake(
      "queue-in-exclusive-use", with: ["q", "/"],
      after: [
        declareQueue, .basicConsume(BasicConsume(queue: "q", consumerTag: "c", exclusive: true)),
      ], .basicConsume(BasicConsume(queue: "q"))),
    Mistake("reply-consumer-acks", .basicConsume(BasicConsume(queue: replies))),
    Mistake(
      "reply-consumer-set", after: [.basicConsume(BasicConsume(queue: replies, noAck: true))],
      .basicConsume(BasicConsume(queue: replies, noAck: true))),
  ]
}

extension Wire {
  /// A whole message of one byte.
  static func publish(
    to exchange: Name = "", key: Name = "", in channel: UInt16 = 1
  ) -> [UInt8] {
    publish(BasicPublish(exchange: exchange, routingKey: key), body: [1], on: channel)
      .flatMap(\.self)
  }
}
