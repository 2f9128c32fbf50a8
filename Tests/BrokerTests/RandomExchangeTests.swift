import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Exchanges that send each message to one of their bindings, by chance or by the number of bindings.
@Suite struct RandomExchangeTests {
  private let broker: TestBroker
  private let channel: Channel

  private static let types: [Name] = ["x-random", "x-local-random", "x-modulus-hash"]

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
  }

  private var vhost: VirtualHost { broker.vhost }

  private func bind(_ count: Int, isDurable: Bool = false) throws -> [Name] {
    try (0..<count).map { number in
      let queue = Name("q\(number)")
      try channel.declare(queue, isDurable: isDurable)
      try channel.bind(queue, to: "x")
      return queue
    }
  }

  private func publish(_ numbers: Range<Int>) throws {
    for number in numbers { try channel.publish("\(number)", to: "x", key: Name("\(number)")) }
  }

  @Test(arguments: types)
  func eachMessageGoesToOneQueueAndAllGetSome(_ type: Name) throws {
    try vhost.declare(exchange: "x", type)
    let queues = try bind(10)
    try publish(0..<2000)
    let counts = try queues.map { try channel.drain($0).count }
    #expect(counts.reduce(0, +) == 2000)
    for count in counts { #expect(count > 140 && count < 260, "\(count) where 200 are fair") }
  }

  @Test(arguments: types)
  func bindingsComeAndGo(_ type: Name) throws {
    try vhost.declare(exchange: "x", type)
    var random = SeededRandom(1)
    for number in 0..<12 { try channel.declare(Name("q\(number)")) }
    var bound: Set<Int> = []
    for _ in 0..<400 {
      let number = random.number(0..<12)
      if bound.remove(number) != nil {
        try channel.unbind(Name("q\(number)"), from: "x")
      } else {
        bound.insert(number)
        try channel.bind(Name("q\(number)"), to: "x")
      }
      try channel.publish("m", to: "x", key: Name("\(random.next())"))
      var found: [Int] = []
      for other in 0..<12 where try channel.take(Name("q\(other)")) != nil { found.append(other) }
      try #require(found.count == (bound.isEmpty ? 0 : 1))
      try #require(found.allSatisfy { bound.contains($0) })
    }
    #expect(vhost.bindings == bound.count)
  }

  @Test(arguments: types)
  func deletedQueuesGetNothing(_ type: Name) throws {
    try vhost.declare(exchange: "x", type)
    let queues = try bind(5)
    try channel.delete("q1")
    try channel.delete("q3")
    // Their bindings are still being taken out.
    try publish(0..<50)
    broker.finishChores()
    try publish(50..<100)
    let count = try queues.filter { $0 != "q1" && $0 != "q3" }.map { try channel.drain($0).count }
    #expect(count.reduce(0, +) == 100)
    #expect(vhost.bindings == 3)
  }

  @Test(arguments: types)
  func filtersChooseAmongWhomAMessageGoes(_ type: Name) throws {
    try vhost.declare(
      exchange: "x", type, arguments: ["alternate-exchange": .string("amq.fanout")])
    for (queue, kind) in [("a0", "a"), ("a1", "a"), ("b0", "b")] as [(Name, String)] {
      try channel.declare(queue)
      try channel.bind(queue, to: "x", arguments: ["x-filter": .string("kind = '\(kind)'")])
    }
    try channel.declare("rest")
    try channel.bind("rest", to: "amq.fanout")
    for number in 0..<90 {
      let kind = ["a", "b", "c"][number % 3]
      try channel.publish(
        kind, to: "x", key: Name("\(number)"), headers: ["kind": .string(kind)])
    }
    let first = try channel.drain("a0").map(\.text)
    let second = try channel.drain("a1").map(\.text)
    #expect(Set(first + second) == ["a"] && first.count + second.count == 30)
    #expect(!first.isEmpty && !second.isEmpty)
    #expect(try channel.drain("b0").map(\.text) == Array(repeating: "b", count: 30))
    #expect(try channel.drain("rest").map(\.text) == Array(repeating: "c", count: 30))
  }

  @Test(arguments: types)
  func copiesGoWhereTheMessageGoes(_ type: Name) throws {
    try vhost.declare(exchange: "x", type)
    let queues = try bind(6)
    try channel.publish(
      "m", to: "x", key: "a",
      headers: ["CC": .array((0..<20).map { .string("\($0)") })])
    #expect(try queues.map { try channel.drain($0).count }.reduce(0, +) == 1)
  }

  @Test(arguments: types)
  func exchangesAndBindingsOutliveTheBroker(_ type: Name) throws {
    try vhost.declare(exchange: "x", type, isDurable: true)
    _ = try bind(3, isDurable: true)
    broker.durableTurn()
    let again = try broker.restarted()
    let channel = again.connect().open()
    for number in 0..<100 { try channel.publish("m", to: "x", key: Name("\(number)")) }
    let counts = try (0..<3).map { try channel.drain(Name("q\($0)")).count }
    #expect(counts.reduce(0, +) == 100)
    #expect(counts.allSatisfy { $0 > 0 })
  }

  @Test(arguments: ["x-random", "x-modulus-hash"] as [Name])
  func exchangesAreDestinations(_ type: Name) throws {
    try vhost.declare(exchange: "x", type)
    try vhost.declare(exchange: "y", "fanout")
    try vhost.bind(exchange: "y", to: "x")
    // And circles end.
    try vhost.bind(exchange: "x", to: "y")
    try channel.declare("q")
    try channel.bind("q", to: "y")
    try publish(0..<20)
    #expect(try channel.drain("q").count == 20)
  }

  @Test func behindAnotherExchangeChanceDecidesAnewForEachMessage() throws {
    try vhost.declare(exchange: "x", "x-random")
    try vhost.bind(exchange: "x", to: "amq.direct", key: "k")
    let queues = try bind(4)
    for number in 0..<100 {
      try channel.publish("\(number)", to: "amq.direct", key: "k", isPersistent: number % 2 == 0)
    }
    let counts = try queues.map { try channel.drain($0).count }
    #expect(counts.reduce(0, +) == 100)
    #expect(counts.allSatisfy { $0 > 8 })
  }

  @Test func oneKeyGoesToOneQueueByTheNumberOfBindings() throws {
    try vhost.declare(exchange: "x", "x-modulus-hash")
    let queues = try bind(5)
    for number in 0..<100 {
      try channel.publish("\(number % 10)", to: "x", key: Name("\(number % 10)"))
    }
    let found = try queues.map { Set(try channel.drain($0).map(\.text)) }
    #expect(found.reduce(0) { $0 + $1.count } == 10)
  }

  @Test func aRestartMovesNoKey() throws {
    try vhost.declare(exchange: "x", "x-modulus-hash", isDurable: true)
    _ = try bind(7, isDurable: true)
    try channel.unbind("q2", from: "x")
    try channel.bind("q2", to: "x")
    func owners(_ channel: Channel) throws -> [String] {
      for number in 0..<100 { try channel.publish("\(number)", to: "x", key: Name("\(number)")) }
      return try (0..<7).map { number in
        try channel.drain(Name("q\(number)")).map(\.text).joined(separator: " ")
      }
    }
    let before = try owners(channel)
    broker.durableTurn()
    let again = try broker.restarted()
    #expect(try owners(again.connect().open()) == before)
  }

  @Test(arguments: types)
  func tenThousandBindingsCostAMessageNoMore(_ type: Name) throws {
    try vhost.declare(exchange: "x", type)
    _ = try bind(10_000)
    for number in 0..<2000 { try channel.publish("m", to: "x", key: Name("\(number)")) }
    #expect(vhost.destinations.values.reduce(0) { $0 + $1.readyCount } == 2000)
    for number in 0..<10_000 { try channel.unbind(Name("q\(number)"), from: "x") }
    #expect(vhost.bindings == 0 && vhost.bindingBytes == 0)
  }

  // MARK: Mistakes

  @Test func aLocalExchangeLeadsToQueuesWithoutKeys() throws {
    try vhost.declare(exchange: "x", "x-local-random")
    try vhost.declare(exchange: "y")
    try channel.declare("q")
    #expect(
      mistake { try channel.bind("q", to: "x", key: "k") }
        == .refusedBinding(reason: "Non empty binding 'k' key not permitted"))
    #expect(
      mistake { try vhost.bind(exchange: "y", to: "x") }
        == .refusedBinding(reason: "Destination not found"))
    #expect(vhost.bindings == 0)
  }
}
