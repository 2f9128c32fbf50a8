import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct QueueTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    try channel.declare("q")
  }

  private var queue: Queue { broker.queue("q")! }

  private func publish(_ texts: String...) throws {
    for text in texts { try channel.publish(text, key: "q") }
  }

  private func expectCounts(
    ready: Int, unacknowledged: Int, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(queue.readyCount == ready, sourceLocation: sourceLocation)
    #expect(queue.unacknowledgedCount == unacknowledged, sourceLocation: sourceLocation)
    #expect(queue.messageCount == ready + unacknowledged, sourceLocation: sourceLocation)
    #expect(broker.referenceCount == ready + unacknowledged, sourceLocation: sourceLocation)
  }

  // MARK: Order

  @Test func messagesAreDeliveredInTheirOrder() throws {
    for index in 0..<1000 { try publish("\(index)") }
    try channel.consume("q", tag: "c", isAutomatic: true)
    broker.turn()
    let deliveries = client.deliveries()
    #expect(deliveries.map(\.text) == (0..<1000).map(String.init))
    #expect(deliveries.map(\.tag) == (1...1000).map { UInt64($0) })
    #expect(deliveries.allSatisfy { !$0.isRedelivered && $0.consumer == "c" })
    expectCounts(ready: 0, unacknowledged: 0)
  }

  @Test func aMessageIsDeliveredAsItWasPublished() throws {
    var properties = BasicProperties()
    properties.contentType = "text/plain"
    properties.headers = ["n": .int32(1)]
    properties.deliveryMode = 2
    properties.expiration = "60000"
    properties.userID = "guest"
    try channel.bind("q", to: "amq.topic", key: "#")
    try channel.publish([0, 255, 0xCE], to: "amq.topic", key: "some.key", properties: properties)
    try channel.publish([], to: "amq.topic", key: "")
    let first = try #require(try channel.take("q"))
    #expect(try BasicProperties(first.message.properties) == properties)
    #expect(first.message.exchange == "amq.topic")
    #expect(first.message.key == "some.key")
    #expect(first.message.body == [0, 255, 0xCE])
    let second = try #require(try channel.take("q"))
    #expect(second.message.properties == [0, 0])
    #expect(second.message.body == [])
  }

  @Test func whatIsGivenBackComesFirstInItsOldOrder() throws {
    try publish("1", "2", "3", "4", "5")
    let taken = try (1...4).map { _ in try channel.take("q", isAutomatic: false)! }
    expectCounts(ready: 1, unacknowledged: 4)
    try publish("6")
    try channel.reject(taken[2].tag, isMultiple: false, requeues: true)
    try channel.reject(taken[0].tag, isMultiple: false, requeues: true)
    expectCounts(ready: 4, unacknowledged: 2)
    try channel.reject(taken[3].tag, isMultiple: false, requeues: true)
    let rest = try channel.drain("q")
    #expect(rest.map(\.text) == ["1", "3", "4", "5", "6"])
    #expect(rest.map(\.isRedelivered) == [true, true, true, false, false])
    try channel.reject(taken[1].tag, isMultiple: false, requeues: true)
    #expect(try channel.drain("q").map(\.text) == ["2"])
  }

  @Test func whatSeveralChannelsGiveBackIsInOneOrder() throws {
    try publish("1", "2", "3", "4", "5", "6")
    let other = client.open(2)
    for index in 0..<6 {
      _ = try (index.isMultiple(of: 2) ? channel : other).take("q", isAutomatic: false)
    }
    other.close()
    #expect(queue.readyCount == 3)
    channel.recover()
    let rest = try channel.drain("q")
    #expect(rest.map(\.text) == ["1", "2", "3", "4", "5", "6"])
    #expect(rest.allSatisfy { $0.isRedelivered })
  }

  @Test func manyMessagesGivenBackOneByOneKeepTheirOrder() throws {
    var random = SeededRandom(9)
    let count = 3000
    for index in 0..<count { try publish("\(index)") }
    let taken = try (0..<count).map { _ in try channel.take("q", isAutomatic: false)! }
    for delivery in taken.shuffled(using: &random) {
      try channel.reject(delivery.tag, isMultiple: false, requeues: true)
    }
    #expect(try channel.drain("q").map(\.text) == (0..<count).map(String.init))
  }

  @Test func aMessageStaysRedeliveredAfterTheSecondReturn() throws {
    try publish("1")
    for round in 0..<3 {
      let delivery = try #require(try channel.take("q", isAutomatic: false))
      #expect(delivery.isRedelivered == (round > 0))
      channel.recover()
    }
  }

  // MARK: Acknowledgements

  @Test func acknowledgementsSettleOneOrAllUpToOne() throws {
    try publish("1", "2", "3", "4", "5")
    for _ in 0..<5 { _ = try channel.take("q", isAutomatic: false) }
    try channel.acknowledge(2, isMultiple: false)
    expectCounts(ready: 0, unacknowledged: 4)
    try channel.acknowledge(4, isMultiple: true)
    expectCounts(ready: 0, unacknowledged: 1)
    try channel.acknowledge(0, isMultiple: true)
    expectCounts(ready: 0, unacknowledged: 0)
    try channel.acknowledge(0, isMultiple: true)
  }

  @Test func rejectionsDropOrGiveBackOneOrAllUpToOne() throws {
    try publish("1", "2", "3", "4", "5")
    for _ in 0..<5 { _ = try channel.take("q", isAutomatic: false) }
    try channel.reject(1, isMultiple: false, requeues: false)
    expectCounts(ready: 0, unacknowledged: 4)
    try channel.reject(3, isMultiple: true, requeues: true)
    expectCounts(ready: 2, unacknowledged: 2)
    try channel.reject(0, isMultiple: true, requeues: false)
    expectCounts(ready: 2, unacknowledged: 0)
    #expect(try channel.drain("q").map(\.text) == ["2", "3"])
  }

  @Test func tagsThatAreNotOutstandingAreRefused() throws {
    try publish("1", "2", "3", "4")
    for _ in 0..<3 { _ = try channel.take("q", isAutomatic: false) }
    _ = try channel.take("q", isAutomatic: true)
    try channel.acknowledge(2, isMultiple: false)
    for (tag, isMultiple) in [
      (0, false), (2, false), (4, false), (5, false), (2, true), (4, true), (9, true),
    ] as [(UInt64, Bool)] {
      let unknown = BrokerError.unknownDelivery(tag)
      #expect(mistake { try channel.acknowledge(tag, isMultiple: isMultiple) } == unknown)
      for requeues in [false, true] {
        #expect(
          mistake { try channel.reject(tag, isMultiple: isMultiple, requeues: requeues) } == unknown
        )
      }
    }
    let other = client.open(2)
    #expect(
      mistake { try other.acknowledge(1, isMultiple: false) } == .unknownDelivery(1),
      "tags belong to their channel")
    expectCounts(ready: 0, unacknowledged: 2)
  }

  @Test func automaticAndManualDeliveriesMixOnAChannel() throws {
    try channel.declare("p")
    try channel.consume("p", tag: "automatic", isAutomatic: true)
    try channel.consume("q", tag: "manual")
    for index in 0..<6 {
      try channel.publish("\(index)", key: index.isMultiple(of: 2) ? "p" : "q")
      broker.turn()
    }
    let tags = client.deliveries().filter { $0.consumer == "manual" }.map(\.tag)
    #expect(tags == [2, 4, 6])
    #expect(
      mistake { try channel.acknowledge(3, isMultiple: false) } == .unknownDelivery(3))
    try channel.acknowledge(6, isMultiple: false)
    expectCounts(ready: 0, unacknowledged: 2)
    try channel.acknowledge(4, isMultiple: true)
    expectCounts(ready: 0, unacknowledged: 0)
  }

  // MARK: Purging and deleting

  @Test func purgingLeavesTheUnacknowledged() throws {
    try publish("1", "2", "3", "4")
    for _ in 0..<2 { _ = try channel.take("q", isAutomatic: false) }
    try channel.reject(1, isMultiple: false, requeues: true)
    #expect(try channel.purge("q") == 3)
    expectCounts(ready: 0, unacknowledged: 1)
    channel.recover()
    #expect(try channel.drain("q").map(\.text) == ["2"])
  }

  @Test func whatADeletedQueueHadOutstandingCanStillBeSettled() throws {
    let others = [broker.connect().open(1), broker.connect().open(1), client.open(2)]
    for index in 0..<12 { try channel.publish("\(index)", key: "q", isPersistent: true) }
    for other in others { for _ in 0..<3 { _ = try other.take("q", isAutomatic: false) } }
    weak let deleted = broker.queue("q")
    #expect(try channel.delete("q") == 3)
    #expect(broker.referenceCount == 9)
    try channel.declare("q")
    try others[0].acknowledge(2, isMultiple: false)
    try others[0].reject(0, isMultiple: true, requeues: true)
    try others[1].reject(1, isMultiple: false, requeues: true)
    try others[1].reject(3, isMultiple: true, requeues: false)
    others[2].recover()
    expectCounts(ready: 0, unacknowledged: 0)
    broker.turn()
    #expect(deleted == nil, "nobody holds it any more")
    broker.expectNothingHeld()
  }

  @Test func whatADeletedQueueHadOutstandingGoesWithItsChannels() throws {
    let other = broker.connect()
    let theirs = other.open(1)
    try theirs.consume("q", tag: "c")
    try publish("1", "2", "3")
    _ = try client.open(3).take("q", isAutomatic: false)
    broker.turn()
    weak let deleted = broker.queue("q")
    try channel.delete("q")
    #expect(other.events().last == .cancelled("c", on: 1))
    theirs.close()
    client.close()
    broker.turn()
    #expect(deleted == nil)
    broker.expectNothingHeld()
  }

  // MARK: Memory

  @Test func aLargeMessageLeavesNoLargeBlockBehind() throws {
    try publish("small")
    _ = try channel.drain("q")
    let before = broker.journal.memoryBytes
    try channel.publish([UInt8](repeating: 7, count: 3 << 20), key: "q")
    #expect(broker.journal.memoryBytes > 3 << 20)
    let taken = try channel.drain("q")
    #expect(taken.first?.message.body.count == 3 << 20)
    try publish("small")
    _ = try channel.drain("q")
    #expect(broker.journal.memoryBytes <= before)
  }

  /// Queues that come and go leave nothing in the account of memory, whether they were empty in the end or not.
  @Test(arguments: [0, 40, 100]) func aQueueThatIsGoneIsNotCounted(taken: Int) throws {
    broker.turn()
    let before = broker.broker.account[.entries]
    for number in 0..<20 {
      let name = Name("t\(number)")
      try broker.turn {
        try channel.declare(name)
        for _ in 0..<100 { try channel.publish("x", key: name) }
      }
      for _ in 0..<taken { _ = try channel.take(name) }
      #expect(broker.broker.account[.entries] > before)
      try broker.turn { _ = try channel.delete(name) }
      broker.finishChores()
    }
    broker.turn()
    #expect(broker.broker.account[.entries] == before)
  }
}
