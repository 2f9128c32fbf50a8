import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Queues with `x-expires`: they go when nobody has used them for so long.
@Suite struct QueueExpiryTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare() throws {
    try channel.declare("q", arguments: ["x-expires": .int64(100)])
  }

  private func pass(_ milliseconds: Int64) {
    _ = broker.rest(milliseconds: milliseconds)
  }

  /// A turn for which no time passes.
  private func act(_ body: () throws -> Void) rethrows {
    try body()
    pass(0)
  }

  private var isThere: Bool { broker.queue("q") != nil }

  @Test func itGoesWhenNobodyUsesIt() throws {
    try act { try declare() }
    pass(99)
    #expect(isThere)
    pass(1)
    #expect(!isThere && broker.broker.deadlines.count == 0)
  }

  @Test func itsMessagesAndBindingsGoWithIt() throws {
    try broker.vhost.declare(exchange: "e", isAutoDelete: true)
    try act {
      try declare()
      try channel.bind("q", to: "e", key: "k")
      for _ in 0..<1000 { try channel.publish("x", to: "e", key: "k") }
    }
    pass(100)
    broker.finishChores()
    #expect(!isThere && broker.vhost.exchanges["e"] == nil)
    broker.expectNothingHeld()
  }

  @Test func publishingIsNoUse() throws {
    try act { try declare() }
    pass(60)
    try act { try channel.publish("x", key: "q") }
    pass(40)
    #expect(!isThere)
  }

  @Test func declaringAndGettingAre() throws {
    try act { try declare() }
    pass(60)
    try act { try declare() }
    pass(60)
    try act { _ = try channel.take("q") }
    pass(60)
    try act { try channel.declare("q", isPassive: true) }
    pass(99)
    #expect(isThere)
    pass(1)
    #expect(!isThere)
  }

  @Test func itStaysWhileItHasConsumers() throws {
    try act { try declare() }
    let tag = try channel.consume("q")
    pass(1000)
    #expect(isThere)
    act { channel.cancel(tag) }
    pass(99)
    #expect(isThere)
    pass(1)
    #expect(!isThere)
  }

  @Test func aConnectionThatEndsWasAUse() throws {
    try act { try declare() }
    let other = broker.connect()
    try other.open().consume("q")
    pass(1000)
    act { other.close() }
    pass(99)
    #expect(isThere)
    pass(1)
    #expect(!isThere)
  }

  @Test func deletingItBeforeIsTheEnd() throws {
    try act { try declare() }
    try channel.delete("q")
    #expect(broker.broker.deadlines.count == 0)
    try act { try channel.declare("q") }
    pass(1000)
    #expect(isThere)
  }

  @Test func theTimeBeginsAnewWithARestart() throws {
    try broker.durableTurn {
      try channel.declare("q", isDurable: true, arguments: ["x-expires": .int64(100_000)])
    }
    pass(90_000)
    let again = try broker.restarted()
    again.advance(milliseconds: 1_000_000)
    again.turn()
    _ = again.rest(milliseconds: 99_999)
    #expect(again.queue("q") != nil)
    _ = again.rest(milliseconds: 1)
    #expect(again.queue("q") == nil)
    again.durableTurn()
    #expect(try again.restarted().queue("q") == nil)
  }
}
