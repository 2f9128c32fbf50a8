import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct DirectRepliesTests {
  static let queue: Name = "amq.rabbitmq.reply-to"

  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private let server: TestClient
  private let theirs: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open(3)
    server = broker.connect()
    theirs = server.open(1)
    try theirs.declare("requests")
    try theirs.consume("requests", tag: "s", isAutomatic: true)
  }

  private var properties: BasicProperties {
    var properties = BasicProperties()
    properties.correlationID = "17"
    properties.replyTo = Self.queue
    properties.headers = ["n": .int32(1)]
    return properties
  }

  /// Publishes a request; returns what the server sees of it.
  private func request() throws -> BasicProperties {
    try channel.publish("question", key: "requests", properties: properties)
    broker.turn()
    return try BasicProperties(try #require(server.deliveries().first).message.properties)
  }

  private func consume() throws {
    try channel.consume(Self.queue, tag: "replies", isAutomatic: true)
  }

  @Test func aReplyGoesStraightToTheRequester() throws {
    try consume()
    let seen = try request()
    let address = try #require(seen.replyTo)
    #expect(address.hasPrefix("amq.rabbitmq.reply-to."))
    var expected = properties
    expected.replyTo = address
    #expect(seen == expected)
    try theirs.publish("answer", key: address, isMandatory: true)
    var again = properties
    again.replyTo = nil
    try theirs.publish("again", key: address, properties: again)
    let deliveries = client.deliveries()
    #expect(deliveries.map(\.text) == ["answer", "again"])
    #expect(deliveries.map(\.consumer) == ["replies", "replies"])
    #expect(deliveries.map(\.channel) == [3, 3])
    #expect(deliveries.map(\.tag) == [1, 2])
    #expect(deliveries.map(\.message.key) == [address, address])
    #expect(server.events() == [])
    broker.expectNothingHeld()
  }

  @Test func repliesMixWithDeliveriesThatAreAcknowledged() throws {
    try consume()
    let address = try #require(try request().replyTo)
    try channel.declare("q")
    try channel.consume("q", tag: "c")
    for text in ["1", "2", "3"] {
      try theirs.publish(text, key: "q")
      broker.turn()
      try theirs.publish("reply", key: address)
    }
    #expect(client.deliveries().map(\.tag) == [1, 2, 3, 4, 5, 6])
    try channel.acknowledge(5, isMultiple: false)
    try channel.acknowledge(3, isMultiple: true)
    #expect(
      mistake { try channel.acknowledge(6, isMultiple: false) } == .unknownDelivery(6))
    broker.expectNothingHeld()
  }

  @Test func aReplyToNobodyIsDroppedOrReturned() throws {
    try consume()
    let address = try #require(try request().replyTo)
    #expect(try theirs.declare(address).consumerCount == 1)
    #expect(try theirs.declare(address, isPassive: true).name == address)
    channel.cancel("replies")
    try theirs.publish("late", key: address)
    #expect(server.events() == [])
    try theirs.publish("late", key: address, isMandatory: true)
    #expect(server.events().count == 1)
    #expect(mistake { try theirs.declare(address) } == .notFound(.queue(address, in: "/")))
    #expect(client.events() == [])
  }

  @Test func anAddressEndsWithItsChannel() throws {
    try consume()
    let first = try #require(try request().replyTo)
    channel.close()
    #expect(mistake { try theirs.declare(first) } == .notFound(.queue(first, in: "/")))
    let next = client.open(3)
    try next.consume(Self.queue, tag: "replies", isAutomatic: true)
    try next.publish("question", key: "requests", properties: properties)
    broker.turn()
    let seen = try BasicProperties(try #require(server.deliveries().first).message.properties)
    #expect(seen.replyTo != first)
    client.close()
    try theirs.publish("late", key: try #require(seen.replyTo), isMandatory: true)
    #expect(server.events().count == 1)
  }

  @Test func mistakesAreTold() throws {
    #expect(mistake { _ = try request() } == .repliesAreNotConsumed)
    #expect(mistake { try channel.consume(Self.queue) } == .repliesNeedNoAcknowledgement)
    try consume()
    #expect(
      mistake { try channel.consume(Self.queue, tag: "more", isAutomatic: true) }
        == .repliesAreConsumed)
    try theirs.declare("q")
    #expect(
      mistake { try channel.consume("q", tag: "replies") } == .consumerTagInUse("replies"))
    #expect(
      mistake {
        try theirs.publish("question", key: "requests", properties: properties)
      } == .repliesAreNotConsumed, "the consumer must be on the request's channel")
  }

  @Test func anotherReplyToIsLeftAlone() throws {
    var properties = properties
    properties.replyTo = "my-own-queue"
    try channel.publish("question", key: "requests", properties: properties)
    broker.turn()
    let seen = try BasicProperties(try #require(server.deliveries().first).message.properties)
    #expect(seen == properties)
  }
}
