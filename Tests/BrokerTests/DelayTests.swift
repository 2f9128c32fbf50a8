import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages that exchanges keep back until their time has come.
@Suite struct DelayTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private static let ten: Int64 = 315_360_000_000

  private func declare(
    _ arguments: FieldTable = ["x-delayed-type": .string("direct")],
    _ type: Name = "x-delayed-message"
  ) throws {
    try broker.vhost.declare(exchange: "later", type, isDurable: true, arguments: arguments)
    try channel.declare("q", isDurable: true)
    try channel.bind("q", to: "later", key: "k")
  }

  private func publish(
    _ body: String, delay: FieldValue?, to exchange: Name = "later", key: Name = "k",
    headers: FieldTable = [:], isPersistent: Bool = true,
    isMandatory: Bool = false
  ) throws {
    var properties = BasicProperties()
    var headers = headers
    if let delay { headers.entries.append(.init(name: "x-delay", value: delay)) }
    properties.headers = headers
    try channel.publish(
      body, to: exchange, key: key, properties: properties, isPersistent: isPersistent,
      isMandatory: isMandatory)
  }

  private func pass(_ milliseconds: Int64) { _ = broker.rest(milliseconds: milliseconds) }

  private func act(_ body: () throws -> Void) rethrows {
    try body()
    pass(0)
  }

  private var ready: Int? { broker.queue("q")?.readyCount }
  private var delayed: Int? { broker.queue("amq.delayed")?.readyCount }

  private func headers(_ delivery: Delivery) throws -> FieldTable {
    var reader = ByteReader(delivery.message.properties.span.bytes)
    return try BasicProperties(from: &reader).headers ?? [:]
  }

  // MARK: Time

  @Test(arguments: [1, 127, 128, 255, 256, 5000, 40_000, 7_200_000, 2_592_000_000, ten])
  func aMessageComesWhenItsTimeHasCome(delay: Int64) throws {
    try declare()
    try act { try publish("a", delay: .int64(delay)) }
    pass(delay - 1)
    #expect(ready == 0 && delayed == 1)
    pass(1)
    #expect(ready == 1 && delayed == 0)
    let got = try #require(try channel.take("q"))
    #expect(got.text == "a" && got.message.exchange == "later" && !got.isRedelivered)
    #expect(try headers(got)["x-delay"] == .int64(-delay))
    broker.expectNothingHeld()
    #expect(broker.broker.deadlines.count == 0)
  }

  @Test func thoseOfEqualTimesComeInTheirOrderAndOthersByTime() throws {
    try declare()
    let delays: [Int64] = [900, 5, 5, 0, 70_000, 300, 300, 20, 899]
    try act {
      for (number, delay) in delays.enumerated() { try publish("\(number)", delay: .int64(delay)) }
    }
    try channel.consume("q", isAutomatic: true)
    pass(80_000)
    #expect(client.bodies() == ["3", "1", "2", "7", "5", "6", "8", "0", "4"])
  }

  @Test func aShortDelayBehindALongOneIsNotLate() throws {
    try declare()
    try act { try publish("long", delay: .int32(3_600_000)) }
    pass(3_599_000)
    try act { try publish("short", delay: .int16(100)) }
    pass(100)
    #expect(try channel.drain("q").map(\.text) == ["short"])
    pass(900)
    #expect(try channel.drain("q").map(\.text) == ["long"])
  }

  @Test func aTurnIsWantedOnlyWhenSomethingIsDue() throws {
    try declare()
    try act { try publish("a", delay: .int32(60_000), isPersistent: false) }
    // From each level to the one below, and out; and to look whether queues are idle.
    #expect(broker.rest(milliseconds: 60_000) <= 12)
    #expect(ready == 1)
  }

  @Test func aClockThatJumpsMakesNothingEarly() throws {
    try declare()
    try act { try publish("a", delay: .int32(60_000)) }
    broker.setClock(by: 3_600_000)
    pass(59_000)
    #expect(ready == 0)
    broker.setClock(by: -7_200_000)
    pass(1_000)
    #expect(ready == 1)
  }

  // MARK: Values

  @Test func whatHasNoDelayIsRoutedAtOnce() throws {
    try declare()
    try publish("none", delay: nil)
    try publish("zero", delay: .int32(0))
    try publish("had", delay: .int64(-5000))
    #expect(try channel.drain("q").map(\.text) == ["none", "zero", "had"])
    #expect(broker.queue("amq.delayed") == nil)
  }

  @Test(
    arguments: [
      .string("100"), .double(100), .bool(true), .void, .timestamp(1), .int64(ten + 1),
      .int64(.max),
    ] as [FieldValue])
  func anImpossibleDelayIsRefused(value: FieldValue) throws {
    try declare()
    let refusal = mistake { try publish("a", delay: value) }
    guard case .refusedDelay = refusal else {
      Issue.record("\(value) came to \(String(describing: refusal))")
      return
    }
    #expect(ready == 0 && delayed == nil)
  }

  @Test(
    arguments: [
      (.uint8(200), .int64(-200)), (.int8(100), .int8(-100)), (.uint16(40_000), .int64(-40_000)),
      (.uint16(9), .int16(-9)), (.uint32(3_000_000_000), .int64(-3_000_000_000)),
      (.uint32(7), .int32(-7)), (.int32(9), .int32(-9)),
    ] as [(FieldValue, FieldValue)])
  func consumersSeeTheDelayNegated(sent: FieldValue, got: FieldValue) throws {
    try declare()
    try act { try publish("a", delay: sent, headers: ["first": .int32(1)]) }
    pass(3_000_000_000)
    let delivery = try #require(try channel.take("q"))
    #expect(try headers(delivery) == ["first": .int32(1), "x-delay": got])
  }

  // MARK: Exchanges

  @Test func anyExchangeMayDelay() throws {
    try declare(["x-delay": .bool(true)], "topic")
    try act { try publish("a", delay: .int32(50)) }
    #expect(ready == 0)
    pass(50)
    #expect(try channel.drain("q").map(\.text) == ["a"])
  }

  @Test func otherExchangesDoNot() throws {
    try declare(["x-delay": .bool(false)], "direct")
    try publish("a", delay: .string("not looked at"))
    #expect(try channel.drain("q").map(\.text) == ["a"])
  }

  @Test func impossibleExchangesAreRefused() throws {
    let vhost = broker.vhost
    for arguments in [
      [:], ["x-delayed-type": .string("x-delayed-message")], ["x-delayed-type": .string("none")],
      ["x-delayed-type": .int32(1)],
    ] as [FieldTable] {
      let refusal = mistake {
        try vhost.declare(exchange: "x", "x-delayed-message", arguments: arguments)
      }
      guard case .refusedArgument("x-delayed-type", _, _) = refusal else {
        Issue.record("\(arguments) came to \(String(describing: refusal))")
        continue
      }
    }
    let flag = mistake {
      try vhost.declare(exchange: "x", "direct", arguments: ["x-delay": .string("true")])
    }
    guard case .refusedArgument("x-delay", _, _) = flag else {
      Issue.record("a flag that is text came to \(String(describing: flag))")
      return
    }
    try declare()
    let other = mistake {
      try vhost.declare(
        exchange: "later", "x-delayed-message", isDurable: true,
        arguments: ["x-delayed-type": .string("fanout")])
    }
    guard case .existsWithArgument(_, argument: "x-delayed-type", _, _) = other else {
      Issue.record("another type came to \(String(describing: other))")
      return
    }
  }

  @Test func bindingsCountThatAreThereWhenItIsDue() throws {
    try declare()
    try act { try publish("a", delay: .int32(100)) }
    try channel.unbind("q", from: "later", key: "k")
    try channel.declare("other")
    try channel.bind("other", to: "later", key: "k")
    pass(100)
    #expect(ready == 0)
    #expect(try channel.drain("other").map(\.text) == ["a"])
  }

  @Test func aMessageGoesOverBindingsToAnExchangeThatDelays() throws {
    try declare()
    try broker.vhost.declare(exchange: "in", "fanout")
    try broker.vhost.bind(exchange: "later", to: "in")
    try channel.declare("direct")
    try channel.bind("direct", to: "in")
    try act { try publish("a", delay: .int32(100), to: "in") }
    #expect(try channel.drain("direct").map(\.text) == ["a"])
    #expect(ready == 0)
    pass(100)
    let got = try channel.drain("q")
    #expect(got.map(\.text) == ["a"] && got.first?.message.exchange == "later")
  }

  @Test func twoExchangesInARowDelayOnce() throws {
    try declare()
    try broker.vhost.declare(
      exchange: "first", "x-delayed-message", arguments: ["x-delayed-type": .string("fanout")])
    try broker.vhost.bind(exchange: "later", to: "first")
    try act { try publish("a", delay: .int32(100), to: "first") }
    pass(100)
    #expect(try channel.drain("q").map(\.text) == ["a"])
  }

  @Test func copiesGoToTheirKeysAndBlindOnesAreNotShown() throws {
    try declare()
    for name in ["open", "blind"] as [Name] {
      try channel.declare(name)
      try channel.bind(name, to: "later", key: name)
    }
    try act {
      try publish(
        "a", delay: .int32(100),
        headers: ["CC": .array([.string("open")]), "BCC": .array([.string("blind")])])
    }
    pass(100)
    for name in ["q", "open", "blind"] as [Name] {
      let got = try channel.drain(name)
      #expect(got.map(\.text) == ["a"])
      let headers = try headers(got[0])
      #expect(headers["BCC"] == nil && headers["CC"] == .array([.string("open")]))
    }
  }

  @Test func aMandatoryMessageThatWaitsIsNotReturned() throws {
    try declare()
    try act { try publish("a", delay: .int32(100), key: "nowhere", isMandatory: true) }
    pass(200)
    #expect(client.events() == [] && ready == 0 && delayed == 0)
    broker.expectNothingHeld()
  }

  @Test func whatWasWaitingForAnExchangeThatIsGoneGoes() throws {
    try declare()
    try act { try publish("a", delay: .int32(100)) }
    try broker.vhost.delete(exchange: "later")
    pass(200)
    #expect(ready == 0 && delayed == 0)
    broker.expectNothingHeld()
  }

  @Test func aDeadLetterIsKeptBack() throws {
    try declare()
    try channel.declare(
      "work",
      arguments: [
        "x-dead-letter-exchange": .string("later"),
        "x-dead-letter-routing-key": .string("k"),
      ])
    try act { try publish("a", delay: .int32(100), to: "", key: "work") }
    try act {
      let tag = try #require(try channel.take("work", isAutomatic: false)).tag
      try channel.reject(tag, isMultiple: false, requeues: false)
    }
    #expect(ready == 0 && delayed == 1)
    pass(100)
    #expect(try channel.drain("q").map(\.text) == ["a"])
  }

  @Test func aDeadLetterWithAnImpossibleDelayGoesOnAtOnce() throws {
    try declare()
    try channel.declare(
      "work",
      arguments: [
        "x-dead-letter-exchange": .string("later"), "x-dead-letter-routing-key": .string("k"),
      ])
    try act { try publish("a", delay: .string("soon"), to: "", key: "work") }
    try act {
      let tag = try #require(try channel.take("work", isAutomatic: false)).tag
      try channel.reject(tag, isMultiple: false, requeues: false)
    }
    #expect(try channel.drain("q").map(\.text) == ["a"])
  }

  @Test func whatAFullQueueRefusesWhenItIsDueIsADeadLetter() throws {
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", arguments: ["x-delayed-type": .string("fanout")])
    try channel.declare("dead")
    try channel.declare(
      "q",
      arguments: [
        "x-max-length": .int32(1), "x-overflow": .string("reject-publish-dlx"),
        "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("dead"),
      ])
    try channel.bind("q", to: "later")
    try act { for number in 0..<3 { try publish("\(number)", delay: .int32(10)) } }
    pass(10)
    #expect(try channel.drain("q").map(\.text) == ["0"])
    #expect(try channel.drain("dead").map(\.text) == ["1", "2"])
    broker.expectNothingHeld()
  }

  @Test func aLifeBeginsWhenTheMessageIsDue() throws {
    try declare()
    var properties = BasicProperties()
    properties.headers = ["x-delay": .int32(1000)]
    properties.expiration = "100"
    try act { try channel.publish("a", to: "later", key: "k", properties: properties) }
    pass(1000)
    #expect(ready == 1)
    pass(100)
    #expect(ready == 0)
  }

  // MARK: The queue

  @Test func nobodyTakesWhatWaits() throws {
    try declare()
    try act { try publish("a", delay: .int32(1000)) }
    let expected = BrokerError.isDelayedQueue("amq.delayed", in: "/")
    let refusals = [
      mistake { _ = try channel.take("amq.delayed") },
      mistake { try channel.consume("amq.delayed") },
      mistake { try channel.delete("amq.delayed") },
      mistake { try channel.bind("amq.delayed", to: "amq.fanout") },
    ]
    #expect(refusals.allSatisfy { $0 == expected })
    #expect(try channel.declare("amq.delayed", isPassive: true).readyCount == 1)
    try channel.publish("b", key: "amq.delayed")
    #expect(delayed == 1)
  }

  @Test func purgingCancelsAll() throws {
    try declare()
    try act { for delay in [10, 1000, 100_000] { try publish("a", delay: .int32(Int32(delay))) } }
    let count = try channel.purge("amq.delayed")
    pass(0)
    #expect(count == 3)
    try act { try publish("b", delay: .int32(50)) }
    pass(200_000)
    #expect(try channel.drain("q").map(\.text) == ["b"])
    broker.expectNothingHeld()
  }

  @Test func aFullQueueRefusesWhatIsDue() throws {
    try broker.vhost.declare(
      exchange: "later", "x-delayed-message", arguments: ["x-delayed-type": .string("fanout")])
    try channel.declare("dead")
    try channel.declare(
      "q",
      arguments: [
        "x-max-length": .int32(1), "x-dead-letter-exchange": .string(""),
        "x-dead-letter-routing-key": .string("dead"),
      ])
    try channel.bind("q", to: "later")
    try act { for number in 0..<3 { try publish("\(number)", delay: .int32(10)) } }
    pass(10)
    #expect(try channel.drain("q").map(\.text) == ["2"])
    #expect(try channel.drain("dead").map(\.text) == ["0", "1"])
    broker.expectNothingHeld()
  }

  @Test func largeMessagesWait() throws {
    try declare()
    let body = [UInt8](repeating: 7, count: 3 << 20)
    var properties = BasicProperties()
    properties.headers = ["x-delay": .int32(20_000), "BCC": .array([.string("none")])]
    try act {
      try channel.publishLarge(body, to: "later", key: "k", properties: properties)
      properties.headers = ["x-delay": .int32(20_000)]
      try channel.publishLarge(
        body, to: "later", key: "k", properties: properties, isPersistent: true)
    }
    pass(20_000)
    #expect(try channel.drain("q").map(\.message.body) == [body, body])
    broker.expectNothingHeld()
  }
}
