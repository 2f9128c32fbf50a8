import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What listeners to `amq.rabbitmq.event` are told.
@Suite struct EventTests {
  private let broker: TestBroker
  private let listener: Channel
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    listener = broker.connect(user: "auditor").open()
    try listener.declare("audit")
    client = broker.connect(user: "anna")
    channel = client.open()
  }

  private var vhost: VirtualHost { broker.vhost }

  /// From now on what fits the key is told.
  private func listen(to key: Name = "#") throws {
    try listener.bind("audit", to: "amq.rabbitmq.event", key: key)
    broker.turn()
    _ = try listener.drain("audit")
  }

  /// What was told since the last call.
  private func told() throws -> [Told] { try listener.drain("audit").map { try Told($0) } }

  private func keys() throws -> [String] { try told().map(\.key) }

  // MARK: What is told

  @Test func aQueueIsToldWithWhatItWasDeclaredWith() throws {
    try listen()
    try broker.turn {
      try channel.declare("q", isAutoDelete: true, arguments: ["x-max-length": .int32(5)])
    }
    let event = try #require(try told().first)
    #expect(event.key == "queue.created")
    #expect(event.body.isEmpty)
    #expect(
      event.headers == [
        "name": .string("q"), "type": .string("classic"), "durable": .bool(false),
        "auto_delete": .bool(true), "exclusive": .bool(false),
        "arguments": .table(["x-max-length": .int32(5)]), "vhost": .string("/"),
        "user_who_performed_action": .string("anna"),
        "timestamp_in_ms": .int64(broker.broker.now),
      ])
    #expect(event.properties.timestamp == UInt64(broker.broker.now / 1000))
    #expect(event.properties.deliveryMode == 2)
  }

  @Test func whatIsThereAlreadyIsNotToldAgain() throws {
    try channel.declare("q")
    try vhost.declare(exchange: "x")
    try channel.bind("q", to: "x", key: "k")
    try listen()
    try broker.turn {
      try channel.declare("q")
      try vhost.declare(exchange: "x")
      try channel.bind("q", to: "x", key: "k")
      try channel.declare("q", isPassive: true)
      try channel.unbind("q", from: "x", key: "other")
      try channel.delete("nothing")
      try vhost.delete(exchange: "nothing")
    }
    #expect(try keys().filter { !$0.hasPrefix("c") } == [])
  }

  @Test func exchangesAndBindingsAreTold() throws {
    try listen(to: "exchange.*")
    try listen(to: "binding.*")
    try channel.declare("q")
    try broker.turn {
      try vhost.declare(exchange: "x", "topic", isAutoDelete: true)
      try channel.bind("q", to: "x", key: "a.#", arguments: ["n": .int32(1)])
      try channel.unbind("q", from: "x", key: "a.#", arguments: ["n": .int32(1)])
    }
    let all = try told()
    #expect(
      all.map(\.key) == [
        "exchange.created", "binding.created", "exchange.deleted", "binding.deleted",
      ])
    #expect(all[0].headers["type"] == .string("topic"))
    #expect(all[0].headers["internal"] == .bool(false))
    for binding in [all[1], all[3]] {
      #expect(binding.headers["source_name"] == .string("x"))
      #expect(binding.headers["source_kind"] == .string("exchange"))
      #expect(binding.headers["destination_name"] == .string("q"))
      #expect(binding.headers["destination_kind"] == .string("queue"))
      #expect(binding.headers["routing_key"] == .string("a.#"))
      #expect(binding.headers["arguments"] == .table(["n": .int32(1)]))
      #expect(binding.headers["user_who_performed_action"] == .string("anna"))
    }
  }

  @Test func aQueueThatGoesTakesBindingsAndConsumersWithIt() throws {
    try vhost.declare(exchange: "x", isAutoDelete: true)
    try channel.declare("q")
    try channel.bind("q", to: "x", key: "k")
    try channel.consume("q", tag: "c")
    try listen()
    try broker.turn { try channel.delete("q") }
    broker.finishChores()
    let all = try told()
    #expect(
      Set(all.map(\.key)) == [
        "queue.deleted", "exchange.deleted", "binding.deleted", "consumer.deleted",
      ])
    #expect(all.count == 4)
    #expect(all.allSatisfy { $0.headers["user_who_performed_action"] == .string("anna") })
    let queue = try #require(all.first { $0.key == "queue.deleted" })
    #expect(queue.headers["reason"] == .string("deleted"))
    let consumer = try #require(all.first { $0.key == "consumer.deleted" })
    #expect(consumer.headers["consumer_tag"] == .string("c"))
    #expect(consumer.headers["queue"] == .string("q"))
    #expect(consumer.headers["channel"] == .string("test (1)"))
  }

  @Test func itIsToldWhyAQueueWent() throws {
    try listen(to: "queue.deleted")
    try broker.turn {
      try channel.declare("unused", isAutoDelete: true)
      try channel.consume("unused", tag: "c")
      channel.cancel("c")
      try channel.declare("expiring", arguments: ["x-expires": .int32(1000)])
      try channel.declare("mine", isExclusive: true)
    }
    broker.advance(milliseconds: 2000)
    broker.turn()
    client.close()
    broker.turn()
    let all = try told()
    #expect(all.map { $0.text("name") } == ["unused", "expiring", "mine"])
    #expect(all.map { $0.text("reason") } == ["auto_delete", "expired", "exclusive"])
    #expect(all.allSatisfy { $0.text("user_who_performed_action") == "rmq-internal" })
  }

  @Test func aConnectionEndsWithItsChannelsAndConsumers() throws {
    try channel.declare("q")
    try listen()
    let other = broker.connect(user: "bert")
    broker.broker.events.opened(other.peer, ["protocol": .string("none")])
    try broker.turn {
      let opened = other.open(7)
      _ = try opened.consume(
        "q", tag: "c", isAutomatic: true, isExclusive: true, arguments: ["x-priority": .int32(3)])
    }
    let began = try told()
    #expect(began.map(\.key) == ["connection.created", "channel.created", "consumer.created"])
    #expect(began[0].text("protocol") == "none")
    #expect(began[0].text("user") == "bert")
    #expect(began[0].text("node") == "martlet")
    #expect(began[1].text("name") == "test (7)")
    #expect(began[1].headers["number"] == .int64(7))
    #expect(began[2].headers["ack_required"] == .bool(false))
    #expect(began[2].headers["exclusive"] == .bool(true))
    #expect(began[2].headers["prefetch_count"] == .int64(0))
    #expect(began[2].headers["arguments"] == .table(["x-priority": .int32(3)]))
    broker.turn { other.close() }
    broker.finishChores()
    let ended = try keys()
    #expect(ended.sorted() == ["channel.closed", "connection.closed", "consumer.deleted"])
    #expect(ended.filter { $0 != "consumer.deleted" } == ["channel.closed", "connection.closed"])
  }

  @Test func aConsumerThatIsTooSlowIsTold() throws {
    try channel.declare("q", arguments: ["x-consumer-timeout": .int32(1000)])
    try listen(to: "consumer.*")
    try broker.turn {
      try channel.publish("m", key: "q")
      try channel.consume("q", tag: "c")
    }
    broker.advance(milliseconds: 10_000)
    broker.turn()
    broker.finishChores()
    let all = try told()
    #expect(all.map(\.key) == ["consumer.created", "consumer.deleted", "consumer.timed_out"])
    #expect(all.last?.headers["milliseconds"] == .int64(1000))
  }

  @Test func alarmsAreToldOneByOne() throws {
    try listen(to: "alarm.*")
    for alarm in ["low on memory", "low on memory & disk", "low on disk", nil] {
      broker.turn { broker.broker.alarm = alarm }
    }
    #expect(
      try told().map { "\($0.key) \($0.text("source"))" } == [
        "alarm.set memory", "alarm.set disk", "alarm.cleared memory", "alarm.cleared disk",
      ])
  }

  @Test func loginsAreTold() throws {
    try listen(to: "user.#")
    let events = broker.broker.events
    broker.turn {
      events.loggedIn("anna", mechanism: "PLAIN", connection: "a", error: nil)
      events.loggedIn("eve", mechanism: "PLAIN", connection: "b", error: "no")
    }
    let all = try told()
    #expect(all.map(\.key) == ["user.authentication.success", "user.authentication.failure"])
    #expect(all.map { $0.text("name") } == ["anna", "eve"])
    #expect(all.map { $0.headers["error"] } == [nil, .string("no")])
  }

  // MARK: When

  @Test func nothingIsMadeWhileNobodyListens() throws {
    try broker.turn {
      try channel.declare("q")
      try listener.bind("audit", to: "amq.rabbitmq.event", key: "#")
      try channel.delete("q")
    }
    // The binding itself is the first event.
    #expect(try keys() == ["binding.created", "queue.deleted"])
    try broker.turn {
      try listener.unbind("audit", from: "amq.rabbitmq.event", key: "#")
      try channel.declare("q")
      #expect(broker.broker.account[.events] == 0)
    }
    #expect(try keys() == [])
  }

  @Test func whatIsDurableIsToldWhenItIs() throws {
    try listen()
    broker.durableTurn()
    try broker.turn {
      try channel.declare("durable", isDurable: true)
      try channel.declare("transient")
      // Not written yet: neither this nor what comes behind it is told.
      broker.broker.events.advance()
      #expect(try keys() == [])
    }
    broker.durableTurn()
    broker.turn()
    #expect(try told().map { $0.text("name") } == ["durable", "transient"])
  }

  @Test func aDurableQueueKeepsEventsOverARestart() throws {
    try listener.declare("log", isDurable: true)
    try listener.bind("log", to: "amq.rabbitmq.event", key: "queue.#")
    try channel.declare("q", isDurable: true)
    broker.durableTurn()
    broker.durableTurn()
    let again = try broker.restarted()
    let reader = again.connect().open()
    #expect(try reader.drain("log").map { try Told($0).text("name") } == ["q"])
    try again.turn { try reader.delete("q") }
    again.durableTurn()
    again.turn()
    #expect(try reader.drain("log").map { try Told($0).key } == ["queue.deleted"])
  }

  @Test func whatHappensAtTheVeryEndIsTold() throws {
    try listener.declare("log", isDurable: true)
    try listener.bind("log", to: "amq.rabbitmq.event", key: "connection.#")
    broker.durableTurn()
    let again = try broker.restarted()
    let closed = try again.connect().open().drain("log").map { try Told($0) }
    #expect(closed.map(\.key) == ["connection.closed", "connection.closed"])
    #expect(Set(closed.map { $0.text("user") }) == ["auditor", "anna"])
  }

  // MARK: Bounds

  @Test func theEndOfAQueueOfEventsIsToldToOthersAndEnds() throws {
    try channel.declare("first")
    try channel.bind("first", to: "amq.rabbitmq.event", key: "#")
    try listen()
    broker.turn()
    _ = try told()
    try broker.turn { try channel.delete("first") }
    #expect(broker.finishChores() < 10)
    #expect(try keys() == ["queue.deleted", "binding.deleted"])
  }

  @Test func manyAtOnceAreToldInOrderAndTakeNoMemoryAfterwards() throws {
    try listen(to: "queue.created")
    let count = 5000
    try broker.turn {
      for number in 0..<count { try channel.declare(Name("q\(number)")) }
      #expect(broker.broker.account[.events] > count * 100)
    }
    #expect(broker.broker.hasChores)
    broker.finishChores()
    #expect(try told().map { $0.text("name") } == (0..<count).map { "q\($0)" })
    #expect(broker.broker.account[.events] == 0)
  }

  @Test func whatFindsNoRoomIsCountedAndToldInItsPlace() throws {
    var limits = BrokerLimits()
    limits.eventBytesMax = 10_000
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare("audit")
    try channel.bind("audit", to: "amq.rabbitmq.event", key: "#")
    broker.turn()
    try channel.purge("audit")
    try broker.turn {
      for number in 0..<1000 { try channel.declare(Name("q\(number)")) }
    }
    broker.finishChores()
    try broker.turn { try channel.declare("late") }
    let all = try channel.drain("audit").map { try Told($0) }
    let kept = all.count - 2
    #expect(kept > 5 && kept < 100)
    #expect(all[..<kept].map { $0.text("name") } == (0..<kept).map { "q\($0)" })
    #expect(all[kept].key == "events.dropped")
    #expect(all[kept].headers["count"] == .int64(Int64(1000 - kept)))
    #expect(all[kept + 1].text("name") == "late")
    #expect(broker.broker.takeDropped() == (events: 1000 - kept, traces: 0))
    #expect(broker.broker.takeDropped() == (events: 0, traces: 0))
  }

  @Test func manyListenersGetAsManyEventsAsAMessageMay() throws {
    try broker.turn {
      for number in 0..<WideStore.queuesMax + 10 {
        try channel.declare(Name("q\(number)"))
        try channel.bind(Name("q\(number)"), to: "amq.rabbitmq.event", key: "exchange.*")
      }
    }
    broker.turn()
    broker.finishChores()
    try broker.turn { try vhost.declare(exchange: "x") }
    let reached = vhost.destinations.values.count { $0.readyCount == 1 }
    #expect(reached == WideStore.queuesMax)
  }

  @Test func nobodyMayPublishOrDeleteIt() throws {
    #expect(
      mistake { try channel.publish("m", to: "amq.rabbitmq.event", key: "queue.created") }
        == .isInternal(exchange: "amq.rabbitmq.event", in: "/"))
    #expect(
      mistake { try vhost.delete(exchange: "amq.rabbitmq.event") }
        == .isPredeclared(exchange: "amq.rabbitmq.event", in: "/"))
    // A client that makes sure of it.
    try vhost.declare(exchange: "amq.rabbitmq.event", "topic", isDurable: true, isInternal: true)
  }
}

/// An event or a trace, as a listener has it.
struct Told {
  let key: String
  let properties: BasicProperties
  let body: [UInt8]

  init(_ delivery: Delivery) throws {
    key = delivery.message.key.description
    body = delivery.message.body
    var reader = ByteReader(delivery.message.properties.span.bytes)
    properties = try BasicProperties(from: &reader)
  }

  var headers: FieldTable { properties.headers ?? [:] }

  func text(_ name: Name) -> String { headers[name]?.text ?? "" }
}
