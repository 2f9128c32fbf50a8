import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A transaction is bounded, and a commit that cannot happen whole does not happen.
@Suite struct TransactionLimitTests {
  private var limits = BrokerLimits()

  init() {
    limits.transactionOperationsMax = 10
    limits.transactionBytesMax = 1000
    limits.transactionStepsMax = 100
  }

  private func open(_ limits: BrokerLimits? = nil) throws -> (TestBroker, TestClient, Channel) {
    let broker = try TestBroker(limits: limits ?? self.limits)
    let client = broker.connect()
    let channel = client.open()
    try channel.startTransactions()
    try channel.declare("q", isDurable: true)
    return (broker, client, channel)
  }

  @Test func operationsAreLimited() throws {
    let (broker, _, channel) = try open()
    let other = broker.connect().open()
    try broker.durableTurn { for _ in 0..<6 { try other.publish("x", key: "q") } }
    for _ in 0..<6 { _ = try channel.take("q", isAutomatic: false) }
    for _ in 0..<4 { try channel.publish("1", key: "q") }
    try channel.acknowledge(0, isMultiple: true)
    let error = BrokerError.limitReached(.transactionOperations(max: 10))
    #expect(mistake { try channel.publish("1", key: "q") } == error)
    try channel.rollback()
    for _ in 0..<5 { try channel.publish("1", key: "q") }
    #expect(mistake { try channel.acknowledge(0, isMultiple: true) } == error)
  }

  /// The largest message does not count, so that one of any size can be sent.
  @Test func bytesAreLimitedBesidesTheLargest() throws {
    let (broker, _, channel) = try open()
    let error = BrokerError.limitReached(.transactionBytes(max: 1000))
    try channel.publishLarge([UInt8](repeating: 1, count: 200_000), key: "q")
    try channel.publish([UInt8](repeating: 1, count: 900), key: "q")
    #expect(mistake { try channel.publish([UInt8](repeating: 1, count: 900), key: "q") } == error)
    try channel.rollback()
    try channel.publish([UInt8](repeating: 1, count: 900), key: "q")
    try channel.publishLarge([UInt8](repeating: 1, count: 200_000), key: "q")
    #expect(mistake { try channel.publish([UInt8](repeating: 1, count: 900), key: "q") } == error)
    try broker.turn { _ = try channel.commit() }
    #expect(broker.queue("q")?.messageCount == 2)
  }

  @Test func whatACommitCostsIsLimited() throws {
    let (broker, _, channel) = try open()
    for number in 0..<20 {
      try channel.declare(Name("q\(number)"))
      try channel.bind(Name("q\(number)"), to: "amq.fanout")
    }
    try channel.publish("1", key: "q")
    try channel.publish("2", to: "amq.fanout", key: "")
    guard
      case .limitReached(.transactionSteps(let count, 100))? = mistake({ _ = try channel.commit() })
    else {
      Issue.record("the commit was not refused")
      return
    }
    #expect(count > 100)
    #expect(broker.queue("q")?.messageCount == 0 && broker.queue("q1")?.messageCount == 0)
  }

  @Test func memoryOfAllIsLimited() throws {
    var limits = BrokerLimits()
    limits.memoryBytes = 4 << 20
    let (broker, client, channel) = try open(limits)
    let body = [UInt8](repeating: 1, count: 10_000)
    var error: BrokerError?
    var count = 0
    while error == nil, count < 1000 {
      error = mistake { try channel.publish(body, key: "q") }
      count += 1
    }
    guard case .limitReached(.transactionMemory(_, max: 1 << 20))? = error else {
      Issue.record("it was not refused but by \(String(describing: error))")
      return
    }
    #expect((90...110).contains(count))
    #expect(client.peer.transactionBytes == broker.broker.account[.transactions])
    client.close()
    #expect(broker.broker.account[.transactions] == 0)
  }

  // MARK: Full queues

