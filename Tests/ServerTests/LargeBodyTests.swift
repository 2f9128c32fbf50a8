import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// Large bodies are sent out of the message's block, in parts, whatever becomes of the message.
@Suite struct LargeBodyTests {
  /// A body in which no two places look alike.
  private static func body(_ count: Int, seed: Int = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 0x9E37_79B1 &+ seed) >> 7) }
  }

  private static func publish(
    _ body: [UInt8], to key: Name = "q", exchange: Name = "", isPersistent: Bool = false
  ) -> [UInt8] {
    var properties = BasicProperties()
    if isPersistent { properties.deliveryMode = 2 }
    let pieces = [Int](repeating: 100_000, count: body.count / 100_000)
    return Wire.publish(
      BasicPublish(exchange: exchange, routingKey: key), body: body,
      properties: properties.bytes, pieces: pieces
    ).flatMap(\.self)
  }

  private func open(_ loop: TestLoop, frameMax: Int = 0) throws -> TestClient {
    let client = loop.connect()
    try client.open(frameMax: frameMax)
    return client
  }

  private func message(_ events: [ClientEvent]) throws -> ClientMessage {
    #expect(events.count == 1)
    guard case .message(let message) = try #require(events.first) else {
      throw ClientError.protocolViolation("no message: \(events.first!)")
    }
    return message
  }

  /// The account is as it was, but for what a broker keeps of its own.
  private func expectNothingKept(_ loop: TestLoop) {
    // Buffers are kept for a second.
    for _ in 0..<4 { loop.turn(after: 1000) }
    loop.settle()
    #expect(loop.broker.account[.output] == 0)
    #expect(loop.broker.journal.lentBytes == 0)
    #expect(loop.broker.account[.messages] < 1 << 20)
  }

  /// Ten readers get a message of 64 MiB. No turn sends more than it may, and nobody has a copy.
  @Test func aTurnSendsALimitedPartOfWhatTenReadersAreOwed() throws {
    let loop = try TestLoop()
    let publisher = try open(loop)
    let body = [UInt8](repeating: 7, count: 64 << 20)
    let readers = try (0..<10).map { number in
      let reader = try open(loop)
      let queue = Name("q\(number)")
      _ = try reader.call(.queueDeclare(QueueDeclare(queue: queue)))
      _ = try reader.call(.queueBind(QueueBind(queue: queue, exchange: "amq.fanout")))
      _ = try reader.call(.basicConsume(BasicConsume(queue: queue, consumerTag: "c", noAck: true)))
      reader.keepsNothing = true
      return reader
    }
    publisher.send(Self.publish(body, exchange: "amq.fanout"))
    var (turns, before) = (0, 0)
    while readers.contains(where: { $0.readBytes < body.count }), turns < 1000 {
      loop.turn()
      turns += 1
      let all = readers.reduce(0) { $0 + $1.readBytes }
      #expect(all - before <= Connection.allBodyBytesMax + (64 << 10))
      #expect(loop.broker.account[.output] < (64 << 20) + (2 << 20), "one block for all")
      before = all
    }
    #expect(turns >= 10 * body.count / Connection.allBodyBytesMax)
    #expect(turns < 1000)
    expectNothingKept(loop)
  }

  @Test(arguments: [0, 4096, 131_072])
  func framesAreNoLargerThanAgreed(frameMax: Int) throws {
    let loop = try TestLoop()
    let client = try open(loop, frameMax: frameMax)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    _ = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c", noAck: true)))
    let limit = frameMax == 0 ? loop.settings.frameMax : frameMax
    for size in [65_536, 65_537, limit - 8, limit - 7, 3 * (limit - 8), 1_000_003] {
      let body = Self.body(size, seed: size)
      let publisher = try open(loop)
      publisher.send(Self.publish(body))
      loop.settle()
      let bytes = client.takeBytes()
      var offset = 0
      while offset + 7 <= bytes.count {
        let length = bytes[offset + 3..<offset + 7].reduce(0) { $0 << 8 | Int($1) }
        #expect(length + Frame.overhead <= limit)
        offset += length + Frame.overhead
      }
      #expect(offset == bytes.count)
      #expect(try message(ClientEvent.parse(bytes)).body == body)
    }
    expectNothingKept(loop)
  }

  /// What is said behind a large body waits behind it, however little the client takes at once.
  @Test func theOrderOfFramesIsKept() throws {
    let loop = try TestLoop()
    let client = try open(loop)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
    let bodies = [200_000, 10, 100_000, 65_537, 0, 300_000].map { Self.body($0, seed: $0) }
    for body in bodies { client.send(Self.publish(body)) }
    loop.settle()
    client.takesAtMost = 777
    for _ in bodies { client.send(Wire.method(.basicGet(BasicGet(queue: "q", noAck: true)))) }
    client.send(Wire.method(.queueDeclare(QueueDeclare(queue: "last"))))
    loop.settle()
    let events = try client.takeEvents()
    #expect(events.count == bodies.count + 1)
    for (event, body) in zip(events, bodies) { #expect(try message([event]).body == body) }
    guard case .method(.queueDeclareOk, _) = events.last else {
      Issue.record("the last answer is \(String(describing: events.last))")
      return
    }
    expectNothingKept(loop)
  }

  enum End: CaseIterable {
    case acknowledge, acknowledgeAutomatically, purge, delete, nack
  }

  /// A body is half sent when its message goes, and others come: what is sent is still the body.
  @Test(arguments: End.allCases, [70_000, 2_000_000])
  func aMessageThatGoesIsSentToItsEnd(end: End, size: Int) throws {
    let loop = try TestLoop()
    let (client, other) = (try open(loop), try open(loop))
    _ = try other.call(.queueDeclare(QueueDeclare(queue: "q", durable: size > 100_000)))
    let body = Self.body(size)
    _ = try other.exchange(Self.publish(body, isPersistent: true))
    client.roomBytes = 10_000
    client.isWaiting = true
    let isAutomatic = end == .acknowledgeAutomatically
    client.send(
      Wire.method(.basicConsume(BasicConsume(queue: "q", consumerTag: "c", noAck: isAutomatic))))
    loop.settle()
    #expect(client.session.unsentBytes > 0)
    switch end {
    case .acknowledge: client.send(Wire.method(.basicAck(BasicAck(deliveryTag: 1))))
    case .acknowledgeAutomatically: break
    case .purge:
      client.send(Wire.method(.basicCancel(BasicCancel(consumerTag: "c", noWait: true))))
      client.send(Wire.method(.basicNack(BasicNack(deliveryTag: 1))))
      loop.settle()
      #expect(try other.call(.queuePurge(QueuePurge(queue: "q"))).count == 1)
    case .delete: _ = try other.call(.queueDelete(QueueDelete(queue: "q")))
    case .nack:
      client.send(Wire.method(.basicNack(BasicNack(deliveryTag: 1, requeue: false))))
    }
    loop.settle()
    // Whatever memory it was in is used again, if it can be.
    _ = try other.call(.queueDeclare(QueueDeclare(queue: "other")))
    for seed in 2..<12 {
      _ = try other.exchange(Self.publish(Self.body(size, seed: seed), to: "other"))
      let get = BasicGet(queue: "other", noAck: true)
      #expect(try other.call(.basicGet(get)).count == 1)
    }
    client.roomBytes = .max
    client.isWaiting = false
    loop.settle()
    let messages = try client.takeEvents().compactMap { event in
      if case .message(let message) = event { message.body } else { nil }
    }
    #expect(messages == [body])
    if end == .delete { client.send(Wire.method(.basicAck(BasicAck(deliveryTag: 1)))) }
    expectNothingKept(loop)
  }

  /// What a connection was owed is let go of with it.
  @Test func aConnectionThatEndsLetsGo() throws {
    let loop = try TestLoop()
    let (client, other) = (try open(loop), try open(loop))
    _ = try other.call(.queueDeclare(QueueDeclare(queue: "q")))
    for _ in 0..<3 { _ = try other.exchange(Self.publish(Self.body(600_000))) }
    client.roomBytes = 0
    client.send(
      Wire.method(.basicConsume(BasicConsume(queue: "q", consumerTag: "c", noAck: true))))
    loop.settle()
    #expect(loop.broker.account[.output] > 1_200_000, "two that nobody else needs")
    loop.drop(client)
    #expect(try other.call(.queueDelete(QueueDelete(queue: "q"))).count == 1)
    expectNothingKept(loop)
  }

  /// Without a prefetch there is a limit all the same.
  @Test func whatIsOwedCountsAsOutput() throws {
    let loop = try TestLoop()
    let (client, other) = (try open(loop), try open(loop))
    _ = try other.call(.queueDeclare(QueueDeclare(queue: "q")))
    for _ in 0..<20 { _ = try other.exchange(Self.publish(Self.body(300_000))) }
    client.roomBytes = 0
    client.send(Wire.method(.basicConsume(BasicConsume(queue: "q", consumerTag: "c"))))
    loop.settle()
    #expect(client.session.unsentBytes < loop.settings.outputMax + 301_000)
    #expect(client.session.unsentBytes >= loop.settings.outputMax)
    client.roomBytes = .max
    loop.settle()
    #expect(try client.takeEvents().count == 21)
  }
}
