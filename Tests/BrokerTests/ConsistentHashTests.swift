import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct ConsistentHashTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
  }

  private var vhost: VirtualHost { broker.vhost }

  private func declare(_ arguments: FieldTable = [:], isDurable: Bool = false) throws {
    try vhost.declare(
      exchange: "x", "x-consistent-hash", isDurable: isDurable, arguments: arguments)
  }

  /// Queues bound with these weights, as keys.
  private func bind(_ weights: [Int], isDurable: Bool = false) throws -> [Name] {
    try weights.enumerated().map { number, weight in
      let queue = Name("q\(number)")
      try channel.declare(queue, isDurable: isDurable)
      try channel.bind(queue, to: "x", key: Name("\(weight)"))
      return queue
    }
  }

  /// The queues that keys lead to, of which there is one for each.
  private func owners(_ count: Int, in vhost: VirtualHost) throws -> [Name] {
    try (0..<count).map { number in
      let key = Array("key-\(number)".utf8)
      let names = [1] + Array("x".utf8) + [UInt8(key.count)] + key
      let route = try vhost.cachedRoute(names.span.bytes)
      try #require(route.count == 1 && !route.needsMessage)
      return route.destinations[0].takeUnretainedValue().name
    }
  }

  private func shares(_ owners: [Name]) -> [Name: Double] {
    Dictionary(grouping: owners) { $0 }.mapValues { Double($0.count) / Double(owners.count) }
  }

  // MARK: Distribution

  @Test(arguments: [1, 2, 3, 10, 100])
  func equalBindingsGetEqualShares(_ count: Int) throws {
    try declare()
    let queues = try bind(Array(repeating: 1, count: count))
    let shares = shares(try owners(400 * count, in: vhost))
    let fair = 1 / Double(count)
    for queue in queues {
      let share = shares[queue] ?? 0
      #expect(share > 0.7 * fair && share < 1.3 * fair, "\(queue): \(share / fair)")
    }
  }

  @Test func sharesAreInProportionToWeights() throws {
    try declare()
    _ = try bind([1, 2, 5, 10])
    let shares = shares(try owners(20_000, in: vhost))
    for (number, weight) in [1, 2, 5, 10].enumerated() {
      let fair = Double(weight) / 18
      let share = shares[Name("q\(number)")] ?? 0
      #expect(abs(share / fair - 1) < 0.25, "weight \(weight): \(share) of \(fair)")
    }
  }

  @Test func onlyWhatGoesToANewBindingMoves() throws {
    try declare()
    _ = try bind(Array(repeating: 1, count: 9))
    let before = try owners(5000, in: vhost)
    try channel.declare("new")
    try channel.bind("new", to: "x", key: "1")
    let with = try owners(5000, in: vhost)
    var moved = 0
    for (old, new) in zip(before, with) where old != new {
      moved += 1
      #expect(new == "new")
    }
    #expect(moved > 350 && moved < 650, "\(moved) of 5000, where 500 are fair")
    // Only what went to a binding moves when it is gone.
    try channel.unbind("new", from: "x", key: "1")
    #expect(try owners(5000, in: vhost) == before)
    try channel.delete("q3")
    for (old, new) in zip(before, try owners(5000, in: vhost)) {
      #expect(old == new || old == "q3")
      #expect(new != "q3")
    }
  }

  @Test func theOrderOfBindingMakesNoDifference() throws {
    try declare()
    _ = try bind([1, 2, 3, 1])
    let before = try owners(500, in: vhost)
    for number in [2, 0, 3, 1] {
      try channel.unbind(Name("q\(number)"), from: "x", key: Name("\([1, 2, 3, 1][number])"))
    }
    for number in [3, 1, 0, 2] {
      try channel.bind(Name("q\(number)"), to: "x", key: Name("\([1, 2, 3, 1][number])"))
    }
    #expect(try owners(500, in: vhost) == before)
  }

  @Test func aRestartMovesNothing() throws {
    try declare(isDurable: true)
    _ = try bind([1, 2, 1, 4, 1], isDurable: true)
    try channel.unbind("q2", from: "x", key: "1")
    try channel.bind("q2", to: "x", key: "3")
    let before = try owners(1000, in: vhost)
    broker.durableTurn()
    let again = try broker.restarted()
    #expect(try owners(1000, in: again.vhost) == before)
    #expect(Set(before).count == 5)
  }

  @Test func tenThousandBindingsComeAndGo() throws {
    try declare()
    _ = try bind(Array(repeating: 1, count: 10_000))
    let found = try owners(20_000, in: vhost)
    #expect(Set(found).count > 8000)
    #expect(shares(found).values.max()! < 12.0 / 20_000)
    // What a message costs does not grow with bindings: the steps of one are few.
    var random = SeededRandom(3)
    for number in (0..<10_000).shuffled(using: &random) {
      try channel.unbind(Name("q\(number)"), from: "x", key: "1")
    }
    #expect(vhost.bindings == 0 && vhost.bindingBytes == 0)
  }

  // MARK: What is hashed

  @Test func aMessageGoesToOneQueue() throws {
    try declare()
    let queues = try bind([1, 1, 1])
    for number in 0..<30 { try channel.publish("m", to: "x", key: Name("\(number)")) }
    try channel.publish(
      "m", to: "x", key: "a", headers: ["CC": .array([.string("b"), .string("c")])])
    let counts = try queues.map { try channel.drain($0).count }
    #expect(counts.reduce(0, +) == 31)
    #expect(counts.allSatisfy { $0 > 0 })
  }

  @Test(arguments: ["hash-header", "x-hash-on"] as [Name])
  func aHeaderDecides(_ argument: Name) throws {
    try declare([argument: .string("user"), "x-algorithm": .string("Jump")])
    let queues = try bind([1, 1, 1, 1])
    for number in 0..<200 {
      try channel.publish(
        "\(number % 20)", to: "x", key: Name("\(number)"),
        headers: ["other": .int32(Int32(number)), "user": .string("u\(number % 20)")])
    }
    let found = try queues.map { Set(try channel.drain($0).map(\.text)) }
    #expect(found.filter { !$0.isEmpty }.count > 1)
    // Each user's messages are in one queue.
    #expect(found.reduce(0) { $0 + $1.count } == 20)
  }

  @Test func numbersOfAnyWidthAreTheSame() throws {
    try declare(["hash-header": .string("n")])
    let queues = try bind(Array(repeating: 1, count: 8))
    for value in [.int8(7), .int16(7), .int32(7), .int64(7)] as [FieldValue] {
      try channel.publish("m", to: "x", headers: ["n": value])
    }
    #expect(try queues.map { try channel.drain($0).count }.sorted().suffix(2) == [0, 4])
  }

  @Test(arguments: ["correlation_id", "message_id", "timestamp"])
  func aPropertyDecides(_ property: String) throws {
    try declare(["hash-property": .string(property)])
    let queues = try bind([1, 1, 1, 1])
    for number in 0..<100 {
      var properties = BasicProperties()
      switch property {
      case "correlation_id": properties.correlationID = Name("c\(number % 10)")
      case "message_id": properties.messageID = Name("m\(number % 10)")
      default: properties.timestamp = UInt64(number % 10)
      }
      properties.appID = Name("\(number)")
      try channel.publish(
        "\(number % 10)", to: "x", key: Name("\(number)"), properties: properties)
    }
    let found = try queues.map { Set(try channel.drain($0).map(\.text)) }
    #expect(found.filter { !$0.isEmpty }.count > 1)
    #expect(found.reduce(0) { $0 + $1.count } == 10)
  }

  @Test func whatIsMissingGoesToOneQueueToo() throws {
    try declare(["hash-property": .string("message_id")])
    let queues = try bind([1, 1, 1, 1])
    for number in 0..<20 { try channel.publish("m", to: "x", key: Name("\(number)")) }
    #expect(try queues.map { try channel.drain($0).count }.sorted() == [0, 0, 0, 20])
  }

  // MARK: With what other exchanges have

  @Test func bindingsWhoseFilterIsNotTrueArePassedOver() throws {
    try declare()
    for name in ["a", "b", "c"] as [Name] { try channel.declare(name) }
    try channel.bind("a", to: "x", key: "1", arguments: ["x-filter": .string("n = 1")])
    try channel.bind("b", to: "x", key: "1", arguments: ["x-filter": .string("n = 2")])
    for number in 0..<60 {
      try channel.publish(
        "\(number % 3)", to: "x", key: Name("\(number)"), headers: ["n": .int32(Int32(number % 3))])
    }
    #expect(try channel.drain("a").map(\.text) == Array(repeating: "1", count: 20))
    #expect(try channel.drain("b").map(\.text) == Array(repeating: "2", count: 20))
    try channel.bind("c", to: "x", key: "1")
    for number in 0..<60 { try channel.publish("none", to: "x", key: Name("\(number)")) }
    #expect(try channel.drain("c").count == 60)
  }

  @Test func whatReachesNobodyGoesToTheAlternateExchange() throws {
    try declare(["alternate-exchange": .string("amq.fanout")])
    try channel.declare("rest")
    try channel.bind("rest", to: "amq.fanout")
    try channel.publish("1", to: "x", key: "k")
    try channel.declare("q")
    try channel.bind("q", to: "x", key: "3")
    try channel.publish("2", to: "x", key: "k")
    #expect(try channel.drain("rest").map(\.text) == ["1"])
    #expect(try channel.drain("q").map(\.text) == ["2"])
  }

  @Test func exchangesAreDestinationsAndMayFormCircles() throws {
    try declare()
    try vhost.declare(exchange: "y", "x-consistent-hash")
    try channel.declare("q")
    try vhost.bind(exchange: "y", to: "x", key: "1")
    try vhost.bind(exchange: "x", to: "y", key: "1")
    try channel.bind("q", to: "y", key: "1000")
    for number in 0..<200 { try channel.publish("m", to: "x", key: Name("\(number)")) }
    let count = try channel.drain("q").count
    #expect(count > 150 && count <= 200)
    try vhost.unbind(exchange: "x", from: "y", key: "1")
    for number in 0..<200 { try channel.publish("m", to: "x", key: Name("\(number)")) }
    #expect(try channel.drain("q").count == 200)
  }

  // MARK: Mistakes

  @Test(arguments: [
    ("abc", "The binding key must be an integer: <<\"abc\">>"),
    ("", "The binding key must be an integer: <<>>"),
    ("1.5", "The binding key must be an integer: <<\"1.5\">>"),
    ("0", "The binding key must be greater than 0"),
    ("-3", "The binding key must be greater than 0"),
  ])
  func aKeyThatIsNoWeightIsRefused(_ key: Name, _ reason: String) throws {
    try declare()
    try channel.declare("q")
    #expect(mistake { try channel.bind("q", to: "x", key: key) } == .refusedBinding(reason: reason))
    #expect(vhost.bindings == 0)
  }

  @Test func heavyBindingsAreAFewInATurn() throws {
    try declare()
    let other = broker.connect().open()
    for name in ["a", "b"] as [Name] { try channel.declare(name) }
    try broker.turn { try channel.bind("a", to: "x", key: "1000") }
    // The client's next requests wait for a while; others' do not.
    #expect(channel.peer.isWorking && !other.peer.isWorking)
    #expect(broker.finishChores() > 0)
    #expect(!channel.peer.isWorking)
    try broker.turn { try channel.bind("b", to: "x", key: "1") }
    #expect(!channel.peer.isWorking)
    try channel.delete("a")
    broker.finishChores()
    // Of the ring no more is left than what the other binding needs.
    #expect(vhost.bindingBytes < 1500)
    try channel.delete("b")
    broker.finishChores()
    #expect(vhost.bindingBytes == 0)
  }

  @Test func aWeightHasALimit() throws {
    try declare()
    try channel.declare("q")
    #expect(
      mistake { try channel.bind("q", to: "x", key: "1001") }
        == .limitReached(.hashWeight(1001, max: 1000)))
    try channel.bind("q", to: "x", key: "1000")
  }

  @Test(
    arguments: [
      (["hash-property": .string("app_id")], "Unsupported property: app_id"),
      (
        ["hash-property": .string("timestamp"), "hash-header": .string("h")],
        "hash-header and hash-property are mutually exclusive"
      ),
      (["x-algorithm": .string("maglev")], "Unsupported algorithm: maglev"),
    ] as [(FieldTable, String)])
  func argumentsThatMeanNothingAreRefused(_ arguments: FieldTable, _ reason: String) throws {
    #expect(mistake { try declare(arguments) } == .refusedExchange(reason: reason))
    #expect(!vhost.hasExchange("x"))
  }

  @Test(arguments: ["hash-header", "hash-property", "x-hash-on", "x-algorithm"] as [Name])
  func argumentsOfOtherTypesAreRefused(_ name: Name) throws {
    #expect(
      mistake { try declare([name: .int32(1)]) }
        == .refusedArgument(
          name, of: .subject(.exchange("x", in: "/")), reason: "{unacceptable_type,signedint}"))
  }
}
