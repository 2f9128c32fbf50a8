import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// What one client asks for with a few bytes, and what takes many turns: it is done in slices, and
/// looks as if it had been done at once.
@Suite struct LargeWorkTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private static let many = 100_000

  init() throws {
    var limits = BrokerLimits()
    // Deliveries have a bound of their own.
    limits.deliveryBytesPerTurn = .max
    broker = try TestBroker(limits: limits)
    client = broker.connect()
    client.observe { _ in }
    channel = client.open()
    try channel.declare("q")
  }

  private var queue: Queue { broker.queue("q")! }

  private func publish(_ count: Int = many) throws {
    for index in 0..<count { try channel.publish("\(index)", key: "q") }
  }

  /// Has many deliveries out on a channel of its own.
  private func consumed() throws -> Channel {
    let other = client.open(2)
    try other.consume("q", tag: "c")
    try publish()
    broker.turn()
    #expect(other.unacknowledged.count == Self.many)
    return other
  }

  /// Turns until nothing is underway; returns how many.
  private func finish() -> Int {
    var turns = 0
    while broker.broker.hasChores {
      broker.turn()
      turns += 1
    }
    return turns
  }

  // MARK: Coming back

  enum Return: CaseIterable { case channelCloses, connectionCloses, nack, recover }

  @Test(arguments: Return.allCases)
  func manyDeliveriesComeBackInSlicesAndInTheirOrder(how: Return) throws {
    let other = try consumed()
    let reader = broker.connect()
    try reader.open().consume("q", tag: "r", isAutomatic: true)
    let own = broker.connect().open()
    broker.turn {
      switch how {
      case .channelCloses: other.close()
      case .connectionCloses: client.close()
      case .nack:
        other.cancel("c")
        try? other.reject(0, isMultiple: true, requeues: true)
      case .recover:
        other.cancel("c")
        other.recover()
      }
      #expect(broker.broker.hasChores)
      #expect(client.peer.isWorking == (how != .connectionCloses))
      try? own.publish("new", key: "q")
    }
    #expect(reader.bodies() == [], "nothing is served before all has come back")
    #expect(queue.messageCount == Self.many + 1)
    let turns = finish()
    #expect((2...8).contains(turns))
    broker.turn()
    let deliveries = reader.deliveries()
    #expect(deliveries.map(\.text) == (0..<Self.many).map { "\($0)" } + ["new"])
    #expect(!deliveries.dropLast().contains { !$0.isRedelivered })
    #expect(deliveries.last?.isRedelivered == false)
    #expect(!client.peer.isWorking)
    #expect(broker.broker.deliveryBytes < 1 << 16)
    broker.expectNothingHeld()
  }

  @Test func whatWasAcknowledgedBeforeTheEndStaysAcknowledged() throws {
    let other = try consumed()
    broker.turn {
      try? other.acknowledge(UInt64(Self.many - 10), isMultiple: true)
      client.close()
    }
    #expect(broker.broker.hasChores)
    _ = finish()
    broker.turn()
    #expect(queue.readyCount == 10)
    #expect(queue.unacknowledgedCount == 0)
  }

  @Test func aGetWaitsForWhatComesBack() throws {
    let other = try consumed()
    let own = broker.connect().open()
    broker.turn { other.close() }
    let result = try own.get("q", isAutomatic: true) { _, _, _, _, _ in }
    #expect(result == .notBefore(0))
    _ = finish()
    #expect(try own.take("q")?.text == "0")
  }

  @Test func messagesThatComeBackStayBehindAPurge() throws {
    let other = try consumed()
    try publish(Self.many)
    other.cancel("c")
    let own = broker.connect()
    let purger = own.open()
    broker.turn {
      // The consumer is gone, so that these are ready.
      #expect((try? purger.purge("q")) == Self.many)
      #expect(own.peer.isWorking)
      try? other.reject(7, isMultiple: false, requeues: true)
      try? purger.publish("new", key: "q")
      #expect(queue.readyCount == 2)
    }
    #expect(broker.broker.hasChores)
    #expect((1...4).contains(finish()))
    #expect(try purger.drain("q").map(\.text) == ["6", "new"])
    #expect(queue.unacknowledgedCount == Self.many - 1)
  }

  @Test func aPurgeIsFinishedBeforeTheBrokerEnds() throws {
    try channel.declare("d", isDurable: true)
    for index in 0..<Self.many { try channel.publish("\(index)", key: "d", isPersistent: true) }
    broker.durableTurn()
    broker.turn { #expect((try? channel.purge("d")) == Self.many) }
    #expect(broker.broker.hasChores)
    let next = try broker.restarted()
    #expect(next.queue("d")?.readyCount == 0)
  }

  // MARK: Going

  @Test func aLargeQueueGoesInSlicesAndItsNameIsFreeAtOnce() throws {
    try publish()
    let other = client.open(2)
    for index in 0..<20_000 { try channel.consume("q", tag: Name("c\(index)")) }
    broker.turn()
    var cancelled = 0
    client.observe { if case .cancelled = $0 { cancelled += 1 } }
    broker.turn {
      #expect((try? other.delete("q")) == 0)
      #expect((try? other.declare("q")) != nil)
    }
    #expect(broker.broker.hasChores)
    #expect((2...20).contains(finish()))
    #expect(cancelled == 20_000)
    #expect(queue.consumerCount == 0)
    #expect(channel.unacknowledged.count == Self.many)
    broker.turn { try? channel.acknowledge(0, isMultiple: true) }
    _ = finish()
    broker.expectNothingHeld()
  }

  @Test func manyConsumersOfAQueueEndInSlices() throws {
    let other = client.open(2)
    for index in 0..<65_535 { try other.consume("q", tag: Name("c\(index)")) }
    broker.turn { other.close() }
    #expect((32...60).contains(finish()))
    #expect(queue.consumerCount == 0)
    try channel.consume("q", tag: "c")
    var served: [Name] = []
    client.observe { if case .delivered(let delivery) = $0 { served.append(delivery.consumer) } }
    broker.turn { try? publish(1) }
    #expect(served == ["c"])
  }

  @Test func exclusiveQueuesGoWithTheirConnectionInSlices() throws {
    let other = broker.connect()
    let own = other.open()
    for index in 0..<5000 { try own.declare(Name("e\(index)"), isExclusive: true) }
    broker.turn { other.close() }
    #expect(
      mistake { try channel.declare("e0", isExclusive: true) } != nil || !broker.broker.hasChores)
    _ = finish()
    #expect(broker.vhost.destinationCount == 1)
    try channel.declare("e0", isExclusive: true)
  }

  @Test func autoDeleteQueuesGoWithTheirLastConsumerAlthoughMuchComesBack() throws {
    try channel.declare("a", isAutoDelete: true)
    let other = try consumed()
    try other.consume("a")
    broker.turn { other.close() }
    _ = finish()
    #expect(broker.queue("a") == nil)
    #expect(queue.readyCount == Self.many)
  }

  // MARK: Memory

  @Test func idleQueuesGiveBackWhatTheyKept() throws {
    for index in 0..<100 { try channel.declare(Name("i\(index)")) }
    for index in 0..<100 { try channel.publish("m", key: Name("i\(index)")) }
    #expect(broker.queue("i7")?.lane.waiting.byteCount == 128)
    for index in 0..<100 { _ = try channel.drain(Name("i\(index)")) }
    for _ in 0..<3 { broker.turn() }
    #expect(broker.queue("i7")?.lane.waiting.byteCount == 0)
    #expect(broker.queue("i99")?.lane.waiting.byteCount == 0)
    try channel.publish("again", key: "i7")
    #expect(try channel.drain("i7").map(\.text) == ["again"])
  }

  @Test func aDeletedQueueIsNotKept() throws {
    try channel.declare("gone")
    try channel.publish("m", key: "gone")
    weak let queue = broker.queue("gone")
    broker.turn()
    try channel.delete("gone")
    for _ in 0..<3 { broker.turn() }
    #expect(queue == nil)
  }

  // MARK: Much beside each other

  @Test(.timeLimit(.minutes(1))) func manyChannelsCloseOneByOne() throws {
    let other = broker.connect()
    let channels = (1...60_000).map { other.open(UInt16($0)) }
    for channel in channels.dropLast() { channel.close() }
    #expect(other.peer.channels.count == 1)
    try channels.last?.consume("q")
    #expect(queue.consumerCount == 1)
    channels.last?.close()
    #expect(other.peer.channels.isEmpty)
    #expect(queue.consumerCount == 0)
  }

  @Test func allMessagesAreCountedInSlices() throws {
    let count = 20_000
    for index in 0..<count { try channel.declare(Name("i\(index)")) }
    for index in 0..<count where index % 100 == 0 {
      try channel.publish("m", key: Name("i\(index)"))
    }
    _ = try channel.get("i100", isAutomatic: false) { _, _, _, _, _ in }
    var counts: MessageCounts?
    broker.turn { broker.broker.count { counts = $0 } }
    #expect(counts == nil)
    #expect((1...5).contains(finish()))
    #expect(counts?.queues == count + 1)
    #expect(counts?.ready == count / 100 - 1)
    #expect(counts?.unacknowledged == 1)
  }
}
