import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Queues and exchanges with very many bindings are gone at once; the bindings go turn by turn.
@Suite struct UnbindingTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private let other: TestClient
  private let another: Channel

  private static let count = 20_000
  /// At least so many turns, since a turn has so many steps and a binding takes at least one.
  private static let turnsMin = count / BrokerLimits().choreStepsPerTurn

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    other = broker.connect()
    another = other.open()
  }

  private var vhost: VirtualHost { broker.vhost }

  private func bindMany(_ queue: Name, to exchange: Name) throws {
    for number in 0..<Self.count { try channel.bind(queue, to: exchange, key: Name("\(number)")) }
  }

  @Test(arguments: ["direct", "fanout", "topic", "headers"] as [Name])
  func aQueueWithManyBindingsIsGoneAtOnce(type: Name) throws {
    try channel.declare("q", isDurable: true)
    try channel.declare("p", isDurable: true)
    try vhost.declare(exchange: "x", type, isDurable: true)
    try bindMany("q", to: "x")
    try channel.bind("p", to: "x", key: "5")
    try broker.turn { try channel.delete("q") }
    #expect(client.peer.isWorking && !other.peer.isWorking)
    #expect(vhost.bindings > 1)
    #expect(broker.queue("q") == nil)
    // What others do in between finds it gone.
    try another.publish("1", to: "x", key: "5", isPersistent: true)
    #expect(try another.drain("p").map(\.text) == ["1"])
    try another.declare("q", isDurable: true)
    try another.bind("q", to: "x", key: "5")
    try another.publish("2", to: "x", key: "5")
    #expect(broker.finishChores() >= Self.turnsMin)
    #expect(!client.peer.isWorking)
    #expect(vhost.bindings == 2)
    try another.publish("3", to: "x", key: "5")
    #expect(try another.drain("q").map(\.text) == ["2", "3"])
    let again = try broker.restarted()
    #expect(again.vhost.bindings == 2)
  }

  @Test func anExchangeWithManyBindingsIsGoneAtOnce() throws {
    try channel.declare("q", isDurable: true)
    try vhost.declare(exchange: "x", isDurable: true)
    try vhost.declare(exchange: "y", isDurable: true)
    try bindMany("q", to: "x")
    for number in 0..<Self.count { try vhost.bind(exchange: "x", to: "y", key: Name("\(number)")) }
    try channel.bind("q", to: "y", key: "5")
    try broker.turn { _ = try vhost.deleteExchange("x", ifUnused: false, by: client.peer) }
    #expect(client.peer.isWorking)
    #expect(
      mistake { try another.publish("1", to: "x", key: "5") }
        == .notFound(.exchange("x", in: "/")))
    try vhost.declare(exchange: "x")
    try another.publish("2", to: "x", key: "5")
    try another.publish("3", to: "y", key: "5")
    try another.publish("4", to: "y", key: "6")
    #expect(try another.drain("q").map(\.text) == ["3"])
    #expect(broker.finishChores() >= 2 * Self.turnsMin)
    #expect(!client.peer.isWorking)
    #expect(vhost.bindings == 1)
    #expect(broker.broker.hasReleasedMuch)
  }

  @Test func aStopWhileBindingsGoLeavesWhatTheLogSays() throws {
    try channel.declare("q", isDurable: true)
    try channel.declare("p", isDurable: true)
    try vhost.declare(exchange: "x", isDurable: true)
    try bindMany("q", to: "x")
    try channel.bind("p", to: "x", key: "5")
    try broker.durableTurn { try channel.delete("q") }
    #expect(broker.broker.hasChores)
    let again = try broker.crashed()
    #expect(again.vhost.bindings == 1)
    #expect(again.queue("q") == nil)
    // A checkpoint in between says the same.
    var steps = 1_000_000
    #expect(CatalogSnapshot(broker.broker).advance(&steps))
    #expect(broker.journal.pendingCheckpoint.map { $0.bytes < 1000 } == true)
  }

  @Test func anExchangeGoesWithItsLastBindingOfManyInChains() throws {
    try channel.declare("q")
    for number in 0..<2000 {
      try vhost.declare(exchange: Name("x\(number)"), "fanout", isAutoDelete: true)
      if number > 0 {
        try vhost.bind(exchange: Name("x\(number - 1)"), to: Name("x\(number)"))
      }
    }
    for number in 0..<Self.count { try channel.bind("q", to: "x0", key: Name("\(number)")) }
    let before = vhost.exchangeCount
    try broker.turn { try channel.delete("q") }
    #expect(broker.finishChores() >= Self.turnsMin)
    #expect(vhost.exchangeCount == before - 2000)
    #expect(vhost.bindings == 0)
    #expect(vhost.bindingBytes == 0)
  }

  @Test(arguments: ["direct", "fanout", "topic", "headers"] as [Name])
  func whatBindingsTakeIsCountedAndGivenBack(type: Name) throws {
    try channel.declare("q")
    try vhost.declare(exchange: "x", type)
    let before = vhost.bindingBytes
    var sizes: [Int] = []
    for number in 0..<100 {
      try channel.bind(
        "q", to: "x", key: Name("a.\(number).*"), arguments: ["n": .int32(Int32(number))])
      sizes.append(vhost.bindingBytes)
    }
    #expect(sizes == sizes.sorted() && sizes[0] > before + 200)
    for number in 0..<100 {
      try channel.unbind(
        "q", from: "x", key: Name("a.\(number).*"), arguments: ["n": .int32(Int32(number))])
    }
    #expect(vhost.bindingBytes == before)
  }

  @Test func bothEndsGoAtTheSameTime() throws {
    try channel.declare("q")
    try vhost.declare(exchange: "x", "headers")
    try vhost.declare(exchange: "y", "topic")
    try bindMany("q", to: "x")
    try bindMany("q", to: "y")
    try broker.turn {
      try channel.delete("q")
      try vhost.delete(exchange: "x")
      try vhost.delete(exchange: "y")
    }
    broker.finishChores()
    #expect(vhost.bindings == 0)
    #expect(vhost.bindingBytes == 0)
  }

  @Test func aConnectionWithManyExclusiveQueuesGoesTurnByTurn() throws {
    let count = 5000
    for number in 0..<count { try channel.declare(Name("own\(number)"), isExclusive: true) }
    try channel.declare("all")
    broker.turn { client.close() }
    #expect(vhost.destinationCount > 1 && vhost.destinationCount < count)
    // Names that are not free yet belong to the connection that is over.
    let last = (0..<count).last { broker.queue(Name("own\($0)")) != nil }!
    #expect(
      mistake { try another.declare(Name("own\(last)")) }
        == .locked(queue: Name("own\(last)"), in: "/"))
    #expect(broker.finishChores() > 1)
    #expect(vhost.destinationCount == 1)
    try another.declare(Name("own\(last)"))
  }
}
