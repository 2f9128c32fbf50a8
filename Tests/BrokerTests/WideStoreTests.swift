import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A message to very many queues is stored between turns.
@Suite struct WideStoreTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private let another: Channel

  private static let count = 10_000
  private static let turnsMin = count / BrokerLimits().choreStepsPerTurn

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    another = broker.connect().open()
    for number in 0..<Self.count {
      let name = Name("q\(number)")
      try another.declare(name, isDurable: number.isMultiple(of: 2))
      try another.bind(name, to: "amq.fanout")
    }
    broker.durableTurn()
    try channel.startConfirming()
  }

  private func queue(_ number: Int) -> Queue { broker.queue(Name("q\(number)"))! }

  private var readyCounts: [Int] { (0..<Self.count).map { queue($0).readyCount } }

  @Test func everyQueueGetsItOnceAndTheConfirmComesLast() throws {
    try broker.turn {
      try channel.publish("1", key: "q1")
      try channel.publish("2", to: "amq.fanout", key: "", isPersistent: true)
    }
    #expect(client.peer.isWorking)
    #expect(broker.broker.account[.bodies] > 0)
    #expect(client.events() == [.confirmed(1, isMultiple: false, on: 1)])
    #expect(queue(Self.count - 1).readyCount == 0)
    // Others go on, and are not in its way.
    try broker.turn { try another.publish("3", key: Name("q\(Self.count - 1)")) }
    var turns = 1
    while broker.broker.hasChores {
      #expect(client.events() == [])
      broker.turn()
      turns += 1
    }
    #expect(turns >= Self.turnsMin)
    #expect(!client.peer.isWorking)
    #expect(broker.broker.account[.bodies] == 0)
    broker.durableTurn()
    #expect(client.events() == [.confirmed(2, isMultiple: false, on: 1)])
    var expected = Array(repeating: 1, count: Self.count)
    expected[1] = 2
    expected[Self.count - 1] = 2
    #expect(readyCounts == expected)
    #expect(try another.drain("q1").map(\.text) == ["1", "2"])
    #expect(try another.drain(Name("q\(Self.count - 1)")).map(\.text) == ["3", "2"])
    let again = try broker.restarted()
    #expect(again.recoveredCount == Self.count / 2)
  }

  @Test func aTransientMessageIsConfirmedAfterItsLastQueue() throws {
    try broker.turn { try channel.publish("1", to: "amq.fanout", key: "") }
    #expect(client.events() == [])
    broker.finishChores()
    #expect(client.events() == [.confirmed(1, isMultiple: false, on: 1)])
    #expect(readyCounts == Array(repeating: 1, count: Self.count))
  }

  /// Each slice has a record of its own: the last is the memory in which the message came, those before
  /// are copied in parts.
  @Test(arguments: [false, true])
  func aLargeBodyIsCopiedInParts(isStopped: Bool) throws {
    let body = (0..<20_000_000).map { UInt8(truncatingIfNeeded: $0 / 251 &+ $0) }
    let before = broker.journal.statistics.draftsAppended
    try broker.turn {
      try channel.publishLarge(body, to: "amq.fanout", key: "", isPersistent: true)
    }
    #expect((body.count...(2 * body.count)).contains(broker.broker.account[.bodies]))
    var turns = 1
    while broker.broker.hasChores {
      broker.turn()
      turns += 1
      #expect(broker.broker.account[.bodies] < 3 * body.count)
      if isStopped, turns == 10 { break }
    }
    guard !isStopped else {
      let again = try broker.restarted()
      #expect(again.recoveredCount == Self.count / 2)
      #expect(try again.connect().open().take("q2")?.message.body == body)
      return
    }
    #expect(turns > body.count / (1 << 20))
    #expect(broker.journal.statistics.draftsAppended - before == 2)
    #expect(broker.broker.account[.bodies] == 0)
    broker.durableTurn()
    #expect(client.events() == [.confirmed(1, isMultiple: false, on: 1)])
    #expect(readyCounts == Array(repeating: 1, count: Self.count))
    let again = try broker.crashed()
    #expect(again.recoveredCount == Self.count / 2)
    #expect(try again.connect().open().take("q9998")?.message.body == body)
    for number in [0, 1, 8191, 8192, 9999] {
      #expect(try another.take(Name("q\(number)"))?.message.body == body)
    }
  }

  @Test func queuesThatAreDeletedInBetweenAreLeftOut() throws {
    try broker.turn { try channel.publish("1", to: "amq.fanout", key: "", isPersistent: true) }
    #expect(broker.broker.hasChores)
    for number in 0..<Self.count where number % 3 == 0 { try another.delete(Name("q\(number)")) }
    try another.declare("q0")
    broker.finishChores()
    broker.durableTurn()
    #expect(client.events() == [.confirmed(1, isMultiple: false, on: 1)])
    #expect(queue(0).readyCount == 0)
    for number in 1..<Self.count where number % 3 != 0 { #expect(queue(number).readyCount == 1) }
    for number in 0..<Self.count where number == 0 || number % 3 != 0 {
      try another.delete(Name("q\(number)"))
    }
    broker.finishChores()
    broker.expectNothingHeld()
  }

  @Test func aPublisherThatGoesInBetweenLeavesAWholeMessage() throws {
    try broker.turn { try channel.publish("1", to: "amq.fanout", key: "", isPersistent: true) }
    broker.turn { client.close() }
    broker.finishChores()
    broker.durableTurn()
    #expect(client.events() == [])
    #expect(readyCounts == Array(repeating: 1, count: Self.count))
  }

  @Test func aStopInBetweenLeavesItInSomeQueuesUnconfirmed() throws {
    try broker.turn {
      try channel.publish("1", to: "amq.fanout", key: "", isPersistent: true)
    }
    let stored = (0..<Self.count).count { $0.isMultiple(of: 2) && queue($0).readyCount == 1 }
    #expect(broker.broker.hasChores && stored > 0 && stored < Self.count / 2)
    #expect(client.events() == [])
    #expect(try broker.crashed().recoveredCount == stored)
  }
}
