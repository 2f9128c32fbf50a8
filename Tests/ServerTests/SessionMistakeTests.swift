import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Journal
@testable import Server

/// Every mistake has its code and its text, closes what it must, and harms nobody else.
@Suite struct SessionMistakeTests {
  @Test(arguments: Mistake.all)
  func aMistakeGetsItsReplyAndNothingMore(mistake: Mistake) throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    _ = try client.exchange(mistake.before.flatMap(\.self))
    #expect(client.session.state == .open)
    // What comes behind is not answered: neither methods nor content.
    let behind = Wire.method(.accessRequest(AccessRequest(realm: "/data"))) + Wire.publish(key: "q")
    #expect(try client.exchange(mistake.frames.flatMap(\.self) + behind) == [mistake.reply])
    try expectRest(client, ReplyTable.texts[mistake.text]!.code)
  }

  /// After the client has answered, a channel can be opened anew, or the connection has ended.
  private func expectRest(_ client: TestClient, _ code: ReplyTable.Code) throws {
    if code.isHard {
      #expect(client.session.state == .closing)
      #expect(client.session.peer == nil)
      let ok = Wire.method(.connectionCloseOk(ConnectionCloseOk()), on: 0)
      #expect(try client.exchange(ok + Wire.heartbeat) == [])
      // After an error in the framing nobody knows where frames begin.
      if code.name != "FRAME_ERROR" { #expect(client.session.state == .closed) }
    } else {
      let reopened = try client.exchange(
        Wire.method(.channelCloseOk(ChannelCloseOk())) + Wire.method(.channelOpen(ChannelOpen())))
      #expect(reopened == [.method(.channelOpenOk(ChannelOpenOk()), channel: 1)])
      let answer = try client.call(.accessRequest(AccessRequest(realm: "/data")))
      #expect(answer == [.method(.accessRequestOk(AccessRequestOk(ticket: 1)), channel: 1)])
    }
  }

  @Test func everyTextOfTheTableIsTried() {
    let tried = Set(Mistake.all.map(\.text))
    let elsewhere: Set = [
      // In SessionHandshakeTests.
      "login-refused", "unknown-mechanism", "malformed-response", "vhost-not-found",
      "connection-limit", "frame-max-too-low", "frame-max-too-high", "channel-max-too-high",
      "too-many-channels", "frame-before-tune",
      // Below, since they need limits or a broker that has failed.
      "too-many-consumers", "too-many-priorities", "too-many-queues", "too-many-exchanges",
      "too-many-bindings", "too-many-arguments", "too-many-routing-keys", "routing-too-long",
      "too-much-content", "broker-stopping", "journal-failed", "no-route",
      // In MemoryTests.
      "content-stalled", "out-of-memory",
      // In SessionTransactionTests, and in TransactionLimitTests of the broker.
      "commit-refused", "commit-too-long", "transaction-too-long", "transaction-too-large",
      "transactions-too-large",
      // In the scenario of locks, and in LockTransactionTests of the broker: it takes time.
      "lock-expired",
      // In StreamGroupTests of the broker.
      "too-many-groups", "too-many-members",
      // In NumbersTests of the broker.
      "no-number-left",
      // In RecoveryTests of the broker: a disk that cannot be read.
      "message-unreadable",
    ]
    #expect(tried.union(elsewhere) == Set(ReplyTable.texts.keys))
    #expect(tried.isDisjoint(with: elsewhere))
  }

  // MARK: Limits

  @Test func theBrokersLimitsAreTold() throws {
    var limits = BrokerLimits()
    limits.queuesMax = 1
    limits.exchangesMax = 9
    limits.bindingsMax = 0
    limits.consumersMax = 0
    limits.argumentsMax = 1
    limits.routingKeysMax = 1
    limits.routingStepsMax = 2
    let loop = try TestLoop(limits: limits)
    let queue = Method.queueDeclare(QueueDeclare(queue: "q", exclusive: true))
    let exchange = Method.exchangeDeclare(ExchangeDeclare(exchange: "x", type: "direct"))
    for mistake in [
      Mistake(
        "too-many-queues", with: ["p", "/", "1"], after: [queue],
        .queueDeclare(QueueDeclare(queue: "p"))),
      Mistake(
        "too-many-exchanges", with: ["y", "/", "9"], after: [exchange],
        .exchangeDeclare(ExchangeDeclare(exchange: "y", type: "direct"))),
      Mistake(
        "too-many-bindings", with: ["/", "0"], after: [queue],
        .queueBind(QueueBind(queue: "q", exchange: "amq.direct"))),
      Mistake(
        "too-many-consumers", with: ["0"], after: [queue], .basicConsume(BasicConsume(queue: "q"))),
      Mistake(
        "too-many-arguments", with: ["2", "1"],
        .queueDeclare(QueueDeclare(queue: "q", arguments: ["a": .void, "b": .void]))),
      Self.copying(to: ["a", "b"], "too-many-routing-keys", with: ["2", "1"]),
      Self.copying(to: ["a"], "routing-too-long", with: ["", "/", "2"]),
    ] {
      let client = loop.connect()
      try client.open()
      _ = try client.exchange(mistake.before.flatMap(\.self))
      #expect(try client.exchange(mistake.frames.flatMap(\.self)) == [mistake.reply])
      loop.drop(client)
    }
  }

  /// A message with these keys in its header CC.
  private static func copying(
    to keys: [String], _ text: String, with arguments: [String]
  ) -> Mistake {
    var properties = BasicProperties()
    properties.headers = ["CC": .array(keys.map { .string($0) })]
    let frames = Wire.publish(
      BasicPublish(routingKey: "key"), body: [1], properties: properties.bytes)
    return Mistake(text, with: arguments, by: BasicPublish.id, frames.flatMap(\.self))
  }

  @Test func theLimitOfPrioritiesIsTold() throws {
    var limits = BrokerLimits()
    limits.consumerPrioritiesMax = 1
    let loop = try TestLoop(limits: limits)
    let client = loop.connect()
    try client.open()
    let mistake = Mistake(
      "too-many-priorities", with: ["q", "/", "1"],
      after: [
        .queueDeclare(QueueDeclare(queue: "q", exclusive: true)),
        .basicConsume(BasicConsume(queue: "q", consumerTag: "c")),
      ],
      .basicConsume(BasicConsume(queue: "q", arguments: ["x-priority": .int32(1)])))
    _ = try client.exchange(mistake.before.flatMap(\.self))
    #expect(try client.exchange(mistake.frames.flatMap(\.self)) == [mistake.reply])
  }

  @Test func unfinishedMessagesAreLimitedTogether() throws {
    var settings = SessionSettings()
    settings.messageSizeMax = 1000
    let loop = try TestLoop(settings: settings)
    let client = loop.connect()
    try client.open()
    var frames: [UInt8] = []
    for channel in 2...5 as ClosedRange<UInt16> {
      frames += Wire.method(.channelOpen(ChannelOpen()), on: channel)
      frames += Wire.method(.basicPublish(BasicPublish()), on: channel)
      frames += Wire.header(1000, on: channel)
      frames += Wire.frame(Frame.body, [UInt8](repeating: 1, count: 600), on: channel)
    }
    let reply = Mistake("too-much-content", with: ["2000"], by: BasicPublish.id).reply
    #expect(try client.exchange(frames).last == reply)
    #expect(client.session.assembledBytes == 0)
    #expect(loop.broker.account[.bodies] == 0)
  }

  // MARK: What is not the client's mistake

  @Test func aBrokerThatStopsSaysSo() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    client.session.stop()
    #expect(try client.takeEvents() == [Mistake("broker-stopping").reply])
    let early = loop.connect()
    _ = try early.exchange(Frame.protocolHeader)
    early.session.stop()
    #expect(early.session.state == .closed)
  }

  @Test func aLogThatFailedIsToldToThoseWhoNeedIt() throws {
    let loop = try TestLoop()
    let (waiting, publishing, other) = (loop.connect(), loop.connect(), loop.connect())
    for client in [waiting, publishing, other] { try client.open() }
    _ = try publishing.call(.queueDeclare(QueueDeclare(queue: "q", durable: true)))
    waiting.send(Wire.method(.queueDeclare(QueueDeclare(queue: "p", durable: true))))
    loop.broker.journal.failure = "no disk"
    waiting.session.logFailed("no disk")
    #expect(try waiting.takeEvents() == [Mistake("journal-failed", with: ["no disk"]).reply])
    let persistent = Wire.publish(BasicPublish(routingKey: "q"), body: [1], properties: [16, 0, 2])
    let refused = Mistake("journal-failed", with: ["no disk"], by: BasicPublish.id)
    #expect(try publishing.exchange(persistent.flatMap(\.self)) == [refused.reply])
    _ = try other.exchange(Wire.publish(key: "q"))
    let got = try other.call(.basicGet(BasicGet(queue: "q", noAck: true)))
    guard case .message? = got.first else { return #expect(got == []) }
  }

  @Test func aMandatoryMessageComesBack() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    var properties = BasicProperties()
    properties.messageID = "m"
    let frames = Wire.publish(
      BasicPublish(exchange: "amq.topic", routingKey: "some.key", mandatory: true),
      body: [1, 2, 3], properties: properties.bytes)
    client.send(frames.flatMap(\.self))
    loop.settle()
    let bytes = client.takeBytes()
    let events = try ClientEvent.parse(bytes)
    guard case .message(let message)? = events.first else { return #expect(events == []) }
    #expect(message.kind == .returned)
    #expect(message.exchange == "amq.topic")
    #expect(message.routingKey == "some.key")
    #expect(message.properties == properties.bytes)
    #expect(message.body == [1, 2, 3])
    // The client library does not keep code and text.
    let row = ReplyTable.texts["no-route"]!
    let text = Array(row.template.utf8)
    let start =
      [UInt8(row.code.number >> 8), UInt8(row.code.number & 255), UInt8(text.count)] + text
    #expect(Array(bytes[11..<11 + start.count]) == start)
  }
}
