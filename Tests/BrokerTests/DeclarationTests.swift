import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct DeclarationTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private var vhost: VirtualHost { broker.vhost }

  // MARK: Queues

  @Test func aQueueCanBeDeclaredAgainAlike() throws {
    #expect(
      try channel.declare("q", isDurable: true, arguments: ["x-max-length": .int32(5)])
        == QueueStatus(name: "q", readyCount: 0, consumerCount: 0))
    try channel.publish("1", key: "q")
    try channel.publish("2", key: "q")
    try channel.consume("q", tag: "c")
    channel.setFlow(false)
    let again = try channel.declare("q", isDurable: true, arguments: ["x-max-length": .int64(5)])
    #expect(again == QueueStatus(name: "q", readyCount: 2, consumerCount: 1))
    let passive = try channel.declare("q", isPassive: true)
    #expect(passive == again)
    #expect(try channel.declare("", isPassive: true) == again)
  }

  @Test func aQueueIsNotDeclaredAgainInAnotherWay() throws {
    try channel.declare("q", isDurable: true, arguments: ["x-max-length": .int32(5)])
    try channel.declare("transient")
    let arguments: FieldTable = ["x-max-length": .int32(5)]
    let queue = BrokerError.Subject.queue("q", in: "/")
    #expect(
      mistake { try channel.declare("q", arguments: arguments) }
        == .existsOtherwise(queue, property: "durable", wanted: "false", present: "true"))
    #expect(
      mistake {
        try channel.declare("q", isDurable: true, isAutoDelete: true, arguments: arguments)
      }
        == .existsOtherwise(queue, property: "auto_delete", wanted: "true", present: "false"))
    #expect(
      mistake { try channel.declare("q", isDurable: true) }
        == .existsWithArgument(
          queue, argument: "x-max-length", wanted: "none",
          present: "the value '5' of type 'signedint'"))
    #expect(
      mistake { try channel.declare("q", isDurable: true, arguments: ["x-max-length": .int32(6)]) }
        == .existsWithArgument(queue, argument: "x-max-length", wanted: "'6'", present: "'5'"))
    let locked = BrokerError.locked(queue: "q", in: "/")
    #expect(mistake { try channel.declare("q", isExclusive: true, arguments: arguments) } == locked)
  }

  @Test func unknownArgumentsAreKeptAndNotCompared() throws {
    try channel.declare("q", arguments: ["colour": .string("red")])
    try channel.declare("q", arguments: ["colour": .string("blue")])
    #expect(broker.queue("q")?.arguments == ["colour": .string("red")])
  }

  @Test(
    arguments: [
      ("x-message-ttl", .int32(-1), "{value_negative,-1}"),
      ("x-message-ttl", .string("1"), "\"expected integer, got longstr\""),
      ("x-expires", .int32(0), "{value_zero,0}"),
      ("x-max-priority", .int32(256), "{max_value_exceeded,256}"),
      ("x-single-active-consumer", .int32(1), "{unacceptable_type,signedint}"),
      ("x-overflow", .string("burst"), "invalid_overflow"),
      ("x-queue-type", .string("pigeon"), "\"unsupported queue type 'pigeon'\""),
      ("x-quorum-initial-group-size", .int32(0), "{value_zero,0}"),
      ("x-dead-letter-strategy", .string("sometimes"), "invalid_dlx_strategy"),
      ("x-dead-letter-routing-key", .string("k"), "routing_key_but_no_dlx_defined"),
    ] as [(Name, FieldValue, String)])
  func impossibleArgumentsAreRefused(_ name: Name, _ value: FieldValue, _ reason: String) {
    let error = mistake { try channel.declare("q", arguments: [name: value]) }
    #expect(error == .refusedArgument(name, of: .subject(.queue("q", in: "/")), reason: reason))
    #expect(broker.queue("q") == nil)
  }

  @Test func whatIsNotThereIsSaid() {
    let none = BrokerError.notFound(.queue("q", in: "/"))
    #expect(mistake { try channel.declare("q", isPassive: true) } == none)
    #expect(mistake { try channel.bind("q", to: "amq.direct") } == none)
    #expect(mistake { try channel.consume("q") } == none)
    #expect(mistake { _ = try channel.take("q") } == none)
    #expect(mistake { try channel.purge("q") } == none)
    #expect(mistake { try channel.delete("q") } == nil)
    #expect(mistake { try channel.unbind("q", from: "amq.direct") } == nil)
    let noExchange = BrokerError.notFound(.exchange("x", in: "/"))
    #expect(mistake { try vhost.declare(exchange: "x", isPassive: true) } == noExchange)
    #expect(mistake { try vhost.bind(exchange: "x", to: "amq.direct") } == noExchange)
    #expect(mistake { try vhost.bind(exchange: "amq.direct", to: "x") } == noExchange)
    #expect(mistake { try vhost.delete(exchange: "x") } == nil)
    #expect(mistake { try vhost.unbind(exchange: "x", from: "y") } == nil)
  }

  @Test func anEmptyNameIsTheChannelsLastQueue() throws {
    for body: () throws -> Void in [
      { try channel.bind("", to: "amq.direct") }, { try channel.consume("") },
      { try channel.delete("") }, { try channel.purge("") },
      { try channel.declare("", isPassive: true) },
    ] { #expect(mistake(body) == .noCurrentQueue) }
    let name = try channel.declare("").name
    #expect(name.hasPrefix("amq.gen-"))
    #expect(name.bytes.count == 30)
    try channel.bind("", to: "amq.direct")
    try channel.publish("1", to: "amq.direct", key: name)
    #expect(try channel.drain("").map(\.text) == ["1"])
    #expect(try channel.declare("").name != name)
    #expect(mistake { try client.open(2).purge("") } == .noCurrentQueue)
  }

  @Test func reservedNamesAreRefused() throws {
    #expect(mistake { try channel.declare("amq.q") } == .reservedName(.queue("amq.q", in: "/")))
    #expect(
      mistake { try vhost.declare(exchange: "amq.x") } == .reservedName(.exchange("amq.x", in: "/"))
    )
    try vhost.declare(exchange: "amq.topic", "topic", isDurable: true)
    #expect(
      mistake { try vhost.delete(exchange: "amq.topic") }
        == .isPredeclared(exchange: "amq.topic", in: "/"))
    for body: () throws -> Void in [
      { try vhost.declare(exchange: "") }, { try vhost.delete(exchange: "") },
      { try vhost.bind(exchange: "", to: "amq.topic") },
      { try vhost.bind(exchange: "amq.topic", to: "") }, { try channel.bind("", to: "") },
      { try channel.unbind("", from: "") },
    ] { #expect(mistake(body) == .isDefaultExchange) }
  }

  @Test func lineBreaksAreDroppedFromNames() throws {
    #expect(try channel.declare("a\r\nb").name == "ab")
    try vhost.declare(exchange: "x\n")
    try vhost.declare(exchange: "x", isPassive: true)
  }

  @Test func deletingTellsHowManyWereReady() throws {
    try channel.declare("q")
    for text in ["1", "2", "3"] { try channel.publish(text, key: "q") }
    _ = try channel.take("q", isAutomatic: false)
    #expect(
      mistake { try channel.delete("q", ifEmpty: true) } == .notEmpty(queue: "q", in: "/"))
    #expect(try channel.purge("q") == 2)
    try channel.publish("4", key: "q")
    let tag = try channel.consume("q", isAutomatic: true)
    #expect(
      mistake { try channel.delete("q", ifUnused: true) } == .inUse(.queue("q", in: "/")))
    channel.cancel(tag)
    #expect(try channel.delete("q", ifUnused: true) == 1)
    #expect(try channel.delete("q") == 0)
  }

  // MARK: Limits

  @Test func limitsHold() throws {
    var limits = BrokerLimits()
    limits.queuesMax = 2
    limits.exchangesMax = vhost.exchangeCount + 1
    limits.bindingsMax = 1
    limits.consumersMax = 1
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare("a")
    try channel.declare("b")
    #expect(
      mistake { try channel.declare("c") } == .limitReached(.declared(.queue("c", in: "/"), max: 2))
    )
    try channel.declare("a")
    try broker.vhost.declare(exchange: "x")
    #expect(
      mistake { try broker.vhost.declare(exchange: "y") }
        == .limitReached(.declared(.exchange("y", in: "/"), max: limits.exchangesMax)))
    try channel.bind("a", to: "x")
    #expect(mistake { try channel.bind("b", to: "x") } == .limitReached(.bindings(in: "/", max: 1)))
    try channel.unbind("a", from: "x")
    try channel.bind("b", to: "x")
    try channel.consume("a")
    #expect(mistake { try channel.consume("b") } == .limitReached(.consumers(max: 1)))
  }

  @Test func argumentsHaveALimit() throws {
    let arguments = FieldTable((0..<257).map { .init(name: Name("a\($0)"), value: .void) })
    let refused = BrokerError.limitReached(.arguments(count: 257, max: 256))
    try channel.declare("q")
    try vhost.declare(exchange: "x", "headers")
    #expect(mistake { try channel.bind("q", to: "x", arguments: arguments) } == refused)
    #expect(mistake { try channel.declare("r", arguments: arguments) } == refused)
    #expect(mistake { try vhost.declare(exchange: "y", arguments: arguments) } == refused)
    #expect(
      mistake {
        _ = try channel.consume(
          "q", tag: "", isAutomatic: true, isExclusive: false, arguments: arguments)
      } == refused)
    var fewer = arguments
    fewer.entries.removeLast()
    try channel.bind("q", to: "x", arguments: fewer)
    #expect(vhost.bindings == 1)
  }

  // MARK: Exclusive queues

  @Test func anExclusiveQueueIsItsConnectionsOwn() throws {
    try channel.declare("q", isDurable: true, isExclusive: true)
    #expect(broker.queue("q")?.isDurable == false)
    try client.open(2).declare("q", isDurable: true, isExclusive: true)
    let other = broker.connect().open()
    for body: () throws -> Void in [
      { try other.declare("q", isExclusive: true) }, { try other.declare("q", isPassive: true) },
      { try other.bind("q", to: "amq.direct") }, { try other.unbind("q", from: "amq.direct") },
      { try other.consume("q") }, { _ = try other.take("q") }, { try other.purge("q") },
      { try other.delete("q") }, { try channel.declare("q") },
    ] { #expect(mistake(body) == .locked(queue: "q", in: "/")) }
    try other.publish("1", key: "q")
    #expect(try channel.drain("q").map(\.text) == ["1"])
  }

  @Test func anExclusiveQueueGoesWithItsConnection() throws {
    try channel.declare("q", isExclusive: true)
    try channel.declare("kept")
    try channel.bind("q", to: "amq.direct")
    try channel.publish("1", key: "q", isPersistent: true)
    channel.close()
    #expect(broker.queue("q") != nil)
    client.close()
    #expect(broker.queue("q") == nil)
    #expect(broker.queue("kept") != nil)
    #expect(vhost.bindings == 0)
    try broker.connect().open().declare("q")
    broker.expectNothingHeld()
  }

  // MARK: What goes by itself

  @Test func anAutomaticQueueGoesWithItsLastConsumer() throws {
    try channel.declare("q", isAutoDelete: true)
    let other = client.open(2)
    let tags = [try channel.consume("q"), try channel.consume("q")]
    try other.consume("q")
    channel.cancel(tags[0])
    other.close()
    #expect(broker.queue("q") != nil)
    channel.cancel(tags[1])
    #expect(broker.queue("q") == nil)
    #expect(client.events() == [], "those who left are not told")
  }

  @Test func anAutomaticQueueGoesWithTheConnectionOfItsLastConsumer() throws {
    let other = broker.connect()
    try other.open(1).declare("q", isAutoDelete: true)
    try other.open(2).consume("q")
    try channel.publish("1", key: "q")
    broker.turn()
    other.close()
    #expect(broker.queue("q") == nil)
    broker.expectNothingHeld()
  }

  @Test func anAutomaticQueueWithoutConsumersStays() throws {
    try channel.declare("q", isAutoDelete: true)
    _ = try channel.take("q")
    channel.close()
    #expect(broker.queue("q") != nil)
  }

  @Test func anAutomaticExchangeGoesWithItsLastBinding() throws {
    try channel.declare("q")
    try vhost.declare(exchange: "x", isAutoDelete: true)
    try vhost.declare(exchange: "y", isAutoDelete: true)
    try vhost.bind(exchange: "x", to: "y")
    try channel.bind("q", to: "x", key: "1")
    try channel.bind("q", to: "x", key: "2")
    try channel.unbind("q", from: "x", key: "1")
    #expect(vhost.exchanges["x"] != nil)
    try channel.unbind("q", from: "x", key: "2")
    #expect(vhost.exchanges["x"] == nil)
    #expect(vhost.exchanges["y"] == nil, "its last binding led to an exchange that is gone")
    #expect(vhost.bindings == 0)
  }

  @Test func aChainOfAutomaticExchangesGoesWithItsLastQueue() throws {
    let count = 20_000
    for index in 0..<count {
      try vhost.declare(exchange: Name("x\(index)"), isDurable: true, isAutoDelete: true)
    }
    for index in 1..<count {
      try vhost.bind(exchange: Name("x\(index)"), to: Name("x\(index - 1)"))
    }
    try channel.declare("q")
    try channel.bind("q", to: Name("x\(count - 1)"))
    let before = vhost.exchangeCount
    try channel.delete("q")
    broker.finishChores()
    #expect(vhost.exchangeCount == before - count)
    #expect(vhost.bindings == 0)
  }

  @Test func anExchangeInUseIsOneWithBindingsFromIt() throws {
    try channel.declare("q")
    try vhost.declare(exchange: "x")
    try vhost.bind(exchange: "x", to: "amq.direct")
    try channel.bind("q", to: "x")
    #expect(
      mistake { try vhost.delete(exchange: "x", ifUnused: true) }
        == .inUse(.exchange("x", in: "/")))
    try channel.unbind("q", from: "x")
    try vhost.delete(exchange: "x", ifUnused: true)
    #expect(vhost.bindings == 0)
  }

  @Test func anExchangeGoesWithManyBindingsOfOneQueue() throws {
    try channel.declare("q")
    try channel.declare("p")
    try vhost.declare(exchange: "x")
    try channel.bind("q", to: "amq.fanout")
    for index in 0..<30_000 { try channel.bind("q", to: "x", key: Name("\(index)")) }
    try channel.bind("p", to: "x")
    try vhost.delete(exchange: "x")
    #expect(broker.finishChores() > 3)
    #expect(vhost.bindings == 1)
    #expect(broker.queue("q")?.bindings.count == 1)
    #expect(broker.queue("p")?.bindings.count == 0)
    try channel.delete("q")
    #expect(vhost.bindings == 0)
  }

  // MARK: Exchanges

  @Test func anExchangeIsNotDeclaredAgainInAnotherWay() throws {
    let arguments: FieldTable = ["alternate-exchange": .string("a"), "other": .int32(1)]
    try vhost.declare(exchange: "x", "topic", isDurable: true, arguments: arguments)
    try vhost.declare(
      exchange: "x", "topic", isDurable: true,
      arguments: ["alternate-exchange": .string("a"), "other": .int32(2)])
    let exchange = BrokerError.Subject.exchange("x", in: "/")
    #expect(
      mistake { try vhost.declare(exchange: "x", "direct", isDurable: true, arguments: arguments) }
        == .existsOtherwise(exchange, property: "type", wanted: "direct", present: "topic"))
    #expect(
      mistake { try vhost.declare(exchange: "x", "topic", arguments: arguments) }
        == .existsOtherwise(exchange, property: "durable", wanted: "false", present: "true"))
    #expect(
      mistake {
        try vhost.declare(
          exchange: "x", "topic", isDurable: true, isAutoDelete: true, arguments: arguments)
      } == .existsOtherwise(exchange, property: "auto_delete", wanted: "true", present: "false"))
    #expect(
      mistake {
        try vhost.declare(
          exchange: "x", "topic", isDurable: true, isInternal: true, arguments: arguments)
      } == .existsOtherwise(exchange, property: "internal", wanted: "true", present: "false"))
    #expect(
      mistake { try vhost.declare(exchange: "x", "topic", isDurable: true) }
        == .existsWithArgument(
          exchange, argument: "alternate-exchange", wanted: "none",
          present: "the value 'a' of type 'longstr'"))
    #expect(
      mistake { try vhost.declare(exchange: "y", "sundial") }
        == .unknownExchangeType("sundial"))
    #expect(
      mistake { try vhost.declare(exchange: "y", arguments: ["alternate-exchange": .int32(1)]) }
        == .mistypedArgument(
          "alternate-exchange", of: .exchange("y", in: "/"), type: "signedint"))
    #expect(
      mistake {
        try channel.declare("q", arguments: ["x-dead-letter-exchange": .bool(true)])
      } == .mistypedArgument("x-dead-letter-exchange", of: .queue("q", in: "/"), type: "bool"))
  }
}
