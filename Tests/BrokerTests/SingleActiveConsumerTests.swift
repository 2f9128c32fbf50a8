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
}
