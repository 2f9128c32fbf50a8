import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct FilterBindingTests {
  private let broker: TestBroker
  private let channel: Channel

  private static let exchanges: [Name] = ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"]

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
  }

  private var vhost: VirtualHost { broker.vhost }

  private func filter(_ text: String) -> FieldTable { ["x-filter": .string(text)] }

  private func drain(_ queue: Name) throws -> [String] { try channel.drain(queue).map(\.text) }

  // MARK: All types of exchanges

  @Test(arguments: exchanges)
  func aQueueGetsWhatItsFilterIsTrueOf(_ exchange: Name) throws {
    try channel.declare("errors")
    try channel.declare("all")
    try channel.bind("errors", to: exchange, key: "k", arguments: filter("level = 'error'"))
    try channel.bind("all", to: exchange, key: "k")
    for level in ["error", "info"] {
      try channel.publish(level, to: exchange, key: "k", headers: ["level": .string(level)])
    }
    try channel.publish("plain", to: exchange, key: "k")
    try channel.publish("durable", to: exchange, key: "k", isPersistent: true)
    #expect(try drain("errors") == ["error"])
    #expect(try drain("all") == ["error", "info", "plain", "durable"])
  }

  @Test(arguments: exchanges)
  func anExchangeGetsWhatItsFilterIsTrueOf(_ exchange: Name) throws {
    try vhost.declare(exchange: "behind", "fanout")
    try channel.declare("q")
    try channel.bind("q", to: "behind")
    try vhost.bind(
      exchange: "behind", to: exchange, key: "k",
      arguments: filter("body LIKE '%timeout%' AND routing_key = 'k' AND exchange LIKE 'amq.%'"))
    for body in ["a timeout", "fine"] {
      try channel.publish(body, to: exchange, key: "k")
      try channel.publishLarge(Array(body.utf8), to: exchange, key: "k")
    }
    #expect(try drain("q") == ["a timeout", "a timeout"])
    try vhost.unbind(
      exchange: "behind", from: exchange, key: "k",
      arguments: filter("body LIKE '%timeout%' AND routing_key = 'k' AND exchange LIKE 'amq.%'"))
    try channel.publish("a timeout", to: exchange, key: "k")
    #expect(try drain("q") == [])
  }

  @Test(arguments: ["amq.direct", "amq.topic"] as [Name])
  func aFilterDoesNotReplaceTheKey(_ exchange: Name) throws {
    try channel.declare("q")
    try channel.bind("q", to: exchange, key: "k", arguments: filter("TRUE"))
    try channel.publish("other", to: exchange, key: "other")
    try channel.publish("k", to: exchange, key: "k")
    #expect(try drain("q") == ["k"])
  }

  @Test(arguments: ["all", "any", "all-with-x", "any-with-x"])
  func aFilterIsNoHeaderThatIsCompared(_ match: String) throws {
    try channel.declare("q")
    var arguments = filter("size > 10")
    arguments.entries += [
      .init(name: "x-match", value: .string(match)), .init(name: "kind", value: .string("pdf")),
    ]
    try channel.bind("q", to: "amq.headers", arguments: arguments)
    try channel.publish(
      "both", to: "amq.headers", headers: ["kind": .string("pdf"), "size": .int32(11)])
    try channel.publish(
      "small", to: "amq.headers", headers: ["kind": .string("pdf"), "size": .int32(10)])
    try channel.publish(
      "other", to: "amq.headers",
      headers: ["kind": .string("txt"), "size": .int32(11), "x-filter": .string("size > 10")])
    #expect(try drain("q") == ["both"])
  }

  // MARK: What a binding is

  @Test(arguments: exchanges)
  func bindingsWithDifferentFiltersAreDifferent(_ exchange: Name) throws {
    try channel.declare("q")
    let filters = ["a = 1", "a = 2", "a  = 1"]
    for text in filters + filters { try channel.bind("q", to: exchange, arguments: filter(text)) }
    #expect(vhost.bindings == 3)
    for number in [1, 2, 3] as [Int32] {
      try channel.publish("\(number)", to: exchange, headers: ["a": .int32(number)])
    }
    #expect(try drain("q") == ["1", "2"])
    try channel.unbind("q", from: exchange)
    try channel.unbind("q", from: exchange, arguments: filter("a = 3"))
    #expect(vhost.bindings == 3)
    try channel.unbind("q", from: exchange, arguments: filter("a = 1"))
    try channel.publish("1", to: exchange, headers: ["a": .int32(1)])
    #expect(try drain("q") == ["1"])
    try channel.unbind("q", from: exchange, arguments: filter("a  = 1"))
    try channel.publish("1", to: exchange, headers: ["a": .int32(1)])
    try channel.publish("2", to: exchange, headers: ["a": .int32(2)])
    #expect(try drain("q") == ["2"])
    try channel.delete("q")
    broker.finishChores()
    #expect(vhost.bindings == 0)
    #expect(vhost.bindingBytes == 0)
  }

  @Test(arguments: exchanges)
  func manyFiltersComeAndGoInAnyOrder(_ exchange: Name) throws {
    var random = SeededRandom(1)
    var bound: Set<Int> = []
    for number in 0..<20 { try channel.declare(Name("q\(number)")) }
    for _ in 0..<300 {
      let number = random.number(0..<20)
      let arguments = filter("a > \(number)")
      if bound.remove(number) != nil {
        try channel.unbind(Name("q\(number)"), from: exchange, arguments: arguments)
      } else {
        bound.insert(number)
        try channel.bind(Name("q\(number)"), to: exchange, arguments: arguments)
      }
      let value = random.number(0..<22)
      try channel.publish("m", to: exchange, headers: ["a": .int32(Int32(value))])
      for other in 0..<20 {
        let expected = bound.contains(other) && value > other ? ["m"] : []
        try #require(try drain(Name("q\(other)")) == expected)
      }
    }
  }

  @Test func aQueueWithAndWithoutAFilterGetsAMessageOnce() throws {
    try channel.declare("q")
    try channel.bind("q", to: "amq.fanout", arguments: filter("a = 1"))
    try channel.bind("q", to: "amq.fanout")
    try channel.publish("1", to: "amq.fanout", headers: ["a": .int32(1)])
    try channel.publish("2", to: "amq.fanout", headers: ["a": .int32(2)])
    #expect(try drain("q") == ["1", "2"])
  }

  @Test func whatNoFilterIsTrueOfGoesToTheAlternateExchange() throws {
    try vhost.declare(
      exchange: "x", "direct", arguments: ["alternate-exchange": .string("amq.fanout")])
    try channel.declare("q")
    try channel.declare("rest")
    try channel.bind("rest", to: "amq.fanout")
    try channel.bind("q", to: "x", key: "k", arguments: filter("p.priority > 4"))
    for priority in [4, 5] as [UInt8] {
      var properties = BasicProperties()
      properties.priority = priority
      try channel.publish("\(priority)", to: "x", key: "k", properties: properties)
    }
    #expect(try drain("q") == ["5"])
    #expect(try drain("rest") == ["4"])
  }

  @Test func everyKeyOfAMessageMayReachAFilter() throws {
    try channel.declare("q")
    try channel.bind("q", to: "amq.direct", key: "copy", arguments: filter("routing_key = 'k'"))
    try channel.publish(
      "1", to: "amq.direct", key: "k", headers: ["CC": .array([.string("copy")])])
    try channel.publish(
      "2", to: "amq.direct", key: "l", headers: ["BCC": .array([.string("copy")])])
    #expect(try drain("q") == ["1"])
  }

  // MARK: Restart

  @Test(arguments: exchanges)
  func filtersOutliveTheBroker(_ exchange: Name) throws {
    try channel.declare("q", isDurable: true)
    try channel.bind("q", to: exchange, key: "k", arguments: filter("level = 'error'"))
    try channel.bind("q", to: exchange, key: "k", arguments: filter("level = 'gone'"))
    try channel.unbind("q", from: exchange, key: "k", arguments: filter("level = 'gone'"))
    broker.durableTurn()
    let again = try broker.restarted()
    let channel = again.connect().open()
    for level in ["error", "gone", "info"] {
      try channel.publish(level, to: exchange, key: "k", headers: ["level": .string(level)])
    }
    #expect(try channel.drain("q").map(\.text) == ["error"])
    #expect(again.vhost.bindings == 1)
  }

  // MARK: Routes

  @Test func keysWithoutFiltersKeepTheirRoutes() throws {
    try channel.declare("q")
    try channel.bind("q", to: "amq.direct", key: "filtered", arguments: filter("a = 1"))
    try channel.bind("q", to: "amq.direct", key: "plain")
    let plain = try vhost.cachedRoute(names("amq.direct", "plain").span.bytes)
    #expect(!plain.needsMessage && plain.count == 1)
    let filtered = try vhost.cachedRoute(names("amq.direct", "filtered").span.bytes)
    #expect(filtered.needsMessage && filtered.count == 0)
  }

  private func names(_ exchange: Name, _ key: Name) -> [UInt8] {
    [UInt8(exchange.bytes.count)] + exchange.bytes + [UInt8(key.bytes.count)] + key.bytes
  }

  @Test func whatFiltersCostCountsAsRouting() throws {
    var limits = BrokerLimits()
    limits.routingStepsMax = 1000
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare("q")
    for number in 0..<10 {
      try channel.bind("q", to: "amq.fanout", arguments: filter("body LIKE '%\(number)%'"))
    }
    // Ten filters look at 64 KiB each, 256 steps.
    let error = mistake {
      try channel.publish([UInt8](repeating: 0x61, count: 1 << 16), to: "amq.fanout", key: "")
    }
    #expect(error == .limitReached(.routingSteps(from: "amq.fanout", in: "/", max: 1000)))
    try channel.publish([UInt8](repeating: 0x61, count: 1 << 13), to: "amq.fanout", key: "")
  }

  // MARK: Mistakes

  @Test func aMistakeIsToldWhenItIsBound() throws {
    try channel.declare("q")
    let error = mistake {
      try channel.bind("q", to: "amq.fanout", arguments: filter("level = )"))
    }
    #expect(
      error
        == .refusedArgument(
          "x-filter", of: .binding, reason: "column 9: expected a value, got ')'"))
    #expect(
      mistake { try channel.bind("q", to: "amq.fanout", arguments: ["x-filter": .int32(5)]) }
        == .refusedArgument(
          "x-filter", of: .binding, reason: "expected a string, got signedint"))
    #expect(
      mistake { try vhost.bind(exchange: "amq.topic", to: "amq.fanout", arguments: filter("5")) }
        == .refusedArgument(
          "x-filter", of: .binding, reason: "column 1: expected a condition, got a number"))
    #expect(vhost.bindings == 0)
    // What was never bound is not there to be unbound, whatever it is.
    try channel.unbind("q", from: "amq.fanout", arguments: filter("level = )"))
  }
}
