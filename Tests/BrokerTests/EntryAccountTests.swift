import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// What the account of memory has of messages' places in queues is given back with the queues: brokers make
/// and delete queues for years.
@Suite struct EntryAccountTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private var entries: Int { broker.broker.account[.entries] }

  private func publish(_ count: Int, to queue: Name = "q") throws {
    for number in 0..<count { try channel.publish("\(number)", key: queue) }
  }

  private func expectNothing(sourceLocation: SourceLocation = #_sourceLocation) {
    broker.finishChores()
    broker.turn()
    #expect(entries == 0, sourceLocation: sourceLocation)
  }

  @Test(arguments: [0, 1, 3000])
  func aDeletedQueueWithMessages(count: Int) throws {
    try channel.declare("q")
    try broker.turn { try publish(count) }
    if count > 0 { #expect(entries > 0) }
    try broker.turn { try channel.delete("q") }
    expectNothing()
  }

  @Test(arguments: [1, 3000])
  func aDeletedQueueThatHadMessages(count: Int) throws {
    try channel.declare("q")
    try broker.turn { try publish(count) }
    _ = try channel.drain("q")
    broker.turn()
    #expect(entries > 0)
    try broker.turn { try channel.delete("q") }
    expectNothing()
  }

  @Test func aDeletedQueueThatWasPurged() throws {
    try channel.declare("q")
    try broker.turn { try publish(3000) }
    try broker.turn {
      try channel.purge("q")
      try channel.delete("q")
    }
    expectNothing()
  }

  @Test func aQueueThatGoesWithItsConsumer() throws {
    try channel.declare("q", isAutoDelete: true)
    try channel.consume("q", tag: "c")
    try broker.turn { try publish(10) }
    broker.turn()
    try broker.turn { try channel.reject(3, isMultiple: true, requeues: true) }
    channel.cancel("c")
    expectNothing()
    #expect(broker.queue("q") == nil)
    channel.close()
    expectNothing()
  }

  @Test func aQueueOfPriorities() throws {
    try channel.declare("q", arguments: ["x-max-priority": .int32(5)])
    for priority in 0...5 as ClosedRange<UInt8> {
      var properties = BasicProperties()
      properties.priority = priority
      try channel.publish("m", key: "q", properties: properties)
    }
    broker.turn()
    #expect(entries > 0)
    try broker.turn { try channel.delete("q") }
    expectNothing()
  }

  @Test func exclusiveQueuesOfAConnection() throws {
    let other = broker.connect()
    let own = other.open()
    for number in 0..<50 {
      try own.declare(Name("e\(number)"), isExclusive: true)
      try own.publish("m", key: Name("e\(number)"))
    }
    broker.turn()
    #expect(entries > 0)
    broker.turn { other.close() }
    expectNothing()
  }

  @Test func aReaderOfAStream() throws {
    try channel.declareStream("s")
    try broker.durableTurn { try publish(300, to: "s") }
    let before = entries
    let reader = broker.connect()
    let own = reader.open()
    own.setPrefetch(100, isGlobal: false)
    _ = try own.consume(
      "s", tag: "c", isAutomatic: false, isExclusive: false,
      arguments: ["x-stream-offset": .string(Array("first".utf8))])
    broker.turn()
    #expect(reader.deliveries().count == 100)
    #expect(entries > before)
    try broker.turn { try own.reject(0, isMultiple: true, requeues: true) }
    broker.finishChores()
    broker.turn { own.close() }
    broker.finishChores()
    broker.turn()
    #expect(entries == before)
  }

  /// They end in slices, however many there are, and get nothing more.
  @Test(.timeLimit(.minutes(1))) func manyReadersOfADeletedStream() throws {
    try channel.declareStream("s")
    try broker.durableTurn { try publish(30, to: "s") }
    let reader = broker.connect()
    let own = reader.open()
    own.setPrefetch(10, isGlobal: false)
    let count = 20_000
    for number in 0..<count {
      _ = try own.consume(
        "s", tag: Name("c\(number)"), isAutomatic: false, isExclusive: false, arguments: [:])
    }
    broker.turn()
    try broker.turn {
      try channel.delete("s")
      try own.declareStream("s")
    }
    #expect(broker.broker.hasChores)
    #expect((5...60).contains(broker.finishChores()))
    #expect(reader.events().count == count)
    #expect(broker.stream()?.consumerCount == 0)
    expectNothing()
  }
}
