import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Consumers that end since they do not acknowledge: `x-consumer-timeout`.
@Suite struct ConsumerTimeoutTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  /// So much time passes, and what is due by then is done.
  private func pass(_ milliseconds: Int64) {
    _ = broker.rest(milliseconds: milliseconds)
    while broker.broker.hasChores || broker.broker.hasDue { _ = broker.rest(milliseconds: 0) }
  }

  private func act(_ body: () throws -> Void) rethrows {
    try body()
    pass(0)
  }

  private func fill(_ bodies: String...) throws {
    try act { for body in bodies { try channel.publish(body, key: "q") } }
  }

  private func consume(_ channel: Channel, _ tag: Name, _ arguments: FieldTable = [:]) throws {
    try act {
      _ = try channel.consume(
        "q", tag: tag, isAutomatic: false, isExclusive: false, arguments: arguments)
    }
  }

  private var counts: LockCounts { broker.broker.lockCounts }
  private var timedOut: Event { .timedOut("c", of: "q", after: 100, on: 1) }

  @Test func allOfItsDeliveriesGoBackAndItIsCancelled() throws {
    try channel.declare("q", arguments: ["x-consumer-timeout": .int64(100)])
    try consume(channel, "c")
    try fill("a")
    pass(50)
    try fill("b", "c")
    #expect(client.bodies() == ["a", "b", "c"])
    pass(49)
    #expect(client.events() == [])
    pass(1)
    #expect(client.events() == [timedOut])
    #expect(broker.queue("q")?.readyCount == 3 && broker.queue("q")?.consumerCount == 0)
    #expect(counts.deliveries == 3 && counts.consumers == 1)
    // The channel lives on.
    try channel.acknowledge(3, isMultiple: true)
    #expect(counts.lateAnswers == 1)
    try consume(channel, "c")
    let again = client.deliveries()
    #expect(again.map(\.text) == ["a", "b", "c"] && again.allSatisfy(\.isRedelivered))
    try act { try channel.acknowledge(0, isMultiple: true) }
    pass(1000)
    #expect(counts.consumers == 1)
    broker.expectNothingHeld()
  }

  @Test func whoeverAcknowledgesTheOldestInTimeGoesOn() throws {
    try channel.declare("q")
    try consume(channel, "c", ["x-consumer-timeout": .int64(100)])
    for number in 1...10 as ClosedRange<UInt64> {
      try fill("\(number)")
      pass(60)
      try fill("more")
      try act { try channel.acknowledge(2 * number - 1, isMultiple: true) }
      pass(30)
      try act { try channel.acknowledge(2 * number, isMultiple: false) }
    }
    try fill("last")
    pass(99)
    #expect(counts == LockCounts())
    _ = client.events()
    pass(1)
    #expect(counts.consumers == 1 && client.events() == [timedOut])
  }

  @Test func othersOfTheChannelGoOn() throws {
    try channel.declare("q")
    try consume(channel, "c", ["x-consumer-timeout": .int64(100)])
    try consume(channel, "patient")
    try fill("a", "b", "c", "d")
    let first = client.deliveries()
    #expect(first.map(\.consumer) == ["c", "patient", "c", "patient"])
    pass(100)
    let events = client.events()
    #expect(events.first == timedOut && events.count == 3)
    #expect(broker.queue("q")?.unacknowledgedCount == 4 && broker.queue("q")?.consumerCount == 1)
    pass(10_000)
    #expect(client.events() == [] && broker.broker.deadlines.count == 0)
  }

  @Test func manyConsumersOfAChannelEnd() throws {
    try channel.declare("q")
    let tags = (0..<200).map { Name("c\($0)") }
    for tag in tags { try consume(channel, tag, ["x-consumer-timeout": .int64(100)]) }
    let bodies = (0..<20_000).map(String.init)
    try act { for body in bodies { try channel.publish(body, key: "q") } }
    #expect(client.deliveries().count == bodies.count)
    pass(100)
    #expect(client.events().count == tags.count && counts.consumers == tags.count)
    #expect(counts.deliveries == bodies.count)
    #expect(try channel.drain("q").map(\.text) == bodies)
    broker.expectNothingHeld()
  }

  @Test func theNextOneTakesOver() throws {
    try channel.declare(
      "q",
      arguments: ["x-single-active-consumer": .bool(true), "x-consumer-timeout": .int64(100)])
    try consume(channel, "c")
    let other = broker.connect()
    try consume(other.open(), "d")
    try fill("a", "b")
    #expect(client.bodies() == ["a", "b"] && other.events() == [])
    pass(100)
    #expect(client.events() == [timedOut] && other.bodies() == ["a", "b"])
  }

  @Test func aCancelledConsumersDeliveriesGoBackAsWell() throws {
    try channel.declare("q", arguments: ["x-consumer-timeout": .int64(100)])
    try consume(channel, "c")
    try fill("a", "b")
    _ = client.events()
    act { channel.cancel("c") }
    try consume(channel, "c", ["x-consumer-timeout": .int64(0)])
    pass(100)
    #expect(client.bodies() == ["a", "b"], "to the one that has its tag since")
    #expect(counts.consumers == 0 && counts.deliveries == 2)
  }

  /// Its client would not hear that others went back with the oldest.
  @Test func aCancelledConsumersDeliveriesHaveTheirOwnTimes() throws {
    try channel.declare("q", arguments: ["x-consumer-timeout": .int64(100)])
    try consume(channel, "c")
    try fill("a")
    pass(50)
    try fill("b", "c")
    act { channel.cancel("c") }
    pass(50)
    #expect(counts.deliveries == 1 && broker.queue("q")?.readyCount == 1)
    try channel.acknowledge(2, isMultiple: false)
    pass(50)
    #expect(counts == LockCounts(deliveries: 2))
    #expect(try channel.drain("q").map(\.text) == ["a", "c"])
    broker.expectNothingHeld()
  }

  @Test func anAutoDeleteQueueGoesWithItsLastConsumer() throws {
    try channel.declare("q", isAutoDelete: true)
    try consume(channel, "c", ["x-consumer-timeout": .int64(100)])
    try fill("a")
    pass(100)
    #expect(client.events().last == timedOut && broker.queue("q") == nil)
    broker.expectNothingHeld()
  }

  @Test func theShorterOfBothTimesCounts() throws {
    try channel.declare("q", arguments: ["x-lock-timeout": .int64(100)])
    try consume(channel, "c", ["x-consumer-timeout": .int64(200)])
    try fill("a")
    pass(250)
    #expect(client.deliveries().count == 3 && counts.consumers == 0)
    act { channel.cancel("c") }
    pass(100)
    try consume(channel, "c", ["x-consumer-timeout": .int64(100), "x-lock-timeout": .int64(300)])
    pass(100)
    #expect(counts.consumers == 1 && client.events().last == timedOut)
  }

  @Test func prolongingHoldsTheConsumer() throws {
    try channel.declare("q")
    try consume(channel, "c", ["x-consumer-timeout": .int64(100)])
    try fill("a")
    for _ in 0..<5 {
      pass(60)
      try act { try channel.publish("", key: "amq.lock.1") }
    }
    pass(99)
    #expect(counts.consumers == 0)
    pass(1)
    #expect(counts.consumers == 1)
  }

  @Test func getKnowsNoConsumer() throws {
    try channel.declare("q", arguments: ["x-consumer-timeout": .int64(100)])
    try fill("a")
    let got = try #require(try channel.take("q", isAutomatic: false))
    pass(1000)
    try channel.acknowledge(got.tag, isMultiple: false)
    #expect(counts == LockCounts())
  }
}

