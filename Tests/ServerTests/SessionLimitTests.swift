import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// What a client may do at the edge of what there is, without harm to anybody else.
@Suite struct SessionLimitTests {
  @Test(arguments: [0, 3, 1 << 63, .max] as [UInt64], [false, true])
  func aTagThatWasNeverGivenClosesTheChannel(tag: UInt64, isMultiple: Bool) throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    try Self.deliverTwo(to: client)
    let ack = BasicAck(deliveryTag: tag, multiple: isMultiple)
    let answer = try client.call(.basicAck(ack))
    // Tag 0 means all when it is multiple.
    guard tag != 0 || !isMultiple else { return #expect(answer == []) }
    let close = ChannelClose(
      replyCode: 406, replyText: Name("PRECONDITION_FAILED - unknown delivery tag \(tag)"),
      classId: 60, methodId: 80)
    #expect(answer == [.method(.channelClose(close), channel: 1)])
  }

  @Test func aBodyFrameMayBeEmpty() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q", exclusive: true)))
    let publish = Wire.publish(
      BasicPublish(exchange: "", routingKey: "q"), body: [1, 2, 3], pieces: [0, 1, 0])
    _ = try client.exchange(publish.flatMap(\.self))
    let events = try client.call(.basicGet(BasicGet(queue: "q", noAck: true)))
    guard case .message(let message)? = events.first else { return #expect(events == []) }
    #expect(message.body == [1, 2, 3])
  }

  /// A few bytes can ask for a large message again and again.
  @Test func repeatedGetsWaitUntilTheirAnswersAreRead() throws {
    var settings = SessionSettings()
    settings.outputMax = 64 << 10
    let loop = try TestLoop(settings: settings)
    let client = loop.connect()
    try client.open()
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q", exclusive: true)))
    let body = [UInt8](repeating: 7, count: 100_000)
    let publish = Wire.publish(BasicPublish(exchange: "", routingKey: "q"), body: body)
    _ = try client.exchange(publish.flatMap(\.self))
    var requests: [UInt8] = []
    for tag in UInt64(1)...100 {
      requests += Wire.method(.basicGet(BasicGet(queue: "q")))
      requests += Wire.method(.basicReject(BasicReject(deliveryTag: tag, requeue: true)))
    }
    client.isReading = false
    client.send(requests)
    loop.settle()
    #expect(client.outputPeak < settings.answersMax + 2 * body.count)
    client.isReading = true
    loop.settle()
    let answers = try client.takeEvents()
    #expect(answers.count == 100)
  }

  /// Routing walks from exchange to exchange, however many there are.
  @Test(arguments: [false, true])
  func aLongChainOfExchangesIsWalkedAndTakenApart(byAlternates: Bool) throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    let count = 20_000
    var requests: [UInt8] = []
    for index in 0...count {
      let next: FieldTable = ["alternate-exchange": .string("x\(index + 1)")]
      requests += Wire.method(
        .exchangeDeclare(
          ExchangeDeclare(
            exchange: Name("x\(index)"), type: "fanout", autoDelete: true, noWait: true,
            arguments: byAlternates ? next : [:])))
      if index > 0, !byAlternates {
        requests += Wire.method(
          .exchangeBind(
            ExchangeBind(
              destination: Name("x\(index)"), source: Name("x\(index - 1)"), noWait: true)))
      }
    }
    requests += Wire.method(.queueDeclare(QueueDeclare(queue: "q", exclusive: true)))
    requests += Wire.method(.queueBind(QueueBind(queue: "q", exchange: Name("x\(count)"))))
    requests += Wire.publish(BasicPublish(exchange: "x0"), body: [1]).flatMap(\.self)
    _ = try client.exchange(requests)
    let events = try client.call(.queueDelete(QueueDelete(queue: "q")))
    #expect(events == [.method(.queueDeleteOk(QueueDeleteOk(messageCount: 1)), channel: 1)])
  }

  /// No queue holds direct replies back, so that a requester that does not read loses some.
  @Test func repliesThatNobodyReadsAreDropped() throws {
    var settings = SessionSettings()
    settings.outputMax = 64 << 10
    var limits = BrokerLimits()
    limits.unreadReplyBytesMax = 1 << 20
    let loop = try TestLoop(settings: settings, limits: limits)
    let (requester, replier) = (loop.connect(), loop.connect())
    try requester.open()
    try replier.open()
    let address = try Self.replyAddress(of: requester)
    let body = [UInt8](repeating: 7, count: 10_000)
    let reply = Wire.publish(
      BasicPublish(exchange: "", routingKey: address, mandatory: true), body: body)
    requester.isReading = false
    let answers = try replier.exchange((0..<400).flatMap { _ in reply.flatMap(\.self) })
    #expect(requester.outputPeak < settings.outputMax + limits.unreadReplyBytesMax + 100_000)
    requester.isReading = true
    loop.settle()
    let replies = try requester.takeEvents()
    #expect(replies.count > 100)
    #expect(replies.count + answers.count == 400)
    // And there is room again.
    #expect(try replier.exchange(reply.flatMap(\.self)) == [])
    #expect(try requester.takeEvents().count == 1)
  }

  /// What a replier finds as the reply-to of the requester's request.
  private static func replyAddress(of requester: TestClient) throws -> Name {
    var properties = BasicProperties()
    properties.replyTo = "amq.rabbitmq.reply-to"
    _ = try requester.call(
      .basicConsume(BasicConsume(queue: "amq.rabbitmq.reply-to", consumerTag: "c", noAck: true)))
    _ = try requester.call(.queueDeclare(QueueDeclare(queue: "requests", exclusive: true)))
    let request = Wire.publish(
      BasicPublish(exchange: "", routingKey: "requests"), body: [], properties: properties.bytes)
    _ = try requester.exchange(request.flatMap(\.self))
    let got = try requester.call(.basicGet(BasicGet(queue: "requests", noAck: true)))
    guard case .message(let message)? = got.first else { return "" }
    var reader = ByteReader(message.properties.span.bytes)
    return try BasicProperties(from: &reader).replyTo ?? ""
  }

  private static func deliverTwo(to client: TestClient) throws {
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q", exclusive: true)))
    let publish = Wire.publish(BasicPublish(exchange: "", routingKey: "q"), body: [1])
    _ = try client.exchange(publish.flatMap(\.self) + publish.flatMap(\.self))
    let events = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c")))
    try #require(events.count == 3)
  }
}
