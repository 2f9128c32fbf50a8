import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// The loop sleeps until something is due, and no longer.
@Suite struct LoopTimeTests {
  /// What begins with a word of a client is over soon.
  private func calmDown(_ loop: TestLoop) {
    loop.settle()
    #expect(loop.rest(10_000) < 30)
  }

  private func opened(_ loop: TestLoop, heartbeat: UInt16) throws -> TestClient {
    let client = loop.connect()
    _ = try client.exchange(Frame.protocolHeader)
    _ = try client.exchange(
      Wire.method(.connectionStartOk(Wire.startOK), on: 0)
        + Wire.method(.connectionTuneOk(Wire.tuneOK(heartbeat: heartbeat)), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)
        + Wire.method(.channelOpen(ChannelOpen()), on: 1))
    return client
  }

  @Test func nobodyWakesAnIdleBroker() throws {
    let loop = try TestLoop()
    let clients = try (0..<10).map { _ in try opened(loop, heartbeat: 0) }
    _ = try clients[0].call(.queueDeclare(QueueDeclare(queue: "q", durable: true)))
    _ = try clients[1].call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c")))
    calmDown(loop)
    #expect(loop.loop.waitMilliseconds == nil)
  }

  @Test func heartbeatsAloneWakeItForThem() throws {
    let loop = try TestLoop()
    let client = try opened(loop, heartbeat: 60)
    calmDown(loop)
    _ = client.takeBytes()
    // One heartbeat in thirty seconds, and the end of the memory that it took; then the client is gone.
    #expect(loop.rest(60_000) <= 4)
    #expect(client.takeBytes().count == 2 * Wire.heartbeat.count)
    #expect(!client.isClosed)
    #expect(loop.rest(60_000) <= 5)
    #expect(client.isClosed)
    #expect(loop.loop.waitMilliseconds == nil)
  }

  @Test func aHandshakeEndsInOneTurnWhenItIsDue() throws {
    let loop = try TestLoop()
    loop.turn()
    let client = loop.connect()
    let limit = loop.loop.settings.handshakeMilliseconds
    #expect(loop.loop.waitMilliseconds == limit)
    loop.turn(after: limit - 1)
    #expect(!client.isClosed)
    #expect(loop.loop.waitMilliseconds == 1)
    loop.turn(after: 1)
    #expect(client.isClosed)
    #expect(loop.loop.waitMilliseconds == nil)
  }

  @Test func whoLingersGoesWhenItsTimeIsOver() throws {
    let loop = try TestLoop()
    let client = try opened(loop, heartbeat: 0)
    _ = try client.call(.channelOpen(ChannelOpen()))
    _ = try client.call(.connectionCloseOk(ConnectionCloseOk()), on: 0)
    #expect(loop.rest(Loop.lingerMilliseconds - 100) > 0)
    #expect(!client.isClosed)
    #expect(loop.rest(200) > 0)
    #expect(client.isClosed)
  }

  /// What was postponed is looked at once where it was due first, and not for every word of a client.
  @Test func aBusyConnectionIsNotArmedAnew() throws {
    let loop = try TestLoop()
    let client = try opened(loop, heartbeat: 60)
    var armed: Set<Int64> = []
    for _ in 0..<500 {
      client.send(Wire.heartbeat)
      loop.turn(after: 1)
      armed.insert(client.connection.dueAt)
    }
    #expect(armed.count <= 2)
  }

  @Test func halfARequestIsGivenUpOnTime() throws {
    let loop = try TestLoop()
    let client = try opened(loop, heartbeat: 0)
    calmDown(loop)
    client.send(Array(Wire.method(.queueDeclare(QueueDeclare(queue: "q"))).dropLast()))
    #expect(loop.rest(loop.loop.settings.contentMilliseconds) < 20)
    #expect(client.session.state == .open)
    #expect(loop.rest(100) > 0)
    #expect(client.session.state == .closing)
  }

  /// What the broker has to do by itself wakes the loop when it is due, and not before.
  @Test func theBrokersDeadlinesWakeIt() throws {
    let loop = try TestLoop()
    _ = try opened(loop, heartbeat: 60)
    calmDown(loop)
    let alarm = Alarm()
    loop.broker.deadlines.arm(alarm, at: loop.loop.now + 5000)
    #expect(loop.loop.waitMilliseconds == 5000)
    #expect(loop.rest(4999) == 0 && alarm.calls == 0)
    #expect(loop.loop.waitMilliseconds == 1)
    loop.turn(after: 1)
    #expect(alarm.calls == 1)
    #expect(loop.loop.waitMilliseconds ?? 0 > 1000)
  }

  /// What is more than a turn may take goes on in the next, which comes at once.
  @Test func muchThatIsDueTakesTurnsWithoutWaits() throws {
    let loop = try TestLoop()
    calmDown(loop)
    let alarms = (0..<10_000).map { _ in Alarm() }
    for alarm in alarms { loop.broker.deadlines.arm(alarm, at: loop.loop.now + 100) }
    loop.turn(after: 100)
    var turns = 1
    while loop.loop.waitMilliseconds == 0, turns < 100 {
      loop.turn(after: 0)
      turns += 1
    }
    #expect(turns == 3)
    #expect(alarms.allSatisfy { $0.calls == 1 })
    #expect(loop.loop.waitMilliseconds == nil)
  }

  private final class Alarm: Timed {
    var timetablePlace = TimetablePlace()
    var calls = 0

    func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
      calls += 1
      steps -= 1
      return nil
    }
  }
}