  @Test(arguments: ["reject-publish", "reject-publish-dlx"])
  func aQueueWithoutRoomRefusesTheWholeCommit(overflow: String) throws {
    let (broker, _, channel) = try open(BrokerLimits())
    try channel.declare(
      "full",
      arguments: [
        "x-max-length": .int64(2), "x-overflow": .string(overflow),
        "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("dead"),
      ])
    try channel.declare("dead")
    let error = BrokerError.refusesCommit(queue: "full", in: "/")
    try channel.publish("1", key: "q", isPersistent: true)
    for _ in 0..<3 { try channel.publish("2", key: "full") }
    broker.turn { #expect(mistake { _ = try channel.commit() } == error) }
    for queue in ["q", "full", "dead"] as [Name] {
      #expect(broker.queue(queue)?.messageCount == 0, "\(queue)")
    }
    for _ in 0..<2 { try channel.publish("2", key: "full") }
    try broker.turn { _ = try channel.commit() }
    #expect(broker.queue("full")?.messageCount == 2)
  }

  @Test func bytesOfAFullQueueCountAsWell() throws {
    let (broker, _, channel) = try open(BrokerLimits())
    try channel.declare(
      "full",
      arguments: ["x-max-length-bytes": .int64(10), "x-overflow": .string("reject-publish")])
    for _ in 0..<3 { try channel.publish("1234", key: "full") }
    broker.turn {
      #expect(mistake { _ = try channel.commit() } == .refusesCommit(queue: "full", in: "/"))
    }
    try channel.rollback()
    for _ in 0..<2 { try channel.publish("1234", key: "full") }
    try broker.turn { _ = try channel.commit() }
    #expect(broker.queue("full")?.messageCount == 2)
  }

  @Test func aQueueThatDropsItsHeadTakesEverything() throws {
    let (broker, _, channel) = try open(BrokerLimits())
    try channel.declare(
      "short", isDurable: true,
      arguments: [
        "x-max-length": .int64(2), "x-dead-letter-exchange": .string(""),
        "x-dead-letter-routing-key": .string("q"),
      ])
    for number in 0..<5 { try channel.publish("\(number)", key: "short", isPersistent: true) }
    try broker.turn { _ = try channel.commit() }
    broker.finishChores()
    #expect(try channel.drain("short").map(\.text) == ["3", "4"])
    #expect(try channel.drain("q").map(\.text) == ["0", "1", "2"])
  }

  // MARK: Between turns

  /// A commit that takes more than a turn to prepare happens in one, and others are served meanwhile.
  @Test func aLargeCommitIsPreparedBetweenTurnsAndHappensAtOnce() throws {
    let (broker, client, channel) = try open(BrokerLimits())
    let reader = broker.connect().open()
    for number in 0..<8000 { try channel.publish("\(number)", key: "q", isPersistent: true) }
    var committed: Committed? = .whenDurable(0)
    try broker.turn { committed = try channel.commit() }
    #expect(committed == .now)
    #expect(client.peer.isWorking)
    var counts: Set<Int?> = []
    while broker.broker.hasChores {
      counts.insert(broker.queue("q")?.messageCount)
      broker.turn()
    }
    #expect(counts == [0])
    #expect(broker.queue("q")?.messageCount == 8000)
    #expect(client.peer.workedUpTo > broker.journal.durablePosition)
    #expect(try reader.drain("q").count == 8000)
    #expect(client.events() == [])
  }

  @Test func aLargeCommitThatFailsIsTold() throws {
    let (broker, client, channel) = try open(BrokerLimits())
    try channel.declare(
      "full", arguments: ["x-max-length": .int64(2), "x-overflow": .string("reject-publish")])
    for _ in 0..<8000 { try channel.publish("1", key: "q", isPersistent: true) }
    for _ in 0..<3 { try channel.publish("1", key: "full") }
    try broker.turn { _ = try channel.commit() }
    broker.finishChores()
    #expect(
      client.events() == [.commitFailed(.refusesCommit(queue: "full", in: "/"), on: 1)])
    #expect(broker.queue("q")?.messageCount == 0)
    #expect(!client.peer.isWorking)
  }

  @Test func aConnectionThatEndsMeanwhileRollsBack() throws {
    let (broker, client, channel) = try open(BrokerLimits())
    for _ in 0..<8000 { try channel.publish("1", key: "q", isPersistent: true) }
    try broker.turn { _ = try channel.commit() }
    client.close()
    broker.finishChores()
    #expect(broker.queue("q")?.messageCount == 0)
    #expect(broker.broker.account[.transactions] == 0)
    broker.expectNothingHeld()
  }

  /// A queue that goes while a commit is prepared gets nothing, and nothing is kept of it.
  @Test func aQueueThatGoesMeanwhileGetsNothing() throws {
    let (broker, client, channel) = try open(BrokerLimits())
    try channel.declare("r")
    for name in ["q", "r"] as [Name] { try channel.bind(name, to: "amq.fanout") }
    let other = broker.connect().open()
    for _ in 0..<6000 { try channel.publish("1", to: "amq.fanout", key: "") }
    try broker.turn { _ = try channel.commit() }
    #expect(client.peer.isWorking)
    try other.delete("r")
    broker.finishChores()
    #expect(broker.queue("r") == nil)
    #expect(broker.queue("q")?.messageCount == 6000)
    try other.purge("q")
    broker.finishChores()
    client.close()
    broker.expectNothingHeld()
  }
}
