import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages that wait for their time, in the log, in lane files, and over restarts.
@Suite struct DelayRecoveryTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare() throws {
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", isDurable: true,
      arguments: ["x-delayed-type": .string("direct")])
    try channel.declare("q", isDurable: true)
    try channel.bind("q", to: "later", key: "k")
  }

  private func publish(
    _ body: String, delay: FieldValue, on channel: Channel? = nil, isPersistent: Bool = true
  ) throws {
    var properties = BasicProperties()
    properties.headers = ["x-delay": delay]
    try (channel ?? self.channel).publish(
      body, to: "later", key: "k", properties: properties, isPersistent: isPersistent)
  }

  private func pass(_ milliseconds: Int64) { _ = broker.rest(milliseconds: milliseconds) }

  private func act(_ body: () throws -> Void) rethrows {
    try body()
    pass(0)
  }

  private var ready: Int? { broker.queue("q")?.readyCount }
  private var delayed: Int? { broker.queue("amq.delayed")?.readyCount }

  @Test func aConfirmWaitsForTheLog() throws {
    try declare()
    try channel.startConfirming()
    broker.durableTurn()
    _ = client.events()
    try broker.turn { try publish("a", delay: .int32(1000)) }
    #expect(client.events() == [])
    broker.durableTurn()
    #expect(client.events() == [.confirmed(1, isMultiple: false, on: 1)])
  }

  @Test func aRestartKeepsAllAndDeliversTheOverdueByTime() throws {
    try declare()
    let delays: [Int64] = [50_000, 10, 7_000_000, 300, 20_000, 86_400_000, 40_000, 256, 128]
    try act {
      for delay in delays { try publish("\(delay)", delay: .int64(delay)) }
      try publish("transient", delay: .int64(30), isPersistent: false)
    }
    broker.close()
    let again = try TestBroker(in: broker.directory, date: TestBroker.firstDate + 45_000)
    let reader = again.connect()
    let other = reader.open()
    #expect(again.queue("amq.delayed")?.readyCount == delays.count)
    try other.consume("q", isAutomatic: true)
    _ = again.rest(milliseconds: 10)
    #expect(reader.bodies() == ["10", "128", "256", "300", "20000", "40000"])
    try publish("new", delay: .int32(100), on: other)
    _ = again.rest(milliseconds: 100)
    #expect(reader.bodies() == ["new"])
    _ = again.rest(milliseconds: 100_000_000)
    #expect(reader.bodies() == ["50000", "7000000", "86400000"])
    again.expectNothingHeld()
  }

  @Test func aCrashKeepsAll() throws {
    try declare()
    let delays: [Int64] = [10, 300, 20_000, 7_000_000]
    try broker.durableTurn {
      for delay in delays { try publish("\(delay)", delay: .int64(delay)) }
    }
    pass(5000)
    broker.durableTurn()
    let again = try broker.crashed()
    _ = again.rest(milliseconds: 8_000_000)
    let texts = try again.connect().open().drain("q").map(\.text)
    #expect(texts == ["10", "300", "20000", "7000000"])
    again.expectNothingHeld()
  }

  /// At a place of the finest level, and at one of the next.
  @Test(arguments: [200, 1000] as [Int64])
  func aClockThatWentBackKeepsAll(delay: Int64) throws {
    try declare()
    try act { try publish("a", delay: .int64(delay)) }
    broker.close()
    let again = try TestBroker(in: broker.directory, date: TestBroker.firstDate - 1_000_000)
    _ = again.rest(milliseconds: 999_999 + delay)
    #expect(again.queue("q")?.readyCount == 0)
    _ = again.rest(milliseconds: 2000)
    #expect(again.queue("q")?.readyCount == 1)
  }

  @Test func aLifeDoesNotBeginInARestart() throws {
    try declare()
    var properties = BasicProperties()
    properties.headers = ["x-delay": .int32(10_000)]
    properties.expiration = "100"
    try act {
      try channel.publish(
        "a", to: "later", key: "k", properties: properties, isPersistent: true)
    }
    let again = try TestBroker(in: broker.directory.copy(), date: TestBroker.firstDate + 5000)
    _ = again.rest(milliseconds: 5000)
    #expect(again.queue("q")?.readyCount == 1)
    _ = again.rest(milliseconds: 100)
    #expect(again.queue("q")?.readyCount == 0)
  }

  @Test func aRestartUsesTheLanesThatThereAre() throws {
    try declare()
    let delays: [Int64] = [10, 100, 200, 5000, 50_000, 3_000_000]
    try act { for delay in delays { try publish("a", delay: .int64(delay)) } }
    pass(4_000_000)
    #expect(try channel.drain("q").count == delays.count)
    broker.durableTurn()
    let count = try #require(broker.queue("amq.delayed")?.lanes.count)
    broker.close()
    let again = try TestBroker(in: broker.directory)
    let other = again.connect().open()
    for delay in delays { try publish("b", delay: .int64(delay), on: other) }
    _ = again.rest(milliseconds: 4_000_000)
    #expect(try other.drain("q").count == delays.count)
    #expect(again.queue("amq.delayed")?.lanes.count == count)
  }

  /// Moving to a finer place, and going on.
  @Test(arguments: [1000, 100] as [Int64])
  func whereverTheLogEndsAMessageIsInOnePlace(delay: Int64) throws {
    try declare()
    try act {
      for number in 0..<3 { try publish("\(number)", delay: .int64(delay)) }
    }
    let begin = broker.journal.durablePosition
    broker.advance(milliseconds: 990)
    broker.durableTurn()
    var found: Set<[Int?]> = []
    for position in stride(from: begin, through: broker.journal.durablePosition, by: 8) {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      found.insert([other.queue("amq.delayed")?.messageCount, other.queue("q")?.messageCount])
      other.close()
    }
    #expect(found == [[3, 0], [0, 3]])
  }

  @Test func manyMoveIntoLaneFilesAndComeOnTime() throws {
    let broker = try TestBroker.moving()
    let client = broker.connect()
    let channel = client.open()
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", isDurable: true,
      arguments: ["x-delayed-type": .string("fanout")])
    try channel.declare("q", isDurable: true)
    try channel.bind("q", to: "later")
    try broker.turn {
      for number in 0..<3000 {
        try publish("\(number)", delay: .int64(Int64(600_000 + number * 40)), on: channel)
      }
    }
    try broker.moveOut(channel)
    #expect(broker.hasMoved)
    let again = try broker.crashed(settings: .moving)
    let reader = again.connect()
    try reader.open().consume("q", isAutomatic: true)
    var texts: [String] = []
    for _ in 0..<80 {
      _ = again.rest(milliseconds: 10_000)
      texts += reader.bodies()
    }
    #expect(texts == (0..<3000).map { "\($0)" })
    again.spillTurns()
    #expect(again.queue("amq.delayed")?.messageCount == 0)
  }

  @Test func aFailedLogKeepsWhatIsDurable() throws {
    let disk = FaultyDisk()
    let broker = try TestBroker(disk: disk)
    let channel = broker.connect().open()
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", isDurable: true,
      arguments: ["x-delayed-type": .string("fanout")])
    try channel.declare("q", isDurable: true)
    try channel.bind("q", to: "later")
    try broker.durableTurn { try publish("a", delay: .int32(60_000), on: channel) }
    disk.fail(.write, ".segment", code: 5)
    broker.durableTurn { try? publish("b", delay: .int32(1000), on: channel) }
    #expect(broker.journal.failure != nil)
    _ = broker.rest(milliseconds: 60_000)
    #expect(broker.queue("q")?.readyCount == 0)
    let again = try TestBroker(in: broker.directory.copy())
    _ = again.rest(milliseconds: 62_000)
    #expect(try again.connect().open().drain("q").map(\.text) == ["a"])
  }

  @Test func manyInOneMillisecondComeInSlices() throws {
    try declare()
    try channel.consume("q", isAutomatic: true)
    try act { for number in 0..<20_000 { try publish("\(number)", delay: .int32(500)) } }
    pass(500)
    #expect(client.bodies() == (0..<20_000).map { "\($0)" })
    broker.expectNothingHeld()
  }
}
