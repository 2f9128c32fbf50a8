import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Queues that count how often a message was delivered in vain, and let it go when that was too often.
@Suite struct DeliveryCountTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare(_ name: Name = "q", _ arguments: FieldTable) throws {
    try channel.declare(name, arguments: arguments)
  }

  /// Takes the next message and gives it back.
  private func giveBack(_ queue: Name = "q", times: Int = 1) throws {
    for _ in 0..<times {
      let tag = try #require(try channel.take(queue, isAutomatic: false)).tag
      try channel.reject(tag, isMultiple: false, requeues: true)
      broker.turn()
    }
  }

  // MARK: Counting

  enum Return: CaseIterable { case reject, nackAll, recover, closeChannel, closeConnection }

  @Test(arguments: Return.allCases)
  func eachReturnCountsOne(way: Return) throws {
    try declare("q", ["x-queue-type": .string("quorum")])
    for text in ["a", "b"] { try channel.publish(text, key: "q") }
    for count in 1...3 {
      let other = broker.connect()
      let reader = other.open()
      try reader.consume("q", tag: "c")
      broker.turn()
      let deliveries = other.deliveries()
      #expect(deliveries.map(\.text) == ["a", "b"])
      #expect(try deliveries.map { try $0.count() } == [count - 1, count - 1])
      #expect(deliveries.map(\.isRedelivered) == [count > 1, count > 1])
      reader.cancel("c")
      #expect(broker.queue("q")?.readyCount == 0, "a cancelled consumer keeps what it has")
      switch way {
      case .reject:
        for delivery in deliveries {
          try reader.reject(delivery.tag, isMultiple: false, requeues: true)
        }
      case .nackAll: try reader.reject(0, isMultiple: true, requeues: true)
      case .recover: reader.recover()
      case .closeChannel: reader.close()
      case .closeConnection: other.close()
      }
      broker.finishChores()
    }
    let got = try channel.drain("q")
    #expect(try got.map { try $0.count() } == [3, 3])
    #expect(broker.queue("q")?.lane.counts?.byteCount == 0)
    broker.expectNothingHeld()
  }

  @Test func theFirstDeliveryHasNoHeader() throws {
    try declare("q", ["x-queue-type": .string("quorum")])
    try channel.publish("a", key: "q")
    let first = try #require(try channel.take("q", isAutomatic: false))
    #expect(first.message.properties == [0, 0])
    try channel.reject(first.tag, isMultiple: false, requeues: true)
    let second = try #require(try channel.take("q"))
    #expect(try second.headers() == ["x-delivery-count": .int64(1)])
    #expect(second.isRedelivered)
  }

  @Test func onlyQuorumQueuesAndThoseWithALimitCount() throws {
    try declare("classic", ["x-queue-type": .string("classic")])
    try declare("plain", [:])
    try declare("limited", ["x-delivery-limit": .int32(5)])
    try declare("unlimited", ["x-delivery-limit": .int32(-1)])
    for (name, count) in [("classic", 0), ("plain", 0), ("limited", 2), ("unlimited", 2)] {
      let name = Name(name)
      try channel.publish("m", key: name)
      try giveBack(name, times: 2)
      let delivery = try #require(try channel.take(name))
      #expect(try delivery.count() == count, "\(name)")
      #expect(delivery.isRedelivered)
    }
  }

  /// All else stays as it came, byte by byte.
  @Test func theCountIsAddedToTheHeadersThatThereAre() throws {
    try declare("q", ["x-queue-type": .string("quorum")])
    var sent = BasicProperties()
    sent.contentType = "text/plain"
    sent.headers = [
      "a": .int16(1), "x-delivery-count": .string("mine"), "b": .table(["c": .void]),
    ]
    sent.messageID = "m"
    try channel.publish("m", key: "q", properties: sent)
    let first = try #require(try channel.take("q", isAutomatic: false))
    #expect(try BasicProperties(first.message.properties) == sent)
    try channel.reject(first.tag, isMultiple: false, requeues: true)
    sent.headers = ["a": .int16(1), "b": .table(["c": .void]), "x-delivery-count": .int64(1)]
    let second = try #require(try channel.take("q"))
    #expect(try BasicProperties(second.message.properties) == sent)
  }

  @Test func aFullTableGetsNoMore() throws {
    try declare("q", ["x-queue-type": .string("quorum")])
    let values = [FieldValue](repeating: .void, count: FieldTable.valuesMax - 1)
    try channel.publish("m", key: "q", headers: ["all": .array(values)])
    let first = try #require(try channel.take("q", isAutomatic: false))
    try channel.reject(first.tag, isMultiple: false, requeues: true)
    let second = try #require(try channel.take("q"))
    #expect(second.message.properties == first.message.properties)
    #expect(second.isRedelivered)
  }

  // MARK: The limit

  @Test(arguments: [0, 1, 3])
  func whatComesBackTooOftenIsADeadLetter(limit: Int) throws {
    try declare(
      "q",
      [
        "x-delivery-limit": .int64(Int64(limit)), "x-dead-letter-exchange": .string(""),
        "x-dead-letter-routing-key": .string("dead"),
      ])
    try channel.declare("dead")
    try channel.publish("m", key: "q", isPersistent: true)
    try giveBack(times: limit)
    #expect(broker.queue("q")?.readyCount == 1)
    #expect(broker.queue("dead")?.readyCount == 0)
    try giveBack()
    #expect(broker.queue("q")?.messageCount == 0)
    let letter = try #require(try channel.take("dead"))
    let headers = try letter.headers()
    #expect(headers["x-first-death-reason"] == .string("delivery_limit"))
    guard case .array(let deaths)? = headers["x-death"], case .table(let death)? = deaths.first
    else {
      Issue.record("it says how it died")
      return
    }
    #expect(death["reason"] == .string("delivery_limit"))
    #expect(death["count"] == .int64(1))
    #expect(headers["x-delivery-count"] == nil)
    #expect(broker.queue("q")?.lane.counts?.byteCount == 0)
    broker.expectNothingHeld()
  }

  @Test func withoutAPlaceForDeadLettersItIsGone() throws {
    try declare("q", ["x-delivery-limit": .int32(1)])
    try channel.publish("m", key: "q")
    try channel.publish("next", key: "q")
    try giveBack(times: 2)
    #expect(try channel.drain("q").map(\.text) == ["next"])
    #expect(broker.queue("q")?.lane.counts?.byteCount == 0)
    broker.expectNothingHeld()
  }

  @Test func aNegativeLimitIsNone() throws {
    try declare("q", ["x-delivery-limit": .int64(.min)])
    try channel.publish("m", key: "q")
    try giveBack(times: 100)
    #expect(try channel.take("q")?.count() == 100)
  }

  /// The channel dies with what it has: a message that does that to each consumer leaves in the end.
  @Test func aChannelsEndIsNotForEver() throws {
    try declare("q", ["x-delivery-limit": .int32(2), "x-queue-type": .string("quorum")])
    for text in ["a", "b", "c"] { try channel.publish(text, key: "q") }
    for _ in 0..<3 {
      let other = broker.connect()
      try other.open().consume("q", tag: "c")
      broker.turn()
      #expect(other.bodies() == ["a", "b", "c"])
      other.close()
      broker.finishChores()
    }
    #expect(broker.queue("q")?.messageCount == 0)
    broker.expectNothingHeld()
  }

  @Test func theLimitIsAnyWholeNumberAndCompared() throws {
    let name: Name = "q"
    for (value, type) in [(FieldValue.string("5"), "longstr"), (.double(1), "double")] {
      let error = mistake { try declare(name, ["x-delivery-limit": value]) }
      #expect(
        error
          == .refusedArgument(
            "x-delivery-limit", of: .subject(.queue(name, in: "/")),
            reason: "\"expected integer, got \(type)\""))
    }
    try declare(name, ["x-delivery-limit": .int8(-1)])
    try declare(name, ["x-delivery-limit": .int64(-1)])
    #expect(mistake { try declare(name, ["x-delivery-limit": .int64(2)]) } != nil)
    #expect(mistake { try declare(name, [:]) } != nil)
  }

  // MARK: Leaving

  @Test func countsLeaveWithTheirMessages() throws {
    let arguments: FieldTable = ["x-queue-type": .string("quorum")]
    for leave in 0..<4 {
      let name = Name("q\(leave)")
      var arguments = arguments
      if leave == 2 { arguments.entries.append(.init(name: "x-max-length", value: .int32(1))) }
      if leave == 3 { arguments.entries.append(.init(name: "x-message-ttl", value: .int32(5000))) }
      try channel.declare(name, arguments: arguments)
      try channel.publish("m", key: name)
      try giveBack(name, times: 2)
      let lane = try #require(broker.queue(name)?.lane)
      #expect(lane.counts?.byteCount ?? 0 > 0)
      switch leave {
      case 0: try channel.purge(name)
      case 1: try channel.delete(name)
      case 2: try channel.publish("n", key: name)
      default: broker.advance(milliseconds: 6000)
      }
      broker.turn()
      broker.finishChores()
      #expect(lane.counts?.byteCount == 0, "\(leave)")
    }
    broker.turn()
    #expect(broker.broker.account[.entries] < 4096)
  }

  /// It is out while its queue goes, and comes back to nobody.
  @Test func whatComesBackToADeletedQueueCountsNothing() throws {
    try declare("q", ["x-queue-type": .string("quorum")])
    try channel.publish("m", key: "q")
    try giveBack()
    let tag = try #require(try channel.take("q", isAutomatic: false)).tag
    let lane = try #require(broker.queue("q")?.lane)
    try channel.delete("q")
    try channel.reject(tag, isMultiple: false, requeues: true)
    #expect(lane.counts?.byteCount == 0)
    broker.expectNothingHeld()
  }

  @Test func quorumQueuesMayBeWhatOthersMayBe() throws {
    let arguments: FieldTable = ["x-queue-type": .string("quorum")]
    try channel.declare("transient", arguments: arguments)
    try channel.declare("automatic", isAutoDelete: true, arguments: arguments)
    try channel.declare("own", isExclusive: true, arguments: arguments)
    #expect(try channel.declare("", arguments: arguments).name.hasPrefix("amq.gen-"))
    #expect(mistake { try channel.declare("transient") } != nil, "the type is compared")
  }

  // MARK: Many

  /// 100,000 come back with their channel: in slices, and the log is told in slices as well.
  @Test func manyComeBackAtOnce() throws {
    let many = 100_000
    var limits = BrokerLimits()
    limits.deliveryBytesPerTurn = .max
    let broker = try TestBroker(limits: limits)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("q", isDurable: true, arguments: ["x-queue-type": .string("quorum")])
    for index in 0..<many { try channel.publish("\(index)", key: "q", isPersistent: true) }
    broker.durableTurn()
    client.observe { _ in }
    let other = client.open(2)
    try other.consume("q", tag: "c")
    broker.turns { other.unacknowledged.count == many && !broker.journal.hasUncommitted }
    broker.turn { other.close() }
    var turns = 0
    while broker.broker.hasChores {
      broker.turn()
      turns += 1
    }
    #expect(turns >= many * 5 / 4 / limits.choreStepsPerTurn)
    #expect(turns < 100)
    #expect(broker.queue("q")?.readyCount == many)
    let bytes = try #require(broker.queue("q")?.lane.counts?.byteCount)
    #expect(bytes >= many * 24)
    broker.turn()
    #expect(broker.broker.account[.entries] >= bytes)
    broker.durableTurn()
    let again = try broker.crashed()
    let counts = try again.connect().open().drain("q").map { try $0.count() }
    #expect(counts == Array(repeating: 1, count: many))
  }
}

extension Delivery {
  func headers() throws -> FieldTable {
    try BasicProperties(message.properties).headers ?? FieldTable()
  }

  /// What the header says how often it came back; 0 without one.
  func count() throws -> Int {
    guard let value = try headers()["x-delivery-count"] else { return 0 }
    guard case .int64(let count) = value else { return -1 }
    return Int(count)
  }
}
