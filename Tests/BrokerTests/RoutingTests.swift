import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct RoutingTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private var vhost: VirtualHost { broker.vhost }

  /// Bodies that wait in each queue, which are taken.
  private func drain(_ queue: Name) throws -> [String] { try channel.drain(queue).map(\.text) }

  // MARK: The kinds

  @Test func theDefaultExchangeRoutesByQueueName() throws {
    try channel.declare("a")
    try channel.declare("b")
    try channel.publish("1", key: "a")
    try channel.publish("2", key: "c")
    #expect(try drain("a") == ["1"])
    #expect(try drain("b") == [])
  }

  @Test func aDirectExchangeRoutesByEqualKey() throws {
    try channel.declare("a")
    try channel.declare("b")
    try channel.bind("a", to: "amq.direct", key: "red")
    try channel.bind("b", to: "amq.direct", key: "red")
    try channel.bind("b", to: "amq.direct", key: "blue")
    for key in ["red", "blue", "r", "red.", ""] as [Name] {
      try channel.publish(key.description, to: "amq.direct", key: key)
    }
    #expect(try drain("a") == ["red"])
    #expect(try drain("b") == ["red", "blue"])
  }

  @Test func aFanoutExchangeRoutesToAll() throws {
    try channel.declare("a")
    try channel.declare("b")
    try channel.bind("a", to: "amq.fanout", key: "whatever")
    try channel.bind("b", to: "amq.fanout")
    try channel.publish("1", to: "amq.fanout", key: "x")
    #expect(try drain("a") == ["1"])
    #expect(try drain("b") == ["1"])
  }

  @Test func aHeadersExchangeRoutesByHeaders() throws {
    try channel.declare("a")
    try channel.declare("b")
    try channel.bind("a", to: "amq.headers", arguments: ["kind": .string("red")])
    try channel.bind(
      "b", to: "amq.match", arguments: ["x-match": .string("any"), "kind": .void])
    for exchange in ["amq.headers", "amq.match"] as [Name] {
      try channel.publish("none", to: exchange, key: "")
      try channel.publish("red", to: exchange, headers: ["kind": .string("red")])
      try channel.publish("blue", to: exchange, headers: ["kind": .string("blue")])
      try channel.publish("none", to: exchange, key: "")
    }
    #expect(try drain("a") == ["red"])
    #expect(try drain("b") == ["red", "blue"])
  }

  @Test func keysAreBytesOfAnySize() throws {
    let long = Name([UInt8](repeating: 0xFF, count: 255))
    try channel.declare(long)
    try vhost.declare(exchange: "x")
    try channel.bind(long, to: "x", key: long)
    try channel.bind(long, to: "x", key: Name([0]))
    try channel.publish("1", to: "x", key: long)
    try channel.publish("2", to: "x", key: Name([0]))
    try channel.publish("3", to: "x", key: "")
    try channel.publish("4", key: long)
    let taken = try channel.drain(long)
    #expect(taken.map(\.text) == ["1", "2", "4"])
    #expect(taken.map(\.message.key) == [long, Name([0]), long])
    #expect(taken.map(\.message.exchange) == ["x", "x", ""])
  }

  // MARK: Each queue once

  @Test func aQueueGetsAMessageOnceHoweverOftenItIsBound() throws {
    try channel.declare("a")
    try vhost.declare(exchange: "x", "topic")
    try vhost.declare(exchange: "y", "fanout")
    for key in ["#", "*", "a", "#.#"] as [Name] { try channel.bind("a", to: "x", key: key) }
    try vhost.bind(exchange: "y", to: "x", key: "a")
    try vhost.bind(exchange: "y", to: "x", key: "#")
    try channel.bind("a", to: "y", key: "1")
    try channel.bind("a", to: "y", key: "2")
    try channel.publish("1", to: "x", key: "a")
    #expect(try drain("a") == ["1"])
  }

  @Test func aBindingDeclaredTwiceIsOne() throws {
    try channel.declare("a")
    try channel.bind("a", to: "amq.direct", key: "k", arguments: ["n": .int32(1)])
    try channel.bind("a", to: "amq.direct", key: "k", arguments: ["n": .int32(1)])
    #expect(vhost.bindings == 1)
    try channel.bind("a", to: "amq.direct", key: "k", arguments: ["n": .int32(2)])
    #expect(vhost.bindings == 2)
    try channel.unbind("a", from: "amq.direct", key: "k", arguments: ["n": .int32(1)])
    #expect(vhost.bindings == 1)
    try channel.publish("1", to: "amq.direct", key: "k")
    #expect(try drain("a") == ["1"])
    try channel.unbind("a", from: "amq.direct", key: "k", arguments: ["n": .int32(2)])
    try channel.publish("2", to: "amq.direct", key: "k")
    #expect(try drain("a") == [])
    #expect(vhost.bindings == 0)
  }

  // MARK: Exchanges behind exchanges

  @Test func exchangesRouteToExchangesInCircles() throws {
    for (name, queue) in [("x", "a"), ("y", "b"), ("z", "c")] as [(Name, Name)] {
      try vhost.declare(exchange: name, "fanout")
      try channel.declare(queue)
      try channel.bind(queue, to: name)
    }
    try vhost.bind(exchange: "y", to: "x")
    try vhost.bind(exchange: "z", to: "y")
    try vhost.bind(exchange: "x", to: "z")
    try vhost.bind(exchange: "x", to: "x")
    for exchange in ["x", "y", "z"] as [Name] {
      try channel.publish("1", to: exchange, key: "k")
      for queue in ["a", "b", "c"] as [Name] { #expect(try drain(queue) == ["1"]) }
    }
    try vhost.delete(exchange: "y")
    try channel.publish("2", to: "x", key: "k")
    #expect(try drain("a") == ["2"])
    #expect(try drain("c") == [])
    #expect(vhost.bindings == 4)
  }

  @Test func anExchangeBehindOthersSeesKeyAndHeaders() throws {
    try channel.declare("a")
    try vhost.declare(exchange: "x", "topic")
    try vhost.declare(exchange: "y", "headers")
    try vhost.bind(exchange: "y", to: "x", key: "in.#")
    try channel.bind("a", to: "y", arguments: ["n": .int8(1)])
    try channel.publish("1", to: "x", key: "in.1", headers: ["n": .int64(1)])
    try channel.publish("2", to: "x", key: "in.1", headers: ["n": .int64(2)])
    try channel.publish("3", to: "x", key: "out", headers: ["n": .int64(1)])
    try channel.publish("4", to: "x", key: "in.1")
    #expect(try drain("a") == ["1"])
  }

  @Test func aChainOfManyExchangesIsFollowedToItsEnd() throws {
    let count = 20_000
    for index in 0..<count { try vhost.declare(exchange: Name("x\(index)"), "fanout") }
    for index in 1..<count {
      try vhost.bind(exchange: Name("x\(index)"), to: Name("x\(index - 1)"))
    }
    try channel.declare("a")
    try channel.bind("a", to: Name("x\(count - 1)"))
    try channel.publish("1", to: "x0", key: "")
    #expect(try drain("a") == ["1"])
  }

  // MARK: Alternate exchanges

  @Test func whatFitsNoBindingGoesToTheAlternateExchange() throws {
    try channel.declare("a")
    try channel.declare("b")
    try vhost.declare(exchange: "other", "fanout")
    try vhost.declare(exchange: "x", arguments: ["alternate-exchange": .string("other")])
    try channel.bind("a", to: "x", key: "a")
    try channel.bind("b", to: "other")
    try channel.publish("1", to: "x", key: "a", isMandatory: true)
    try channel.publish("2", to: "x", key: "b", isMandatory: true)
    #expect(try drain("a") == ["1"])
    #expect(try drain("b") == ["2"])
    #expect(client.events() == [])
  }

  @Test func alternateExchangesAreFollowedAlongAChainAndACircle() throws {
    try channel.declare("a")
    for (name, next) in [("x", "y"), ("y", "z"), ("z", "x")] as [(Name, String)] {
      try vhost.declare(exchange: name, arguments: ["alternate-exchange": .string(next)])
    }
    try channel.publish("lost", to: "x", key: "a", isMandatory: true)
    #expect(client.events().count == 1)
    try channel.bind("a", to: "z", key: "a")
    try channel.publish("found", to: "x", key: "a", isMandatory: true)
    #expect(try drain("a") == ["found"])
    #expect(client.events() == [])
  }

  @Test func anAlternateExchangeMayBeMissingOrComeLater() throws {
    try channel.declare("a")
    try vhost.declare(exchange: "x", arguments: ["alternate-exchange": .string("later")])
    try channel.publish("1", to: "x", key: "k")
    try vhost.declare(exchange: "later", "fanout")
    try channel.bind("a", to: "later")
    try channel.publish("2", to: "x", key: "k")
    try vhost.delete(exchange: "later")
    try channel.publish("3", to: "x", key: "k")
    #expect(try drain("a") == ["2"])
  }

  @Test func anAlternateExchangeServesBehindAnotherExchangeToo() throws {
    try channel.declare("a")
    try vhost.declare(exchange: "other", "fanout")
    try vhost.declare(exchange: "inner", arguments: ["alternate-exchange": .string("other")])
    try vhost.declare(exchange: "x", "fanout")
    try vhost.bind(exchange: "inner", to: "x")
    try channel.bind("a", to: "other")
    try channel.publish("1", to: "x", key: "nobody")
    #expect(try drain("a") == ["1"])
  }

  // MARK: CC and BCC

  @Test func headersNameMoreKeys() throws {
    for queue in ["a", "b", "c"] as [Name] { try channel.declare(queue) }
    let headers: FieldTable = [
      "CC": .array([.string("b"), .string("a")]), "BCC": .array([.string("c"), .string("b")]),
      "other": .int32(1),
    ]
    try channel.publish("1", key: "a", headers: headers)
    for queue in ["a", "b", "c"] as [Name] {
      let taken = try channel.drain(queue)
      #expect(taken.map(\.text) == ["1"])
      #expect(taken.map(\.message.key) == ["a"])
      let shown = try taken.map { try BasicProperties($0.message.properties).headers }
      #expect(shown == [["CC": .array([.string("b"), .string("a")]), "other": .int32(1)]])
    }
  }

  @Test func moreKeysReachAMessageWhoseOwnKeyLeadsNowhere() throws {
    try channel.declare("b")
    try channel.publish("1", key: "nobody", headers: ["CC": .array([.string("b")])])
    try channel.publish("2", key: "nobody", headers: ["CC": .array([])])
    #expect(try drain("b") == ["1"])
  }

  @Test func moreKeysCountAtEveryExchange() throws {
    try channel.declare("a")
    try channel.declare("b")
    try vhost.declare(exchange: "inner", "topic")
    try channel.bind("a", to: "amq.direct", key: "red")
    try vhost.bind(exchange: "inner", to: "amq.direct", key: "blue")
    try channel.bind("b", to: "inner", key: "r*")
    try channel.bind("b", to: "inner", key: "red")
    try channel.publish(
      "1", to: "amq.direct", key: "red", headers: ["BCC": .array([.string("blue")])])
    #expect(try drain("a") == ["1"])
    #expect(try drain("b") == ["1"])
  }

  @Test func keysInHeadersHaveALimitTogether() throws {
    try channel.declare("a")
    func keys(_ count: Int) -> FieldValue { .array(Array(repeating: .string("a"), count: count)) }
    try channel.publish("1", key: "", headers: ["CC": keys(200), "BCC": keys(56)])
    #expect(
      mistake { try channel.publish("2", key: "", headers: ["CC": keys(200), "BCC": keys(57)]) }
        == .limitReached(.routingKeys(count: 257, max: 256)))
    #expect(try drain("a") == ["1"])
  }

  @Test func keysTimesExchangesHaveALimit() throws {
    var limits = BrokerLimits()
    limits.routingStepsMax = 1000
    let broker = try TestBroker(limits: limits)
    let vhost = broker.vhost
    let channel = broker.connect().open()
    try channel.declare("q")
    for number in 0..<40 {
      try vhost.declare(exchange: Name("x\(number)"), "direct")
      guard number > 0 else { continue }
      for key in 0..<20 {
        try vhost.bind(
          exchange: Name("x\(number)"), to: Name("x\(number - 1)"), key: Name("k\(key)"))
      }
    }
    try channel.bind("q", to: "x39", key: "k0")
    let few: FieldTable = ["CC": .array((0..<10).map { .string("k\($0)") })]
    try channel.publish("1", to: "x0", headers: few)
    // What stands twice is looked up once.
    let same: FieldTable = ["CC": .array((0..<200).map { .string("k\($0 % 10)") })]
    try channel.publish("2", to: "x0", headers: same)
    let many: FieldTable = ["CC": .array((0..<20).map { .string("k\($0)") })]
    #expect(
      mistake { try channel.publish("3", to: "x0", headers: many) }
        == .limitReached(.routingSteps(from: "x0", in: "/", max: 1000)))
    #expect(try channel.drain("q").map(\.text) == ["1", "2"])
  }

  @Test(arguments: ["CC", "BCC"])
  func moreKeysMustBeAnArrayOfStrings(header: String) throws {
    try channel.declare("a")
    for (value, type) in [
      (.string("b"), "longstr"), (.array([.string("b"), .int32(1)]), "signedint"), (.void, "void"),
    ] as [(FieldValue, String)] {
      let error = mistake { try channel.publish("1", key: "a", headers: [Name(header): value]) }
      let reason = "{unacceptable_type_in_header,<<\"\(header)\">>,\(type)}"
      #expect(error == .refusedMessage(reason: reason))
    }
    #expect(try drain("a") == [])
  }

  // MARK: What cannot be published to

  @Test func anInternalExchangeTakesMessagesFromExchangesOnly() throws {
    try channel.declare("a")
    try vhost.declare(exchange: "inner", "fanout", isInternal: true)
    try channel.bind("a", to: "inner")
    try vhost.bind(exchange: "inner", to: "amq.fanout")
    let refused = BrokerError.isInternal(exchange: "inner", in: "/")
    #expect(mistake { try channel.publish("1", to: "inner", key: "") } == refused)
    #expect(
      mistake { try channel.publish("1", to: "inner", headers: ["CC": .array([])]) } == refused)
    try channel.publish("2", to: "amq.fanout", key: "")
    #expect(try drain("a") == ["2"])
  }

  @Test func anExchangeThatIsNotThereIsAMistake() throws {
    try vhost.declare(exchange: "x", "fanout")
    try channel.publish("1", to: "x", key: "k")
    try vhost.delete(exchange: "x")
    for _ in 0..<2 {
      let error = mistake { try channel.publish("1", to: "x", key: "k") }
      #expect(error == .notFound(.exchange("x", in: "/")))
    }
  }

  @Test func onlyMandatoryMessagesComeBack() throws {
    try channel.publish("1", to: "amq.direct", key: "k")
    try channel.publish("2", to: "amq.direct", key: "k", isMandatory: true)
    try channel.publish("3", key: "nobody", isMandatory: true)
    let returned = client.events().map { event -> String in
      guard case .returned(let message, on: 1) = event else { return "\(event)" }
      return "\(message.exchange)/\(message.key): \(message.text)"
    }
    #expect(returned == ["amq.direct/k: 2", "/nobody: 3"])
  }

  // MARK: Routes that were taken before

  @Test func everyChangeIsSeenByTheNextPublish() throws {
    let other = client.open(2)
    func reach(_ exchange: Name, _ key: Name) throws -> [Int] {
      // Twice on both channels: the second goes by what the first has found.
      for publisher in [channel, other, channel, other] {
        try publisher.publish("1", to: exchange, key: key)
      }
      return try ["a", "b"].map { name in
        broker.queue(name) == nil ? -1 : try channel.drain(name).count
      }
    }
    try vhost.declare(exchange: "x", "topic")
    try channel.declare("a")
    #expect(try reach("x", "k") == [0, -1])
    try channel.bind("a", to: "x", key: "#")
    #expect(try reach("x", "k") == [4, -1])
    #expect(try reach("", "b") == [0, -1])
    try channel.declare("b")
    #expect(try reach("", "b") == [0, 4])
    #expect(try reach("x", "k") == [4, 0])
    try vhost.declare(exchange: "y", "fanout")
    try vhost.bind(exchange: "y", to: "x", key: "k")
    #expect(try reach("x", "k") == [4, 0])
    try channel.bind("b", to: "y")
    #expect(try reach("x", "k") == [4, 4])
    try channel.unbind("a", from: "x", key: "#")
    #expect(try reach("x", "k") == [0, 4])
    try vhost.unbind(exchange: "y", from: "x", key: "k")
    #expect(try reach("x", "k") == [0, 0])
    try vhost.bind(exchange: "y", to: "x", key: "k")
    #expect(try reach("x", "k") == [0, 4])
    try vhost.delete(exchange: "y")
    #expect(try reach("x", "k") == [0, 0])
    try channel.bind("b", to: "x", key: "*")
    #expect(try reach("x", "k") == [0, 4])
    try channel.delete("b")
    #expect(try reach("x", "k") == [0, -1])
    try channel.declare("b")
    #expect(try reach("x", "k") == [0, 0])
    #expect(try reach("", "b") == [0, 4])
  }

  @Test func moreRoutesThanAreRememberedAreStillFound() throws {
    try channel.declare("a")
    try channel.bind("a", to: "amq.topic", key: "#")
    for round in 0..<2 {
      for index in 0..<9000 {
        try channel.publish("\(index)", to: "amq.topic", key: Name("k.\(index)"))
      }
      #expect(try channel.purge("a") == 9000, "round \(round)")
    }
  }
}

extension BasicProperties {
  init(_ bytes: [UInt8]) throws {
    var reader = ByteReader(bytes.span.bytes)
    self = try BasicProperties(from: &reader)
  }
}
