import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// What is delivered in a turn has a bound, whoever has how much to be delivered.
@Suite struct DeliveryBudgetTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private static let bodyBytes = 4096
  private static let inTurn = 16
  /// Deliveries and queues looked at cost a little more than the bodies.
  private static let budget = inTurn * (bodyBytes + DeliveryBudget.bytesPerDelivery)

  init() throws {
    var limits = BrokerLimits()
    limits.deliveryBytesPerTurn = Self.budget
    broker = try TestBroker(limits: limits)
    client = broker.connect()
    channel = client.open()
  }

  private func fill(_ queue: Name, _ count: Int) throws {
    try channel.declare(queue)
    for _ in 0..<count {
      try channel.publish(String(repeating: "x", count: Self.bodyBytes), key: queue)
    }
  }

  /// Consumers of a connection each.
  private func readers(_ count: Int, of queue: Name) throws -> [TestClient] {
    try (0..<count).map { _ in
      let reader = broker.connect()
      try reader.open().consume(queue, isAutomatic: true)
      return reader
    }
  }

  @Test(arguments: [1, 3])
  func aLargeBacklogGoesOutInTurnsOfTheSameSize(consumers: Int) throws {
    try fill("q", 100)
    let readers = try readers(consumers, of: "q")
    var counts: [Int] = []
    repeat {
      broker.turn()
      counts.append(readers.reduce(0) { $0 + $1.bodies().count })
    } while broker.broker.hasChores
    #expect(counts.allSatisfy { $0 <= Self.inTurn })
    #expect(counts.dropLast().allSatisfy { $0 >= Self.inTurn - 1 })
    #expect(counts.reduce(0, +) == 100)
  }

  @Test func othersAreServedWhileABacklogGoesOut() throws {
    try fill("long", 200)
    try fill("short", 1)
    let long = try readers(3, of: "long")
    let short = try readers(1, of: "short")
    broker.turn()
    #expect(broker.broker.hasChores)
    broker.turn()
    #expect(short[0].bodies().count == 1)
    broker.finishChores()
    #expect(long.reduce(0) { $0 + $1.bodies().count } == 200)
  }

  @Test func severalBacklogsTakeTurns() throws {
    var all: [[TestClient]] = []
    for queue in ["a", "b", "c", "d"] as [Name] {
      try fill(queue, 100)
      all.append(try readers(1, of: queue))
    }
    for _ in 0..<4 { broker.turn() }
    let counts = all.map { $0[0].bodies().count }
    #expect(counts.allSatisfy { $0 > 0 }, "\(counts)")
    broker.finishChores()
    for (readers, count) in zip(all, counts) { #expect(readers[0].bodies().count == 100 - count) }
  }

  @Test func aBacklogOfConsumersThatComeOutOfALineStarvesNobody() throws {
    try fill("long", 400)
    try fill("short", 1)
    let reader = broker.connect()
    try reader.open().consume("long", isAutomatic: true)
    reader.limitRoom(to: Self.inTurn)
    broker.turn()
    let short = try readers(1, of: "short")
    var turns = 0
    repeat {
      reader.limitRoom(to: Self.inTurn)
      reader.peer.roomMade()
      broker.turn()
      turns += 1
    } while short[0].bodies().isEmpty && turns < 20
    #expect(turns <= 3)
  }

  /// The backlog of a queue takes every turn's whole budget, and its consumer of the higher priority,
  /// which waited with others, is not served last.
  @Test func whoComesOutOfALineIsServedBeforeLowerPrioritiesHoweverLittleTurnsHave() throws {
    try fill("q", 100)
    let low = broker.connect()
    try low.open().consume("q", isAutomatic: true)
    let high = broker.connect()
    let channel = high.open()
    try channel.consume("q", isAutomatic: true, priority: 7)
    channel.setFlow(false)
    broker.turn()
    #expect(broker.broker.hasChores)
    #expect(low.bodies().count >= Self.inTurn - 1)
    channel.setFlow(true)
    broker.finishChores()
    #expect(low.bodies().isEmpty)
    #expect(high.bodies().count >= 100 - Self.inTurn)
  }

  @Test func aRequestSeesWhatWasSentBeforeItThoughTheTurnsBudgetIsSpent() throws {
    try fill("long", 100)
    let long = try readers(1, of: "long")
    try channel.declare("own")
    let own = try readers(1, of: "own")
    try broker.turn {
      broker.broker.pump()
      #expect(long[0].bodies().count <= Self.inTurn)
      try channel.publish("hers", key: "own")
      broker.broker.pump()
      #expect(own[0].bodies() == [], "the budget is spent")
      broker.broker.pumpForRequest()
      #expect(own[0].bodies() == ["hers"])
      #expect(long[0].bodies().isEmpty)
    }
  }

  @Test func whatRequestsOverdrawHasABoundAsWell() throws {
    try fill("long", 100)
    let long = try readers(1, of: "long")
    broker.turn {
      for _ in 0..<10 { broker.broker.pumpForRequest() }
      #expect((Self.inTurn...2 * Self.inTurn).contains(long[0].bodies().count))
    }
    broker.finishChores()
    #expect(broker.queue("long")?.messageCount == 0)
  }
}
