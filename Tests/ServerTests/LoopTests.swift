import AMQP
import Base
import Synchronization
import Testing

@testable import Broker
@testable import Client
@testable import Server

/// What the loop does for connections and by the clock.
@Suite struct LoopTests {
  private static let goodbye = Wire.method(
    .connectionClose(ConnectionClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0)),
    on: 0)
  private let closeOK = ClientEvent.method(.connectionCloseOk(ConnectionCloseOk()), channel: 0)

  private func opened(_ loop: TestLoop) throws -> TestClient {
    let client = loop.connect()
    try client.open()
    return client
  }

  /// Time passes, in turns as the loop wants them.
  private func pass(_ milliseconds: Int64, _ loop: TestLoop) {
    for _ in 0..<milliseconds / 250 { loop.turn(after: 250) }
  }

  // MARK: Closing

  @Test func aClientThatClosesEndsTheConnectionItself() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    #expect(try client.exchange(Self.goodbye) == [closeOK])
    pass(Loop.lingerMilliseconds + 500, loop)
    #expect(!client.isStreamEnded && !client.isClosed)
    client.send(Wire.heartbeat)
    client.endStream()
    #expect(!client.isStreamEnded && client.isClosed)
    #expect(loop.loop.connectionCount == 0)
  }

  @Test func aClientThatClosesAndStaysIsDroppedInTime() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.exchange(Self.goodbye)
    pass(Loop.clientClosesMilliseconds - 500, loop)
    #expect(!client.isClosed)
    pass(1000, loop)
    #expect(client.isClosed)
  }

  @Test func theBrokerEndsTheStreamThatItClosed() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.call(.channelOpen(ChannelOpen()))
    _ = try client.call(.connectionCloseOk(ConnectionCloseOk()), on: 0)
    #expect(client.isStreamEnded && !client.isClosed)
    pass(Loop.lingerMilliseconds + 500, loop)
    #expect(client.isClosed)
  }

  @Test func whoSaysNothingMoreStillHears() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    client.isReading = false
    client.send(Self.goodbye)
    client.endStream()
    loop.turn()
    client.endStream()
    #expect(!client.isClosed)
    client.isReading = true
    loop.turn()
    #expect(try client.takeEvents() == [closeOK])
    #expect(client.isClosed)
  }

  // MARK: Time

  @Test(arguments: [-3_600_000, 3_600_000] as [Int64])
  func aHandshakeEndsInTimeHoweverTheClockIsSet(step: Int64) throws {
    let loop = try TestLoop()
    let client = loop.connect()
    _ = try client.exchange(Frame.protocolHeader)
    pass(loop.loop.settings.handshakeMilliseconds / 2, loop)
    loop.setClock(by: step)
    pass(loop.loop.settings.handshakeMilliseconds / 2 - 500, loop)
    #expect(!client.isClosed)
    pass(1000, loop)
    #expect(client.isClosed)
  }

  @Test func aLongTurnLeavesTheLastOfManyWritesForTheNext() throws {
    let loop = try TestLoop()
    let clients = try (0..<300).map { _ in try opened(loop) }
    loop.broker.isTurnLong = { true }
    for client in clients {
      client.send(Wire.method(.queueDeclare(QueueDeclare(exclusive: true)), on: 1))
    }
    var counts: [Int] = []
    var seen = 0
    repeat {
      loop.turn()
      let answered = clients.count { $0.readBytes > 0 && $0.session.unsentBytes == 0 }
      counts.append(answered - seen)
      seen = answered
    } while loop.loop.waitMilliseconds == 0 && counts.count < 20
    #expect(seen == 300)
    #expect(counts.count >= 4 && counts.allSatisfy { $0 <= 64 }, "\(counts)")
  }

  @Test func aLongTurnLeavesTheRestOfABatchForTheNext() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    let other = try opened(loop)
    loop.broker.isTurnLong = { true }
    let declare = Wire.method(.queueDeclare(QueueDeclare(exclusive: true)), on: 1)
    client.send((0..<200).flatMap { _ in declare })
    other.send(declare)
    var counts: [Int] = []
    var answers: [ClientEvent] = []
    repeat {
      loop.turn()
      let events = try client.takeEvents()
      counts.append(events.count)
      answers += events
    } while loop.loop.waitMilliseconds == 0 && counts.count < 20
    #expect(answers.count == 200)
    #expect(counts.count >= 4 && counts.allSatisfy { $0 <= 64 }, "\(counts)")
    #expect(try other.takeEvents().count == 1)
  }

  @Test func whoWaitedForWorkGoesOnInTheNextTurn() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "dead")))
    let arguments: FieldTable = [
      "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("dead"),
    ]
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q", arguments: arguments)))
    let publish = Wire.publish(BasicPublish(routingKey: "q"), body: [1]).flatMap(\.self)
    client.send((0..<6000).flatMap { _ in publish })
    client.send(Wire.method(.basicConsume(BasicConsume(queue: "q"))))
    while loop.turn() {}
    _ = try client.takeEvents()
    // Each is work for several turns, for which the next one waits.
    client.send(
      [2000, 4000, 6000].flatMap { tag in
        Wire.method(
          .basicNack(BasicNack(deliveryTag: tag, multiple: true, requeue: false)))
      })
    var turns = 0
    repeat {
      loop.turn()
      turns += 1
    } while loop.loop.waitMilliseconds == 0 && turns < 1000
    #expect(loop.broker.vhost("/")?.destinations["dead"]?.messageCount == 6000)
  }

  @Test func whatALongTurnHasLeftIsTakenThoughTheClientIsGone() throws {
    let loop = try TestLoop()
    let client = try opened(loop)
    let other = try opened(loop)
    _ = try other.call(.queueDeclare(QueueDeclare(queue: "q")))
    loop.broker.isTurnLong = { true }
    let publish = Wire.publish(BasicPublish(routingKey: "q"), body: [1]).flatMap(\.self)
    client.send((0..<200).flatMap { _ in publish })
    client.endStream()
    for _ in 0..<20 { loop.turn() }
    #expect(client.isClosed)
    let ok = try other.call(.queueDeclare(QueueDeclare(queue: "q", passive: true)))
    #expect(
      ok == [
        .method(
          .queueDeclareOk(.init(queue: "q", messageCount: 200, consumerCount: 0)), channel: 1)
      ])
  }

  @Test func slowTurnsAreToldOnceInAWhile() throws {
    let lines = Lines()
    let loop = try TestLoop(log: Log(level: .warning) { lines.add($0) })
    let client = try opened(loop)
    client.send(Wire.heartbeat)
    loop.loop.turnTook(nanoseconds: 10_000_000, onProcessor: 10_000_000)
    #expect(lines.all == [])
    loop.loop.turnTook(nanoseconds: 12_345_678, onProcessor: 7_000_000)
    #expect(lines.all.count == 1)
    #expect(
      lines.all.last?.hasPrefix(
        "a turn of the loop took 12.346ms, 7.000ms of them on the processor: ") == true)
    #expect(lines.all.last?.contains(" bytes from clients in ") == true)
    for nanoseconds in [11_000_000, 15_000_000, 13_000_000] as [Int64] {
      loop.turn()
      loop.loop.turnTook(nanoseconds: nanoseconds, onProcessor: 20_000_000)
    }
    #expect(lines.all.count == 1)
    loop.turn(after: SlowTurns.logMilliseconds)
    loop.loop.turnTook(nanoseconds: 1000, onProcessor: 1000)
    #expect(lines.all.count == 2)
    #expect(
      lines.all.last?.hasPrefix(
        "3 turns of the loop, the longest took 15.000ms, 15.000ms of them on the processor: ")
        == true)
    #expect(loop.loop.turnTimes.longest == 15_000_000)
    #expect(loop.loop.turnTimes.longestOnProcessor == 15_000_000)
    #expect(loop.loop.turnTimes.count == 6)
  }
}

/// Lines that a log wrote.
private final class Lines: Sendable {
  private let lines = Mutex<[String]>([])

  func add(_ line: String) { lines.withLock { $0.append(line) } }
  var all: [String] { lines.withLock { $0 } }
}
