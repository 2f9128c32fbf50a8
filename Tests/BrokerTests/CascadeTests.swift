import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Exchanges that go with their last binding, and those that go with them: all at once, for clients and for
/// the log.
@Suite struct CascadeTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel
  private var vhost: VirtualHost { broker.vhost }

  init() throws {
    // A start reads to the end of its last segment, and here are hundreds of starts.
    var settings = Journal.Settings.quick
    settings.segmentBytes = 64 << 10
    broker = try TestBroker(settings: settings)
    client = broker.connect()
    channel = client.open()
  }

  private static let names: [Name] = ["x", "y", "z"]

  /// z, y and x, each bound to the next one, and x to q.
  private func declareChain(queueIsDurable: Bool = true) throws {
    try channel.declare("q", isDurable: queueIsDurable)
    for name in Self.names {
      try vhost.declare(exchange: name, "fanout", isDurable: true, isAutoDelete: true)
    }
    try channel.bind("q", to: "x")
    try vhost.bind(exchange: "x", to: "y")
    try vhost.bind(exchange: "y", to: "z")
  }

  private func there(_ broker: TestBroker) -> [Name] {
    (broker.queue("q") == nil ? [] : ["q"])
      + Self.names.filter { broker.vhost.exchanges[$0] != nil }
  }

  /// What goes in a turn is there as a whole, or not at all, wherever the log of it ends.
  private func expectAllOrNothing(
    _ left: [Name] = [], _ body: () throws -> Void,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    broker.durableTurn()
    let all = there(broker)
    let begin = broker.journal.durablePosition
    try broker.turn(body)
    #expect(there(broker) == left, sourceLocation: sourceLocation)
    broker.durableTurn()
    let end = broker.journal.durablePosition
    var found: Set<[Name]> = []
    for position in begin...end {
      let cut = try LogCutTests.cut(broker, at: position)
      let other = try TestBroker(in: cut)
      found.insert(there(other))
      other.close()
    }
    #expect(found == [all, left], sourceLocation: sourceLocation)
  }

  @Test func aQueueGoesWithItsExchangesOrNotAtAll() throws {
    try declareChain()
    try expectAllOrNothing { try channel.delete("q") }
  }

  @Test func anUnbindingGoesWithItsExchangesOrNotAtAll() throws {
    try declareChain()
    try expectAllOrNothing(["q"]) { try channel.unbind("q", from: "x") }
    let again = try broker.restarted()
    #expect(again.vhost.bindings == 0)
  }

  @Test func anExchangeGoesWithItsExchangesOrNotAtAll() throws {
    try declareChain()
    try expectAllOrNothing(["q"]) { try vhost.delete(exchange: "x") }
  }

  /// The queue is in no log; what goes with it is.
  @Test func theExchangesOfATransientQueueGoTogether() throws {
    try declareChain(queueIsDurable: false)
    broker.durableTurn()
    let begin = broker.journal.durablePosition
    try broker.durableTurn { try channel.delete("q") }
    for position in begin...broker.journal.durablePosition {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      #expect([[], Self.names].contains(there(other)))
      other.close()
    }
  }

  @Test func anExchangeWithAnotherBindingStays() throws {
    try declareChain()
    try channel.declare("p", isDurable: true)
    try channel.bind("p", to: "y")
    try expectAllOrNothing(["y", "z"]) { try channel.delete("q") }
    try broker.turn { try channel.delete("p") }
    #expect(there(broker) == [])
  }

  /// What is promised is so from the end of the group on.
  @Test func theAnswerWaitsForTheEndOfTheGroup() throws {
    try declareChain()
    broker.durableTurn()
    let (_, committed) = try vhost.deleteQueue("q", ifUnused: false, ifEmpty: false, on: channel)
    #expect(committed == .whenDurable(broker.journal.endPosition))
    let known = try vhost.deleteQueue("q", ifUnused: false, ifEmpty: false, on: channel).1
    #expect(known == committed)
  }

  /// However many bindings have to be taken out: what goes is gone at once.
  @Test func anExchangeWithManyBindingsGoesAtOnce() throws {
    try declareChain()
    try channel.declare("p", isDurable: true)
    try vhost.declare(exchange: "d", isDurable: true, isAutoDelete: true)
    for number in 0..<20_000 { try channel.bind("q", to: "d", key: Name("\(number)")) }
    for number in 0..<3 { try channel.bind("p", to: "d", key: Name("\(number)")) }
    try broker.turn { try channel.delete("q") }
    #expect(broker.broker.hasChores)
    #expect(there(broker) == [] && vhost.exchanges["d"] != nil)
    // Those that lead to what is gone count no more.
    try broker.turn { try channel.delete("p") }
    #expect(vhost.exchanges["d"] == nil)
    broker.durableTurn()
    let other = try broker.crashed()
    #expect(there(other) == [] && other.vhost.exchanges["d"] == nil)
    broker.finishChores()
    #expect(vhost.bindings == 0)
  }

  /// One more than a cascade has at most.
  @Test func ofVeryManyExchangesTheLastGoTurnByTurn() throws {
    try channel.declare("q", isDurable: true)
    for number in 0...VirtualHost.cascadeMax {
      let name = Name("a\(number)")
      try vhost.declare(exchange: name, "fanout", isDurable: true, isAutoDelete: true)
      try channel.bind("q", to: name)
    }
    let before = vhost.exchangeCount
    try broker.turn { try channel.delete("q") }
    broker.finishChores()
    #expect(vhost.exchangeCount == before - VirtualHost.cascadeMax - 1)
    let again = try broker.restarted()
    #expect(again.vhost.exchangeCount == vhost.exchangeCount)
  }

  /// So many depend on the queue that none of them is known to go at once; each takes others along.
  @Test func whatVeryManyTakeAlongGoesInSlices() throws {
    try channel.declare("q")
    for number in 0...VirtualHost.cascadeMax {
      let name = Name("a\(number)")
      try vhost.declare(exchange: name, "fanout", isAutoDelete: true)
      try channel.bind("q", to: name)
      for other in 0..<4 {
        let source = Name("b\(number)-\(other)")
        try vhost.declare(exchange: source, "fanout", isAutoDelete: true)
        try vhost.bind(exchange: name, to: source)
      }
    }
    var left = vhost.exchangeCount
    let before = left - 5 * (VirtualHost.cascadeMax + 1)
    try broker.turn { try channel.delete("q") }
    var most = left - vhost.exchangeCount
    while broker.broker.hasChores {
      left = vhost.exchangeCount
      broker.turn()
      most = max(most, left - vhost.exchangeCount)
    }
    #expect(most < BrokerLimits().choreStepsPerTurn / 3)
    #expect(vhost.exchangeCount == before)
    #expect(vhost.bindings == 0)
  }

  /// An exchange goes with the last of two queues, of which the first was not counted.
  @Test func anExchangeGoesAlthoughItsFirstQueueHadTooManyOthers() throws {
    try channel.declare("p")
    try channel.declare("q")
    for number in 0...VirtualHost.cascadeMax {
      let name = Name("a\(number)")
      try vhost.declare(exchange: name, "fanout", isAutoDelete: true)
      try channel.bind("q", to: name)
      if number < 3 { try channel.bind("p", to: name) }
    }
    let before = vhost.exchangeCount - VirtualHost.cascadeMax - 1
    try broker.turn {
      try channel.delete("q")
      try channel.delete("p")
    }
    broker.finishChores()
    #expect(vhost.exchangeCount == before)
    #expect(vhost.bindings == 0)
  }
}
