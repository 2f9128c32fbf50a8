import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Queues with `x-single-active-consumer`: one consumer is served, the others stand by.
@Suite struct SingleActiveConsumerTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    try channel.declare("q", arguments: ["x-single-active-consumer": .bool(true)])
  }

  private func served(_ count: Int) throws -> [Name] {
    for number in 0..<count { try channel.publish("\(number)", key: "q") }
    broker.turn()
    return client.deliveries().map(\.consumer)
  }

  @Test func theFirstIsServedUntilItGoes() throws {
    for tag in ["a", "b", "c"] as [Name] { try channel.consume("q", tag: tag, isAutomatic: true) }
    #expect(broker.queue("q")?.consumerCount == 3)
    #expect(try served(3) == ["a", "a", "a"])
    channel.cancel("b")
    #expect(try served(1) == ["a"])
    channel.cancel("a")
    #expect(broker.queue("q")?.consumerCount == 1)
    #expect(try served(2) == ["c", "c"])
    channel.cancel("c")
    #expect(try served(1) == [])
    try channel.consume("q", tag: "d", isAutomatic: true)
    #expect(try served(0) == ["d"])
  }

  @Test func whatTheActiveOneHasNotAcknowledgedStaysItsOwn() throws {
    let other = broker.connect()
    let otherChannel = other.open()
    channel.setPrefetch(1, isGlobal: false)
    try channel.consume("q", tag: "a")
    try otherChannel.consume("q", tag: "b")
    #expect(try served(2) == ["a"])
    #expect(other.deliveries().isEmpty, "nobody else is served while it is full")
    channel.close()
    broker.finishChores()
    broker.turn()
    #expect(other.deliveries().map(\.text) == ["0", "1"])
  }

  @Test func theHighestPriorityStandsInFirst() throws {
    try channel.consume("q", tag: "a", isAutomatic: true)
    try channel.consume("q", tag: "b", isAutomatic: true)
    try channel.consume("q", tag: "c", isAutomatic: true, priority: 5)
    try channel.consume("q", tag: "d", isAutomatic: true, priority: 5)
    #expect(try served(1) == ["a"])
    for (gone, next) in [("a", "c"), ("c", "d"), ("d", "b")] {
      channel.cancel(Name(gone))
      #expect(try served(1) == [Name(next)])
    }
  }

  @Test func nobodyIsExclusive() throws {
    #expect(
      mistake { try channel.consume("q", isExclusive: true) }
        == .inExclusiveUse(queue: "q", in: "/"))
  }

  @Test func allAreToldWhenTheQueueIsDeleted() throws {
    for tag in ["a", "b"] as [Name] { try channel.consume("q", tag: tag) }
    try channel.delete("q")
    broker.finishChores()
    #expect(
      Set(client.events().map { "\($0)" })
        == Set(["a", "b"].map { "\(Event.cancelled(Name($0), on: 1))" }))
  }

  /// Each that goes is followed by the one that has waited longest, however many stand behind.
  @Test(.timeLimit(.minutes(1))) func manyStandByAndGoInTheirOrder() throws {
    let count = 65_000
    for number in 0..<count { try channel.consume("q", tag: Name("\(number)"), isAutomatic: true) }
    for number in 0..<count - 1 {
      channel.cancel(Name("\(number)"))
      if number % 1000 == 0 { #expect(try served(1) == [Name("\(number + 1)")]) }
    }
    #expect(try served(1) == [Name("\(count - 1)")])
  }

  @Test(.timeLimit(.minutes(1))) func aQueueThatManyStandByForGoesInSlices() throws {
    for number in 0..<65_000 {
      try channel.consume("q", tag: Name("\(number)"), isAutomatic: true)
    }
    broker.turn()
    try broker.turn { try channel.delete("q") }
    #expect((32...60).contains(broker.finishChores()))
    #expect(client.events().count == 65_000)
  }

  @Test func prioritiesOfThoseThatStandByAreLimited() throws {
    var limits = BrokerLimits()
    limits.consumerPrioritiesMax = 2
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare("q", arguments: ["x-single-active-consumer": .bool(true)])
    for (tag, priority) in [("a", 1), ("b", 2), ("c", 1), ("d", 2)] as [(Name, Int64)] {
      try channel.consume("q", tag: tag, priority: priority)
    }
    #expect(
      mistake { try channel.consume("q", tag: "e", priority: 3) }
        == .limitReached(.priorities(queue: "q", in: "/", max: 2)))
    channel.cancel("b")
    channel.cancel("d")
    try channel.consume("q", tag: "e", priority: 3)
  }
}