/// Locks on channels with transactions.
@Suite struct LockTransactionTests {
  private let broker: TestBroker
  private let channel: Channel
  private let other: Channel
  private let client: TestClient

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    other = client.open(2)
    try channel.declare("q", arguments: ["x-lock-timeout": .int64(100)])
    try channel.declare("done")
    try channel.startTransactions()
    try other.publish("a", key: "q")
    try other.publish("b", key: "q")
  }

  private func pass(_ milliseconds: Int64) { _ = broker.rest(milliseconds: milliseconds) }

  private func take() throws -> UInt64 {
    try #require(try channel.take("q", isAutomatic: false)).tag
  }

  private func ready(_ queue: Name) -> Int? { broker.queue(queue)?.readyCount }

  @Test func aCommitWithAnAnswerThatCameInTimeHappens() throws {
    let tag = try take()
    try channel.acknowledge(tag, isMultiple: false)
    try channel.publish("a", key: "done")
    pass(99)
    _ = try channel.commit()
    pass(1)
    #expect(ready("done") == 1 && ready("q") == 1)
    #expect(broker.broker.lockCounts == LockCounts())
  }

  @Test func aCommitFailsWhoseAnswerHasNoDelivery() throws {
    let tags = [try take(), try take()]
    for tag in tags { try channel.acknowledge(tag, isMultiple: false) }
    try channel.publish("a", key: "done")
    pass(100)
    #expect(ready("q") == 2, "an answer that was not committed holds nothing")
    #expect(mistake { _ = try channel.commit() } == .lockExpired(tags[0]))
    pass(0)
    #expect(ready("done") == 0 && ready("q") == 2)
  }

  @Test func aLateAnswerFailsTheCommitAndARollbackForgetsIt() throws {
    let tag = try take()
    pass(100)
    try channel.publish("a", key: "done")
    try channel.acknowledge(tag, isMultiple: true)
    #expect(broker.broker.lockCounts.lateAnswers == 1)
    #expect(mistake { _ = try channel.commit() } == .lockExpired(tag))
    try channel.reject(tag, isMultiple: false, requeues: true)
    try channel.rollback()
    try channel.publish("b", key: "done")
    _ = try channel.commit()
    pass(0)
    #expect(ready("done") == 1)
  }

  @Test func prolongingHappensAtOnce() throws {
    let tag = try take()
    pass(60)
    try channel.publish("", key: Name("amq.lock.\(tag)"))
    pass(60)
    try channel.acknowledge(tag, isMultiple: false)
    _ = try channel.commit()
    pass(1000)
    #expect(ready("q") == 1)
    try channel.publish("", key: "amq.lock.99", isMandatory: true)
    #expect(client.events() == [])
    _ = try channel.commit()
    #expect(client.events().count == 1, "what prolongs nothing is a message like any other")
  }
}
