import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Queues with `x-max-priority`: higher ones first, equals in their order, wherever the messages are.
@Suite struct PriorityQueueTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare(_ max: Int64, isDurable: Bool = false) throws {
    try channel.declare("q", isDurable: isDurable, arguments: ["x-max-priority": .int64(max)])
  }

  private func publish(
    _ priorities: [UInt8?], isPersistent: Bool = false, on channel: Channel? = nil
  ) throws {
    for (number, priority) in priorities.enumerated() {
      var properties = BasicProperties()
      properties.priority = priority
      try (channel ?? self.channel).publish(
        "\(number)", key: "q", properties: properties, isPersistent: isPersistent)
    }
  }

  @Test func higherOnesComeFirstAndEqualsInTheirOrder() throws {
    try declare(10)
    try publish([1, nil, 10, 5, 10, 0, 5])
    #expect(broker.queue("q")?.readyCount == 7)
    #expect(try channel.drain("q").map(\.text) == ["2", "4", "3", "6", "0", "1", "5"])
  }

  @Test func aPriorityAboveTheHighestIsTheHighest() throws {
    try declare(3)
    try publish([3, 200, 255, 2])
    #expect(try channel.drain("q").map(\.text) == ["0", "1", "2", "3"])
  }

  @Test func anEmptyQueueGoesOnWithWhateverComes() throws {
    try declare(255)
    try channel.consume("q", isAutomatic: true)
    for priority in [255, 0, 7, 64, 128, 63, 0] as [UInt8] {
      try publish([priority])
      broker.turn()
      #expect(client.bodies() == ["0"])
    }
  }

  @Test func onlyPrioritiesInUseHaveLanes() throws {
    try declare(255)
    #expect(broker.queue("q")?.lanes.count == 1)
    try publish([200, 200, 7])
    #expect(broker.queue("q")?.lanes.map(\.priority) == [0, 200, 7])
  }

  @Test func aQueueWithoutPrioritiesLooksAtNone() throws {
    try channel.declare("q")
    try publish([1, 9, 3])
    #expect(try channel.drain("q").map(\.text) == ["0", "1", "2"])
  }

  @Test func whatComesBackIsBehindHigherOnes() throws {
    try declare(9)
    try publish([5, 5])
    let tags = try (0..<2).map { _ in
      try #require(try channel.take("q", isAutomatic: false)).tag
    }
    try publish([5, 9, 1])
    for tag in tags.reversed() { try channel.reject(tag, isMultiple: false, requeues: true) }
    let rest = try channel.drain("q")
    #expect(rest.map(\.text) == ["1", "0", "1", "0", "2"])
    #expect(rest.map(\.isRedelivered) == [false, true, true, false, false])
  }

  @Test func aPurgeTakesAllPriorities() throws {
    try declare(9)
    try publish([5, 9, 1, nil])
    #expect(try channel.purge("q") == 4)
    broker.turn()
    #expect(broker.queue("q")?.messageCount == 0)
    try publish([4])
    #expect(try channel.drain("q").map(\.text) == ["0"])
  }

  @Test func aRestartKeepsPrioritiesOrderAndWhatWasSeen() throws {
    try declare(9, isDurable: true)
    try publish([5, 9, 1, nil, 9, 5], isPersistent: true)
    broker.durableTurn()
    let seen = try #require(try channel.take("q", isAutomatic: false))
    #expect(seen.text == "1")
    broker.durableTurn()
    let again = try broker.restarted()
    #expect(again.queue("q")?.readyCount == 6)
    let channel = again.connect().open()
    try publish([9, 6], isPersistent: true, on: channel)
    let rest = try channel.drain("q")
    #expect(rest.map(\.text) == ["1", "4", "0", "1", "0", "5", "2", "3"])
    #expect(rest[0].isRedelivered)
  }

  @Test func aMandatoryMessageOfAnyPriorityIsRouted() throws {
    try declare(9)
    var properties = BasicProperties()
    properties.priority = 9
    try channel.publish("a", key: "q", properties: properties, isMandatory: true)
    #expect(client.events().isEmpty)
  }

  @Test func severalQueuesGetOneMessageEachInItsWay() throws {
    try declare(9, isDurable: true)
    try channel.declare("plain", isDurable: true)
    for queue in ["q", "plain"] as [Name] { try channel.bind(queue, to: "amq.fanout") }
    for (number, priority) in [1, 8, 3].enumerated() {
      var properties = BasicProperties()
      properties.priority = UInt8(priority)
      try channel.publish(
        "\(number)", to: "amq.fanout", key: "", properties: properties, isPersistent: true)
    }
    broker.durableTurn()
    let again = try broker.restarted()
    let channel = again.connect().open()
    #expect(try channel.drain("q").map(\.text) == ["1", "2", "0"])
    #expect(try channel.drain("plain").map(\.text) == ["0", "1", "2"])
  }
}
