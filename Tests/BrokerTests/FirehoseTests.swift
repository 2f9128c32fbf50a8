import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What listeners to `amq.rabbitmq.trace` get of a virtual host that is traced.
@Suite struct FirehoseTests {
  private let broker: TestBroker
  private let listener: Channel
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    listener = broker.connect(user: "watcher").open()
    try listener.declare("traces")
    try listener.bind("traces", to: "amq.rabbitmq.trace", key: "#")
    client = broker.connect(user: "anna")
    channel = client.open(3)
    try channel.declare("q")
    vhost.trace(true)
  }

  private var vhost: VirtualHost { broker.vhost }

  /// Copies since the last call; getting them leaves no trace.
  private func traces() throws -> [Told] {
    broker.turn()
    return try listener.drain("traces").map { try Told($0) }
  }

  private func keys() throws -> [String] { try traces().map(\.key) }

  // MARK: What is copied

  @Test func aPublishIsCopiedWithAllThatThereIsToKnow() throws {
    try vhost.declare(exchange: "x", "fanout")
    try channel.bind("q", to: "x")
    try channel.declare("r")
    try channel.bind("r", to: "x")
    var properties = BasicProperties()
    properties.headers = ["CC": .array([.string("c")]), "BCC": .array([.string("b")])]
    properties.deliveryMode = 2
    properties.messageID = "id"
    properties.timestamp = 5_000_000_000
    try channel.publish("body", to: "x", key: "k", properties: properties)
    let trace = try #require(try traces().first)
    #expect(trace.key == "publish.x")
    #expect(trace.body == Array("body".utf8))
    #expect(trace.properties.deliveryMode == nil)
    guard case .array(let routed)? = trace.headers["routed_queues"] else {
      Issue.record("no routed queues")
      return
    }
    #expect(Set(routed.compactMap(\.text)) == ["q", "r"])
    var headers = trace.headers
    headers.entries.removeAll { $0.name == "routed_queues" }
    #expect(
      headers == [
        "exchange_name": .string("x"), "node": .string("martlet"), "vhost": .string("/"),
        "connection": .string("test"), "channel": .int32(3), "user": .string("anna"),
        "routing_keys": .array([.string("k"), .string("c"), .string("b")]),
        "properties": .table([
          "headers": .table(properties.headers ?? [:]), "delivery_mode": .int32(2),
          "message_id": .string("id"), "timestamp": .int64(5_000_000_000),
        ]),
      ])
  }

  @Test func aDeliveryIsCopiedWithWhoGotIt() throws {
    try channel.publish("m", key: "q")
    _ = try traces()
    let other = broker.connect(user: "bert")
    let taking = other.open(9)
    try taking.consume("q", tag: "c")
    var all = try traces()
    #expect(all.map(\.key) == ["deliver.q"])
    #expect(all[0].text("user") == "bert")
    #expect(all[0].headers["channel"] == .int32(9))
    #expect(all[0].headers["redelivered"] == .int32(0))
    #expect(all[0].headers["routing_keys"] == .array([.string("q")]))
    #expect(all[0].text("exchange_name") == "")
    #expect(all[0].headers["routed_queues"] == nil)
    #expect(other.deliveries().count == 1)
    broker.turn { other.close() }
    _ = try channel.take("q")
    all = try traces()
    #expect(all.map(\.key) == ["deliver.q"])
    #expect(all[0].headers["redelivered"] == .int32(1))
    #expect(all[0].text("user") == "anna")
  }

  @Test func whatNobodyTakesIsCopiedToo() throws {
    try channel.publish("m", key: "nowhere")
    let trace = try #require(try traces().first)
    #expect(trace.key == "publish.")
    #expect(trace.headers["routed_queues"] == .array([]))
    #expect(trace.headers["properties"] == .table([:]))
  }

  @Test func aCommitIsCopiedWhenItHappens() throws {
    try channel.startTransactions()
    try channel.publish("one", key: "q")
    try channel.rollback()
    #expect(try keys() == [])
    try channel.publish("two", key: "q")
    #expect(try keys() == [])
    _ = try channel.commit()
    #expect(try traces().map(\.body) == [Array("two".utf8)])
  }

  @Test func publishesComeBeforeTheirDeliveries() throws {
    try channel.consume("q", tag: "c", isAutomatic: true)
    try broker.turn {
      for number in 0..<3 { try channel.publish("\(number)", key: "q") }
      broker.broker.pump()
      try channel.publish("3", key: "q")
    }
    #expect(
      try traces().map { "\($0.key) \(String(decoding: $0.body, as: UTF8.self))" } == [
        "publish. 0", "publish. 1", "publish. 2", "deliver.q 0", "deliver.q 1", "deliver.q 2",
        "publish. 3", "deliver.q 3",
      ])
  }

  // MARK: When

  @Test func nothingIsCopiedUnlessItIsSwitchedOn() throws {
    vhost.trace(false)
    #expect(!vhost.isTraced)
    try channel.publish("m", key: "q")
    _ = try channel.take("q")
    #expect(try keys() == [])
    vhost.trace(true)
    try channel.publish("m", key: "q")
    #expect(try keys() == ["publish."])
    vhost.trace(false)
    try channel.publish("m", key: "q")
    #expect(try keys() == [])
  }

  @Test func routesAreAskedForNothingWhileItIsOff() throws {
    let names: [UInt8] = [0, 1] + Array("q".utf8)
    #expect(try vhost.cachedRoute(names.span.bytes).needsMessage)
    #expect(broker.broker.deliversCarefully)
    vhost.trace(false)
    let route = try vhost.cachedRoute(names.span.bytes)
    #expect(!route.needsMessage)
    #expect(route.plainCount == 1)
    #expect(!broker.broker.deliversCarefully)
  }

  @Test func aRestartEndsIt() throws {
    #expect(!(try broker.restarted().vhost.isTraced))
  }

  @Test func tracesAreNotTraced() throws {
    let watching = broker.connect()
    try watching.open().consume("traces", tag: "c", isAutomatic: true)
    try channel.publish("m", key: "q")
    broker.turn()
    #expect(broker.finishChores() < 10)
    #expect(watching.deliveries().map(\.message.key) == ["publish."])
  }

  @Test func deadLettersOfTracesAreNotTraced() throws {
    let last = broker.connect()
    let taking = last.open()
    try taking.declare("kept")
    try listener.declare(
      "short",
      arguments: [
        "x-max-length": .int32(1), "x-dead-letter-exchange": .string(""),
        "x-dead-letter-routing-key": .string("kept"),
      ])
    try listener.bind("short", to: "amq.rabbitmq.trace", key: "#")
    try taking.consume("kept", tag: "c", isAutomatic: true)
    for _ in 0..<3 { try channel.publish("m", key: "q") }
    broker.turn()
    #expect(broker.finishChores() < 10)
    #expect(last.deliveries().count == 2)
    #expect(try keys() == ["publish.", "publish.", "publish."])
  }

  /// The queue of copies has messages of its own, whose deliveries are copied into it.
  @Test func aQueueThatIsFullOfItsOwnTracesEnds() throws {
    let taking = broker.connect()
    let own = taking.open()
    try own.declare("ring", arguments: ["x-max-length": .int32(2)])
    try own.bind("ring", to: "amq.rabbitmq.trace", key: "#")
    for _ in 0..<50 { try channel.publish("m", key: "ring") }
    broker.turn()
    try own.consume("ring", tag: "c", isAutomatic: true)
    broker.turn()
    #expect(broker.finishChores() < 100)
    #expect(taking.deliveries().allSatisfy { $0.message.exchange == "amq.rabbitmq.trace" })
  }

  // MARK: Bounds

  @Test func aLargeBodyIsCut() throws {
    let body = [UInt8](repeating: 7, count: BrokerLimits.tracedBodyMax + 1)
    try channel.publishLarge(body, key: "q")
    _ = try channel.take("q")
    let all = try traces()
    #expect(all.map(\.key) == ["publish.", "deliver.q"])
    for trace in all {
      #expect(trace.body.count == BrokerLimits.tracedBodyMax)
      #expect(trace.headers["body_size"] == .int64(Int64(body.count)))
    }
  }

  @Test func headersThatDoNotFitAreLeftOut() throws {
    var deep: FieldTable = ["x": .int32(1)]
    for _ in 1..<FieldTable.depthMax { deep = ["t": .table(deep)] }
    let many = FieldTable((0..<15_000).map { .init(name: "a", value: .int32($0)) })
    let long: FieldTable = ["long": .bytes([UInt8](repeating: 1, count: 100_000))]
    for headers in [deep, many, long] {
      try channel.publish("m", key: "q", headers: headers)
      let trace = try #require(try traces().first)
      #expect(trace.headers["incomplete"] == .bool(true))
      #expect(trace.headers["properties"] == .table([:]))
      #expect(trace.text("user") == "anna")
    }
  }

  @Test func namesThatDoNotFitAreLeftOut() throws {
    try vhost.declare(exchange: "x", "fanout")
    for number in 0..<300 {
      let name = Name(String(repeating: "n", count: 240) + "\(number)")
      try channel.declare(name)
      try channel.bind(name, to: "x")
    }
    try channel.publish("m", to: "x", key: "k")
    let trace = try #require(try traces().first)
    guard case .array(let routed)? = trace.headers["routed_queues"] else {
      Issue.record("no routed queues")
      return
    }
    #expect(routed.count > 100 && routed.count < 200)
    #expect(trace.headers["incomplete"] == .bool(true))
  }

  @Test func copiesThatFindNoRoomAreCounted() throws {
    var limits = BrokerLimits()
    limits.traceBytesMax = 10_000
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    for (queue, exchange) in [("traces", "amq.rabbitmq.trace"), ("audit", "amq.rabbitmq.event")] {
      try channel.declare(Name(queue))
      try channel.bind(Name(queue), to: Name(exchange), key: "#")
    }
    broker.turn()
    try channel.purge("audit")
    broker.vhost.trace(true)
    try broker.turn {
      for _ in 0..<100 { try channel.publish("m", key: "nowhere") }
    }
    broker.vhost.trace(false)
    let copied = try channel.drain("traces").count
    #expect(copied > 5 && copied < 50)
    let events = try channel.drain("audit").map { try Told($0) }
    #expect(events.map(\.key) == ["trace.dropped"])
    #expect(events[0].headers["count"] == .int64(Int64(100 - copied)))
    #expect(broker.broker.takeDropped() == (events: 0, traces: 100 - copied))
    #expect(broker.broker.account[.events] == 0)
  }

  @Test func noCopiesAreMadeWhileMemoryIsUsedUp() throws {
    var limits = BrokerLimits()
    limits.memoryBytes = 1 << 20
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare("traces")
    try channel.bind("traces", to: "amq.rabbitmq.trace", key: "#")
    broker.vhost.trace(true)
    broker.broker.account.add(1 << 20, to: .output)
    try broker.turn { try channel.publish("m", key: "nowhere") }
    broker.broker.account.add(-1 << 20, to: .output)
    #expect(broker.vhost.destinations["traces"]?.readyCount == 0)
    #expect(broker.broker.takeDropped().traces == 1)
  }
}
