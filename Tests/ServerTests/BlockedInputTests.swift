import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// What publishers have sent that are blocked, and what clients begin on many channels: it is counted, and
/// blocks nobody for ever.
@Suite struct BlockedInputTests {
  /// What has come of a body is counted until the message that has it is refused, and not longer.
  @Test func aRefusedMessageLeavesTheAccountAsItWas() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    let before = loop.broker.account[.bodies]
    let frames = Wire.publish(
      BasicPublish(routingKey: "q"), body: [UInt8](repeating: 1, count: 40_000),
      properties: [0, 1], pieces: [20_000])
    for frame in frames.dropLast() { client.send(frame) }
    #expect(loop.broker.account[.bodies] > before)
    client.send(frames[frames.count - 1])
    #expect(loop.broker.account[.bodies] == before)
  }

  private static func limits(_ bytes: Int) -> BrokerLimits {
    var limits = BrokerLimits()
    limits.memoryBytes = bytes
    return limits
  }

  private func open(_ loop: TestLoop, count: Int) throws -> [TestClient] {
    try (0..<count).map { _ in
      let client = loop.connect()
      try client.open()
      return client
    }
  }

  private func publishes(_ queue: Name, _ count: Int, of size: Int) -> [UInt8] {
    let one = Wire.publish(
      BasicPublish(routingKey: queue), body: [UInt8](repeating: 1, count: size)
    ).flatMap(\.self)
    return (0..<count).flatMap { _ in one }
  }

  private func ready(_ queue: Name, _ client: TestClient) throws -> Int? {
    let answer = try client.call(.queueDeclare(QueueDeclare(queue: queue, passive: true)))
    guard case .method(.queueDeclareOk(let ok), _) = answer.last else { return nil }
    return Int(ok.messageCount)
  }

  /// Forty publishers are blocked, each with more read of it than a fortieth of the limit. When what blocks
  /// them has gone they go on, although they hold more than the limit together.
  @Test func whatBlockedPublishersHaveSentDoesNotKeepThemBlocked() throws {
    let loop = try TestLoop(limits: Self.limits(1 << 20))
    let clients = try open(loop, count: 41)
    let other = clients[40]
    for queue in ["full", "q"] as [Name] {
      _ = try other.call(.queueDeclare(QueueDeclare(queue: queue)))
    }
    other.send(publishes("full", 30, of: 40_000))
    loop.settle()
    #expect(loop.broker.alarm != nil)
    for client in clients.dropLast() { client.send(publishes("q", 3, of: 15_000)) }
    loop.settle()
    #expect(loop.broker.account[.input] > 1 << 19)
    let purger = loop.connect()
    try purger.open()
    _ = try purger.call(.queuePurge(QueuePurge(queue: "full")))
    for _ in 0..<20 {
      loop.turn(after: 250)
      _ = try purger.call(.queuePurge(QueuePurge(queue: "q")))
    }
    #expect(loop.broker.alarm == nil)
    #expect(clients.allSatisfy { $0.session.state == .open && $0.session.pause == .none })
    #expect(loop.broker.account[.input] == 0)
  }

  /// While input takes too much memory, the next ones are read in small pieces: what many publishers that are
  /// blocked make the broker keep depends on them little.
  @Test func littleIsReadOfPublishersWhileInputTakesTooMuch() throws {
    let loop = try TestLoop(limits: Self.limits(1 << 20))
    loop.setAlarm("low on memory")
    let clients = try open(loop, count: 100)
    for client in clients { client.send(publishes("q", 60, of: 1000)) }
    loop.settle()
    #expect(loop.broker.account[.input] > 1 << 19)
    #expect(loop.broker.account[.input] < 1 << 19 + 100 * 12_000)
    for client in clients { loop.drop(client) }
    #expect(loop.broker.account[.input] == 0)
  }

  /// Many go on at once, each with thousands of requests: a turn that has taken long leaves the next to the
  /// one that follows.
  @Test func thoseThatGoOnInALongTurnTakeTurns() throws {
    let loop = try TestLoop()
    let clients = try open(loop, count: 6)
    _ = try clients[0].call(.queueDeclare(QueueDeclare(queue: "q")))
    loop.setAlarm("low on memory")
    for client in clients { _ = try client.exchange(publishes("q", 10, of: 1)) }
    loop.broker.isTurnLong = { true }
    loop.setAlarm(nil)
    #expect(loop.counts.ready == 10)
    for _ in 1..<6 {
      let before = loop.counts.ready
      loop.turn()
      #expect(loop.counts.ready == before + 10)
    }
    #expect(try ready("q", clients[5]) == 60)
  }

  /// A publish whose header is still to come is kept on each channel.
  @Test func messagesThatHaveHardlyBegunAreCountedAndGivenUp() throws {
    let loop = try TestLoop()
    let before = loop.broker.account
    let client = loop.connect()
    try client.open()
    let name = Name([UInt8](repeating: 120, count: 250))
    var frames: [UInt8] = []
    for channel in 2...1001 as ClosedRange<UInt16> {
      frames += Wire.method(.channelOpen(ChannelOpen()), on: channel)
      let publish = BasicPublish(exchange: name, routingKey: name)
      frames += Wire.method(.basicPublish(publish), on: channel)
    }
    _ = try client.exchange(frames)
    #expect(loop.broker.account[.bodies] >= 1000 * 500)
    for _ in 0..<62 {
      client.send(Wire.heartbeat)
      loop.turn(after: 1000)
    }
    #expect(client.session.state == .closing)
    #expect(loop.broker.account[.bodies] == 0)
    loop.drop(client)
    #expect(loop.broker.account[.connections] == before[.connections])
  }

  /// A table of channels reaches to the highest number.
  @Test func channelsOfHighNumbersAreCounted() throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    let before = loop.broker.account[.connections]
    _ = try client.call(.channelOpen(ChannelOpen()), on: 2047)
    #expect(loop.broker.account[.connections] >= before + 2047 * 8)
    loop.drop(client)
    #expect(loop.broker.account[.connections] == 0)
  }

  @Test func channelsAreRefusedWhenConnectionsTakeTooMuch() throws {
    let loop = try TestLoop(limits: Self.limits(4 << 20))
    var refused: ConnectionClose?
    for _ in 0..<10 where refused == nil {
      let client = loop.connect()
      try client.open()
      let opens = (2...1000 as ClosedRange<UInt16>).flatMap {
        Wire.method(.channelOpen(ChannelOpen()), on: $0)
      }
      if case .method(.connectionClose(let close), _) = try client.exchange(opens).last {
        refused = close
      }
    }
    #expect(refused?.replyCode == 506)
    #expect(
      refused?.replyText.description.hasPrefix("RESOURCE_ERROR - no memory for a channel: ") == true
    )
    #expect(loop.broker.account[.connections] < 1 << 20 + 10_000)
    #expect(loop.broker.alarm == nil)
  }
}
