import Client
import Testing

@Suite(.timeLimit(.minutes(1))) struct ConnectionTests {
  @Test func nobodyListeningIsAnErrorOfTheSystem() async throws {
    await #expect {
      _ = try await Connection.open("amqp://localhost:1")
    } throws: { error in
      guard case .system? = error as? ClientError else { return false }
      return true
    }
  }

  @Test func aWrongURLIsToldBeforeAnythingElse() async throws {
    await #expect(throws: ClientError.self) { try await Connection.open("localhost") }
  }

  @Test(.needsBroker) func aWrongPasswordIsRefused() async throws {
    var url = try ConnectionURL(try #require(Broker.url))
    url.password = "wrong"
    await #expect {
      _ = try await Connection.open(url)
    } throws: { error in
      guard case .loginRefused? = error as? ClientError else { return false }
      return true
    }
  }

  @Test(.needsBroker) func closingEndsEverythingAndCanBeRepeated() async throws {
    let connection = try await Connection.open(try #require(Broker.url))
    let channel = try await connection.openChannel()
    let queue = try await channel.declareQueue(exclusive: true).name
    let consumer = try await channel.consume(queue)
    let next = Task { try await consumer.next() == nil }
    let end = Task { await connection.waitUntilClosed() }
    try await connection.close()
    #expect(try await next.value)
    #expect(await end.value == nil)
    try await connection.close()
    await #expect(throws: ClientError.notConnected) { try await connection.openChannel() }
    await #expect(throws: ClientError.notConnected) { try await channel.get(queue) }
  }

  @Test(.needsBroker) func anErrorOfTheConnectionReachesEveryWaiter() async throws {
    let connection = try await Connection.open(try #require(Broker.url))
    let channel = try await connection.openChannel()
    let queue = try await channel.declareQueue(exclusive: true).name
    let consumer = try await channel.consume(queue)
    let next = Task { try await consumer.next() }
    let other = try await connection.openChannel()
    // A tag that is in use is a mistake that costs the whole connection.
    await #expect(throws: ClientError.self) {
      _ = try await channel.consume(queue, tag: consumer.tag)
    }
    let end = try #require(await connection.waitUntilClosed())
    guard case .connectionClosed(let reason) = end else { throw end }
    #expect(reason.code == 530)
    await #expect(throws: end) { try await next.value }
    await #expect(throws: end) { try await other.get(queue) }
    await #expect(throws: end) { try await connection.close() }
  }

  /// Five of its heartbeats take longer than a client waits for a sign of life.
  @Test func heartbeatsKeepAnIdleConnection() async throws {
    let broker = try PatientBroker()
    let connection = try await Connection.open(broker.url)
    var count = 0
    for await _ in broker.heartbeats {
      count += 1
      if count == 5 { break }
    }
    #expect(count == 5)
    try await connection.close()
  }

  @Test func aBrokerThatSaysNothingIsGivenUp() async throws {
    let broker = try PatientBroker(answersHeartbeats: false)
    let connection = try await Connection.open(broker.url)
    let end = try #require(await connection.waitUntilClosed())
    guard case .timedOut = end else { throw end }
  }

  /// It says nothing, and what it said before is not read: that is no reason to give it up, nor when
  /// reading begins again and there is nothing more (all 12 messages come with one read).
  @Test(arguments: [12, 60]) func heartbeatsGoOnWhileNothingIsRead(messages: Int) async throws {
    let body = [UInt8](repeating: 1, count: 1000)
    let broker = try PatientBroker(
      messages: Array(repeating: body, count: messages), answersHeartbeats: false)
    var options = ConnectionOptions()
    options.undeliveredMaxBytes = 10_000
    let connection = try await Connection.open(broker.url, options: options)
    let channel = try await connection.openChannel()
    let consumer = try await channel.consume("q", withoutAck: true)
    var count = 0
    for await _ in broker.heartbeats {
      count += 1
      if count == 12 { break }
    }
    #expect(count == 12)
    for _ in 0..<messages { #expect(try await consumer.next()?.body.count == 1000) }
    try await connection.close()
  }

  @MainActor
  @Test(.needsBroker) func actorsConsumeWithoutLeaving() async throws {
    let connection = try await Connection.open(try #require(Broker.url))
    let channel = try await connection.openChannel()
    let queue = try await channel.declareQueue(exclusive: true).name
    let consumer = try await channel.consume(queue, withoutAck: true)
    for _ in 0..<100 { try await channel.publish("x", key: queue) }
    var count = 0
    for try await _ in consumer {
      count += 1
      if count == 100 { break }
    }
    try await connection.close()
  }

  @Test(.needsBroker) func manyChannelsAreOpenedAndFreed() async throws {
    var url = try ConnectionURL(try #require(Broker.url))
    url.channelMax = 20
    let connection = try await Connection.open(url)
    for _ in 0..<3 {
      var channels: [Channel] = []
      for _ in 0..<20 { channels.append(try await connection.openChannel()) }
      await #expect(throws: ClientError.channelsExhausted(20)) {
        try await connection.openChannel()
      }
      for channel in channels { try await channel.close() }
    }
    try await connection.close()
  }
}
