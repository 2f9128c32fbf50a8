import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// What a session waits for: the log, room for messages, room in its output.
@Suite struct SessionWaitTests {
  private func opened(_ loop: TestLoop) throws -> TestClient {
    let client = loop.connect()
    try client.open()
    return client
  }

  private let declare = Method.queueDeclare(QueueDeclare(queue: "q", durable: true))
  private let declared = ClientEvent.method(
    .queueDeclareOk(QueueDeclareOk(queue: "q", messageCount: 0, consumerCount: 0)), channel: 1)

  // MARK: The log

  @Test func aPromiseOfDurabilityWaitsForTheLogAndSoDoesWhatFollows() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    let ask = Wire.method(.accessRequest(AccessRequest(realm: "/data")))
    client.send(Wire.method(declare) + ask)
    loop.turn()
    #expect(try client.takeEvents() == [])
    guard case .untilDurable(let position) = client.session.pause else {
      return #expect(client.session.pause == .none)
    }
    #expect(position > 0)
    loop.settle()
    #expect(loop.broker.journal.durablePosition >= position)
    let ticket = ClientEvent.method(.accessRequestOk(AccessRequestOk(ticket: 1)), channel: 1)
    #expect(try client.takeEvents() == [declared, ticket])
    #expect(try client.call(declare) == [declared])
  }

  @Test(arguments: [
    Method.queueDeclare(QueueDeclare(queue: "p", durable: true)),
    .exchangeDeclare(ExchangeDeclare(exchange: "x", type: "fanout", durable: true)),
    .queueBind(QueueBind(queue: "q", exchange: "amq.topic")),
    .queueUnbind(QueueUnbind(queue: "q", exchange: "amq.direct")),
    .exchangeBind(ExchangeBind(destination: "amq.topic", source: "amq.direct")),
    .queuePurge(QueuePurge(queue: "q")), .queueDelete(QueueDelete(queue: "q")),
  ])
  func everyDurableChangeIsAnsweredWhenItIsDurable(method: Method) throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.call(declare)
    _ = try client.call(.queueBind(QueueBind(queue: "q", exchange: "amq.direct")))
    client.send(persistent(1) + Wire.method(method))
    #expect(client.session.pause != .none, "\(method.id)")
    #expect(try client.takeEvents() == [])
    loop.settle()
    #expect(try client.takeEvents().count == 1)
  }

  @Test func nothingWaitsWithoutAnAnswer() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    let quiet = QueueDeclare(queue: "q", durable: true, noWait: true)
    client.send(Wire.method(.queueDeclare(quiet)))
    #expect(client.session.pause == .none)
    #expect(try client.call(.queueDeclare(QueueDeclare(queue: "q", passive: true))) == [declared])
  }

  @Test func transientChangesAreAnsweredAtOnce() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    client.send(Wire.method(.queueDeclare(QueueDeclare(queue: "q"))))
    #expect(try client.takeEvents() == [declared])
  }

  @Test func aClientThatLeavesWhileItWaitsIsForgotten() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    client.send(Wire.method(declare))
    loop.drop(client)
    loop.settle()
    let unsent = client.session.out.count
    #expect(unsent == 0)
    #expect(try opened(loop).call(declare) == [declared])
  }

  // MARK: Confirms

  private func confirm(_ tag: UInt64, isMultiple: Bool) -> ClientEvent {
    .confirm(tag: tag, isMultiple: isMultiple, isAccepted: true, channel: 1)
  }

  private func persistent(_ count: Int, key: Name = "q") -> [UInt8] {
    let frames = Wire.publish(
      BasicPublish(routingKey: key), body: [1], properties: [0x10, 0, 2])
    return (0..<count).flatMap { _ in frames.flatMap(\.self) }
  }

  @Test func confirmsOfATurnAreOne() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.call(declare)
    let selected = try client.call(.confirmSelect(ConfirmSelect()))
    #expect(selected == [.method(.confirmSelectOk(ConfirmSelectOk()), channel: 1)])
    #expect(try client.call(.confirmSelect(ConfirmSelect())) == selected)
    client.send(persistent(5, key: "nobody"))
    loop.turn()
    #expect(try client.takeEvents() == [confirm(5, isMultiple: true)])
    client.send(persistent(3))
    loop.turn()
    #expect(try client.takeEvents() == [])
    loop.settle()
    #expect(try client.takeEvents() == [confirm(8, isMultiple: true)])
    #expect(try client.exchange(persistent(1)) == [confirm(9, isMultiple: false)])
  }

  // MARK: Alarms

  @Test func publishersWaitWhileTheBrokerCannotTakeMore() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    loop.setAlarm("low on memory")
    #expect(try client.call(.queueDeclare(QueueDeclare(queue: "q"))) == [declared])
    let blocked = ConnectionBlocked(reason: "low on memory")
    let ask = Wire.method(.accessRequest(AccessRequest(realm: "/data")))
    #expect(
      try client.exchange(ask + Wire.publish(key: "q") + ask) == [
        .method(.accessRequestOk(AccessRequestOk(ticket: 1)), channel: 1),
        .method(.connectionBlocked(blocked), channel: 0),
      ])
    #expect(client.session.pause == .blocked)
    #expect(try client.exchange(ask) == [])
    loop.setAlarm(nil)
    loop.settle()
    let ticket = ClientEvent.method(.accessRequestOk(AccessRequestOk(ticket: 1)), channel: 1)
    #expect(
      try client.takeEvents()
        == [.method(.connectionUnblocked(ConnectionUnblocked()), channel: 0), ticket, ticket])
    let status = try client.call(.queueDeclare(QueueDeclare(queue: "q", passive: true)))
    let one = QueueDeclareOk(queue: "q", messageCount: 1, consumerCount: 0)
    #expect(status == [.method(.queueDeclareOk(one), channel: 1)])
  }

  @Test func aLargeMessageIsFinishedUnderAnAlarm() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    let frames = Wire.publish(
      BasicPublish(routingKey: "q"), body: [UInt8](repeating: 1, count: 20_000), pieces: [1])
    _ = try client.exchange(frames[0] + frames[1])
    loop.setAlarm("low on disk")
    _ = try client.exchange(frames[2] + frames[3])
    let status = try client.call(.queueDeclare(QueueDeclare(queue: "q", passive: true)))
    let one = QueueDeclareOk(queue: "q", messageCount: 1, consumerCount: 0)
    #expect(status == [.method(.queueDeclareOk(one), channel: 1)])
  }

  @Test func whoDoesNotKnowOfAlarmsIsHeldBackWithoutAWord() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    var startOK = Wire.startOK
    startOK.clientProperties = [:]
    _ = try client.exchange(
      Frame.protocolHeader + Wire.method(.connectionStartOk(startOK), on: 0)
        + Wire.method(.connectionTuneOk(Wire.tuneOK()), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)
        + Wire.method(.channelOpen(ChannelOpen())))
    loop.setAlarm("low on memory & disk")
    #expect(try client.exchange(Wire.publish(key: "q")) == [])
    #expect(client.session.pause == .blocked)
    loop.setAlarm(nil)
    loop.settle()
    #expect(try client.takeEvents() == [])
    #expect(client.session.pause == .none)
  }

  // MARK: A log that is behind

  @Test func onlyWhoHasPartInWhatTheLogIsBehindWithIsHeldBack() throws {
    let loop = try TestLoop(uncommittedBytesMax: 15_000)
    let heavy = try opened(loop)
    let transient = try opened(loop)
    let light = try opened(loop)
    _ = try heavy.call(.queueDeclare(QueueDeclare(queue: "durable", durable: true)))
    _ = try heavy.call(.queueDeclare(QueueDeclare(queue: "transient")))
    let body = [UInt8](repeating: 1, count: 20_000)
    let persistent: [UInt8] = [0x10, 0, 2]
    let large = Wire.publish(
      BasicPublish(routingKey: "durable"), body: body, properties: persistent)
    let small = Wire.publish(
      BasicPublish(routingKey: "durable"), body: [1], properties: persistent)
    heavy.send(Array(large.joined()))
    #expect(heavy.connection.isHeldBack)
    transient.send(Wire.publish(key: "transient"))
    #expect(!transient.connection.isHeldBack)
    light.send(Array(small.joined()))
    #expect(light.connection.isHeldBack)
    loop.settle()
    #expect(!heavy.connection.isHeldBack && !light.connection.isHeldBack)
    let status = try light.call(.queueDeclare(QueueDeclare(queue: "durable", passive: true)))
    let two = QueueDeclareOk(queue: "durable", messageCount: 2, consumerCount: 0)
    #expect(status == [.method(.queueDeclareOk(two), channel: 1)])
  }

  // MARK: Output

  @Test func deliveriesStopAtTheOutputsLimitAndGoOnWhenItWasRead() throws {
    var settings = SessionSettings()
    settings.outputMax = 10_000
    let loop = try TestLoop(settings: settings)
    let client = try opened(loop)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    let body = [UInt8](repeating: 7, count: 1000)
    for _ in 0..<10 {
      let frames = Wire.publish(BasicPublish(routingKey: "q"), body: body)
      _ = try client.exchange((0..<10).flatMap { _ in frames.flatMap(\.self) })
    }
    client.isReading = false
    _ = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c", noAck: true)))
    #expect((10_000..<12_000).contains(client.session.out.count))
    #expect(client.session.peer?.hasRoom == false)
    client.isReading = true
    loop.settle()
    let deliveries = try client.takeEvents().dropFirst()
    #expect(deliveries.count == 100)
    #expect(client.outputPeak < 12_000)
    let tags = deliveries.map { event -> UInt64 in
      if case .message(let message) = event { message.deliveryTag } else { 0 }
    }
    #expect(tags == (1...100).map { UInt64($0) })
  }

  // MARK: Bodies

  @Test(arguments: [0, 1, 4088, 4089, 8176, 10_000, 300_000])
  func bodiesCrossAsManyFramesAsTheyNeed(size: Int) throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open(frameMax: 4096)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    let body = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    let pieces = [Int](repeating: 4088, count: size / 4088)
    let frames = Wire.publish(BasicPublish(routingKey: "q"), body: body, pieces: pieces)
    _ = try client.exchange(frames.flatMap(\.self))
    _ = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c", noAck: true)))
    _ = try client.exchange(frames.flatMap(\.self))
    client.send(frames.flatMap(\.self))
    loop.settle()
    let bytes = client.takeBytes()
    let events = try ClientEvent.parse(bytes)
    guard case .message(let message)? = events.first else { return #expect(events == []) }
    #expect(message.body == body)
    #expect(Self.frameSizes(bytes).allSatisfy { $0 <= 4096 })
    // Header and method besides the bodies.
    #expect(Self.frameSizes(bytes).count == 2 + (size + 4087) / 4088)
  }

  /// The sizes of the frames in `bytes`, with their overhead.
  private static func frameSizes(_ bytes: [UInt8]) -> [Int] {
    var sizes: [Int] = []
    var offset = 0
    while offset < bytes.count {
      let size = bytes[offset + 3..<offset + 7].reduce(0) { $0 << 8 | Int($1) } + 8
      sizes.append(size)
      offset += size
    }
    return sizes
  }

  @Test func messagesOfSeveralChannelsInterleave() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.exchange(
      Wire.method(.channelOpen(ChannelOpen()), on: 2)
        + Wire.method(.queueDeclare(QueueDeclare(queue: "q"))))
    let first = Wire.publish(BasicPublish(routingKey: "q"), body: [1, 2, 3], pieces: [1])
    let second = Wire.publish(
      BasicPublish(routingKey: "q"), body: [4, 5, 6], pieces: [1], on: 2)
    let mixed = zip(first, second).flatMap { $0 + Wire.heartbeat + $1 }
    _ = try client.exchange(mixed)
    for expected in [[1, 2, 3], [4, 5, 6]] as [[UInt8]] {
      let events = try client.call(.basicGet(BasicGet(queue: "q", noAck: true)))
      guard case .message(let message)? = events.first else { return #expect(events == []) }
      #expect(message.body == expected)
    }
  }
}
