import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// Large bodies are put together in the memory that is their block in the end, whatever becomes of them.
@Suite struct LargeBodyInputTests {
  private static let limit = BrokerLimits.copiedBodyMax

  /// A body in which no two places look alike.
  private static func body(_ count: Int, seed: Int = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 0x9E37_79B1 &+ seed) >> 7) }
  }

  private static func properties(isPersistent: Bool = false) -> BasicProperties {
    var properties = BasicProperties()
    if isPersistent { properties.deliveryMode = 2 }
    return properties
  }

  private static func decode(_ bytes: [UInt8]) throws -> BasicProperties {
    var reader = ByteReader(bytes.span.bytes)
    return try BasicProperties(from: &reader)
  }

  /// The frames of a message but for the last `missing` ones; none has its whole body.
  private static func publish(
    _ body: [UInt8], to key: Name = "q", exchange: Name = "", isMandatory: Bool = false,
    _ properties: BasicProperties = properties(), without missing: Int = 0
  ) -> [UInt8] {
    let size = max(1, min(100_000, body.count / 2 + 1))
    return Wire.publish(
      BasicPublish(exchange: exchange, routingKey: key, mandatory: isMandatory), body: body,
      properties: properties.bytes, pieces: [Int](repeating: size, count: body.count / size)
    ).dropLast(missing).flatMap(\.self)
  }

  private func open(_ loop: TestLoop) throws -> TestClient {
    let client = loop.connect()
    try client.open()
    return client
  }

  private func message(_ events: [ClientEvent]) throws -> ClientMessage {
    guard case .message(let message) = try #require(events.first) else {
      throw ClientError.protocolViolation("no message: \(events.first!)")
    }
    return message
  }

  private func drafts(_ loop: TestLoop) -> Int { loop.broker.journal.statistics.draftsAppended }

  /// Nothing of a body is kept anywhere.
  private func expectNothingKept(_ loop: TestLoop) {
    for _ in 0..<4 { loop.turn(after: 1000) }
    loop.settle()
    #expect(loop.broker.account[.bodies] == 0)
    #expect(loop.broker.account[.output] == 0)
    #expect(loop.broker.journal.lentBytes == 0)
    #expect(loop.broker.journal.memoryBytes < 2 << 20)
  }

  // MARK: Taking over

  private static let sizes = [
    0, 1, limit - 1, limit, limit + 1, limit + 4000, 100_000, 262_144, 262_200, 600_003,
    2_200_000,
  ]

  /// The block of a body above the limit is the memory in which it came, and has it to the last byte, also
  /// for those who read the log again. Keys of any length move the body's place.
  @Test(arguments: [true, false], sizes)
  func aBodyAboveTheLimitIsNotCopied(isPersistent: Bool, size: Int) throws {
    let loop = try TestLoop()
    let client = try open(loop)
    var bodies: [[UInt8]] = []
    for length in [1, 4, 200] {
      let queue = Name([UInt8](repeating: 113, count: length))
      _ = try client.call(.queueDeclare(QueueDeclare(queue: queue, durable: true)))
      let (before, body) = (drafts(loop), Self.body(size, seed: length))
      client.send(Self.publish(body, to: queue, Self.properties(isPersistent: isPersistent)))
      // One that is small stands behind it.
      client.send(Self.publish([7], to: queue, Self.properties(isPersistent: isPersistent)))
      loop.settle()
      #expect(drafts(loop) - before == (size > Self.limit ? 1 : 0))
      bodies.append(body)
    }
    #expect(loop.broker.account[.bodies] == 0)
    if isPersistent { return try expectBodies(bodies, in: TestLoop(directory: loop.close())) }
    try expectBodies(bodies, in: loop)
  }

  private func expectBodies(_ bodies: [[UInt8]], in loop: TestLoop) throws {
    let client = try open(loop)
    for (length, body) in zip([1, 4, 200], bodies) {
      let queue = Name([UInt8](repeating: 113, count: length))
      let get = Wire.method(.basicGet(BasicGet(queue: queue, noAck: true)))
      let found = try message(client.exchange(get))
      #expect(found.body == body && found.routingKey == queue)
      #expect(try message(client.exchange(get)).body == [7])
    }
    expectNothingKept(loop)
  }

  /// Bytes come as the network has them, and other channels and connections speak in between.
  @Test(arguments: [1, 8, 777, 65_536])
  func aBodyComesInAnyParts(part: Int) throws {
    let loop = try TestLoop()
    let (client, other) = (try open(loop), try open(loop))
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    let body = Self.body(Self.limit + (part < 10 ? 300 : 400_000))
    let bytes = Self.publish(body)
    for start in stride(from: 0, to: bytes.count, by: part) {
      client.send(Array(bytes[start..<min(start + part, bytes.count)]))
      if start / part % 64 == 0 { other.send(Self.publish([1])) }
    }
    loop.settle()
    #expect(drafts(loop) == 1)
    var found: [[UInt8]] = []
    while case .message(let message)? = try client.call(
      .basicGet(BasicGet(queue: "q", noAck: true))
    ).first {
      found.append(message.body)
    }
    #expect(found.filter { $0.count > 1 } == [body])
    expectNothingKept(loop)
  }

  /// A message for many queues is in one block, which some of them find again after a restart.
  @Test func severalQueuesShareTheBlock() throws {
    let loop = try TestLoop()
    let client = try open(loop)
    let names = (0..<700).map { Name("q\($0)") }
    for (number, name) in names.enumerated() {
      client.send(
        Wire.method(.queueDeclare(QueueDeclare(queue: name, durable: number % 3 != 0))))
      client.send(Wire.method(.queueBind(QueueBind(queue: name, exchange: "amq.fanout"))))
      loop.settle()
    }
    // With its destinations the record just fits into its pages, or needs another one.
    let bodies = [300_000, 8192 * 40 - 100, 8192 * 40 - 60].map { Self.body($0, seed: $0) }
    let before = loop.broker.journal.memoryBytes
    for body in bodies {
      client.send(Self.publish(body, exchange: "amq.fanout", Self.properties(isPersistent: true)))
    }
    loop.settle()
    #expect(drafts(loop) == bodies.count)
    #expect(loop.broker.journal.memoryBytes - before < bodies.reduce(200_000) { $0 + $1.count })
    _ = client.takeBytes()
    for name in [names[0], names[1]] {
      for body in bodies {
        let get = BasicGet(queue: name, noAck: true)
        #expect(try message(client.call(.basicGet(get))).body == body)
      }
    }
    let again = try TestLoop(directory: loop.close())
    let reader = try open(again)
    for name in [names[2], names[698]] {
      for body in bodies {
        let get = BasicGet(queue: name, noAck: true)
        #expect(try message(reader.call(.basicGet(get))).body == body)
      }
    }
  }

  // MARK: The account

  /// What is announced costs nothing, and what has come about that.
  @Test func memoryGrowsWithWhatHasCome() throws {
    let loop = try TestLoop()
    let client = try open(loop)
    let size = 100 << 20
    client.send(
      Wire.method(.basicPublish(BasicPublish(routingKey: "q"))) + Wire.header(UInt64(size)))
    #expect(loop.broker.account[.bodies] < 100)
    var come = 0
    let before = loop.broker.journal.memoryBytes
    for count in [1, 1000, 60_000, 10_000, 100_000, 100_000, 100_000, 100_000] {
      client.send(Wire.frame(Frame.body, [UInt8](repeating: 1, count: count)))
      come += count
      #expect(client.session.assembledBytes == come)
      #expect(loop.broker.account[.bodies] >= come)
      #expect(loop.broker.account[.bodies] < 2 * come + 5000)
    }
    #expect(loop.broker.journal.memoryBytes == before, "it is not counted twice")
    loop.drop(client)
    #expect(loop.broker.account[.bodies] == 0)
    expectNothingKept(loop)
  }

  enum End: CaseIterable {
    case connectionBreaks, connectionCloses, channelCloses, mistakeInBetween, tooLong
    case refused, dropped
  }

  /// Whatever ends a message before it is stored gives its memory back, in parts.
  @Test(arguments: End.allCases)
  func whatComesToNothingIsGivenBack(end: End) throws {
    let loop = try TestLoop()
    let client = try open(loop)
    let body = [UInt8](repeating: 1, count: 20 << 20)
    var bytes: [UInt8]
    switch end {
    case .refused:
      var properties = Self.properties()
      properties.expiration = "soon"
      bytes = Self.publish(body, properties)
    case .dropped: bytes = Self.publish(body, to: "nobody")
    default: bytes = Self.publish(body, without: 10)
    }
    client.send(bytes)
    switch end {
    case .connectionBreaks: loop.drop(client)
    case .connectionCloses:
      client.send(
        Wire.method(
          .connectionClose(
            ConnectionClose(
              replyCode: 200, replyText: "", classId: 0, methodId: 0)), on: 0))
    case .channelCloses:
      client.send(
        Wire.method(
          .channelClose(
            ChannelClose(
              replyCode: 200, replyText: "", classId: 0, methodId: 0))))
    case .mistakeInBetween: client.send(Wire.method(.basicAck(BasicAck(deliveryTag: 1))))
    case .tooLong:
      bytes = Wire.frame(Frame.body, [UInt8](repeating: 1, count: 100_000))
      for _ in 0..<12 { client.send(bytes) }
    case .refused, .dropped: break
    }
    #expect(loop.broker.account[.bodies] == 0)
    #expect(loop.broker.journal.isGivingBackMemory)
    var turns = 0
    while loop.broker.journal.isGivingBackMemory {
      let before = loop.broker.journal.memoryBytes
      loop.turn()
      turns += 1
      #expect(before - loop.broker.journal.memoryBytes <= 8 << 20)
    }
    #expect(turns > 1)
    #expect(drafts(loop) == 0)
    expectNothingKept(loop)
  }

  // MARK: What is said back

  /// What comes back is sent out of the memory in which it came.
  @Test func aMandatoryMessageComesBackWithoutACopy() throws {
    let loop = try TestLoop()
    let client = try open(loop)
    let body = Self.body(5_000_000)
    client.roomBytes = 10_000
    client.isWaiting = true
    client.send(Self.publish(body, to: "nobody", isMandatory: true))
    loop.settle()
    #expect(drafts(loop) == 1)
    #expect(client.session.out.capacity < 100_000)
    #expect(loop.broker.account[.output] >= 5_000_000)
    client.isWaiting = false
    client.roomBytes = .max
    loop.settle()
    let returned = try message(client.takeEvents())
    #expect(returned.body == body && returned.routingKey == "nobody")
    expectNothingKept(loop)
  }

  /// Request and reply carry large bodies: the request has another reply-to than was sent, and no BCC.
  @Test(arguments: [false, true])
  func aRequestIsRewrittenAndItsReplyComes(isBlind: Bool) throws {
    let loop = try TestLoop()
    let (client, server) = (try open(loop), try open(loop))
    _ = try server.call(.queueDeclare(QueueDeclare(queue: "requests")))
    _ = try server.call(.queueDeclare(QueueDeclare(queue: "more")))
    let pseudo: Name = "amq.rabbitmq.reply-to"
    _ = try client.call(
      .basicConsume(BasicConsume(queue: pseudo, consumerTag: "c", noAck: true)))
    var properties = Self.properties()
    properties.replyTo = pseudo
    properties.headers = ["n": .int32(1)]
    if isBlind {
      properties.headers?.entries.append(
        FieldTable.Entry(name: "BCC", value: .array([.string(Array("more".utf8))])))
    }
    let (question, answer) = (Self.body(1_000_000), Self.body(2_000_000, seed: 2))
    client.send(Self.publish(question, to: "requests", properties))
    loop.settle()
    let get = BasicGet(queue: "requests", noAck: true)
    let request = try message(server.call(.basicGet(get)))
    #expect(request.body == question)
    let seen = try Self.decode(request.properties)
    let address = try #require(seen.replyTo)
    #expect(address.hasPrefix("amq.rabbitmq.reply-to."))
    #expect(seen.headers == ["n": .int32(1)])
    if isBlind {
      let other = BasicGet(queue: "more", noAck: true)
      #expect(try message(server.call(.basicGet(other))).body == question)
    }
    server.send(Self.publish(answer, to: address))
    loop.settle()
    #expect(try message(client.takeEvents()).body == answer)
    #expect(drafts(loop) == 2)
    expectNothingKept(loop)
  }
}
