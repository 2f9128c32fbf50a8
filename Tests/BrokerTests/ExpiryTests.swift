import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Messages with a life: `x-message-ttl` of their queue, and the property `expiration`.
@Suite struct ExpiryTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare(ttl: Int64?, isDurable: Bool = false) throws {
    let arguments: FieldTable = ttl.map { ["x-message-ttl": .int64($0)] } ?? [:]
    try channel.declare("q", isDurable: isDurable, arguments: arguments)
  }

  private func publish(
    _ bodies: [String], expiration: Name? = nil, priority: UInt8? = nil, isPersistent: Bool = false
  ) throws {
    var properties = BasicProperties()
    properties.expiration = expiration
    properties.priority = priority
    for body in bodies {
      try channel.publish(body, key: "q", properties: properties, isPersistent: isPersistent)
    }
  }

  private func pass(_ milliseconds: Int64) {
    _ = broker.rest(milliseconds: milliseconds)
  }

  /// A turn for which no time passes.
  private func act(_ body: () throws -> Void) rethrows {
    try body()
    pass(0)
  }

  private var ready: Int? { broker.queue("q")?.readyCount }

  // MARK: The queue's

  @Test func messagesLeaveWhenTheirTimeHasCome() throws {
    try declare(ttl: 100)
    try act { try publish(["a", "b"]) }
    pass(60)
    try act { try publish(["c"]) }
    pass(39)
    #expect(ready == 3)
    pass(1)
    #expect(ready == 1)
    pass(59)
    #expect(ready == 1)
    pass(1)
    #expect(ready == 0 && broker.broker.deadlines.count == 0)
    broker.expectNothingHeld()
  }

  @Test func aTurnIsWantedWhenTheFirstIsDue() throws {
    try declare(ttl: 5000)
    try act { try publish(["a"]) }
    pass(4000)
    try act { try publish(["b"]) }
    pass(999)
    #expect(ready == 2 && broker.broker.deadlines.next == broker.broker.time + 1)
    #expect(broker.rest(milliseconds: 1) > 0 && ready == 1)
  }

  @Test func nobodyGetsWhatIsOver() throws {
    try declare(ttl: 1000)
    try act { try publish(["a"]) }
    pass(500)
    try act { try publish(["b"]) }
    broker.advance(milliseconds: 250)
    // What is over leaves when the turn ends.
    try broker.turn {
      try channel.consume("q", isAutomatic: true)
      broker.broker.pump()
      #expect(client.bodies() == [])
    }
    #expect(client.bodies() == ["b"] && ready == 0)
  }

  @Test func getSeesWhatIsLeft() throws {
    try declare(ttl: 1000)
    try act { try publish(["a"]) }
    pass(500)
    try act { try publish(["b", "c"]) }
    broker.advance(milliseconds: 250)
    var got: Delivery?
    try broker.turn { got = try channel.take("q") }
    #expect(got?.text == "b" && ready == 1)
    pass(500)
    #expect(try channel.take("q") == nil)
  }

  @Test func getPassesOverVeryMany() throws {
    try declare(ttl: 1000)
    try act { try publish((0..<5000).map(String.init)) }
    pass(500)
    try act { try publish(["b"]) }
    broker.advance(milliseconds: 250)
    var got: Delivery?
    try broker.turn { got = try channel.take("q") }
    #expect(got?.text == "b")
    #expect(ready == 0)
  }

  @Test func whatComesBackKeepsItsTime() throws {
    try declare(ttl: 1000)
    try act { try publish(["a", "b"]) }
    let tag = try #require(try channel.take("q", isAutomatic: false)).tag
    _ = try channel.take("q", isAutomatic: false)
    pass(500)
    try act { try channel.reject(tag, isMultiple: false, requeues: true) }
    pass(499)
    #expect(ready == 1)
    pass(1)
    #expect(ready == 0 && broker.queue("q")?.unacknowledgedCount == 1)
    channel.recover()
    broker.finishChores()
    broker.turn()
    #expect(broker.queue("q")?.messageCount == 0)
  }

  @Test func aPurgeInBetween() throws {
    try declare(ttl: 100)
    try act { try publish((0..<5000).map(String.init)) }
    broker.advance(milliseconds: 100)
    var purged = 0
    try broker.turn { purged = try channel.purge("q") }
    #expect(purged == 5000)
    broker.finishChores()
    broker.turn()
    #expect(ready == 0)
    try act { try publish(["x"]) }
    pass(99)
    #expect(ready == 1)
    pass(1)
    #expect(ready == 0)
    broker.expectNothingHeld()
  }

  @Test func manyLeaveInSlices() throws {
    try declare(ttl: 100)
    try act { try publish((0..<10_000).map(String.init)) }
    broker.advance(milliseconds: 100)
    var turns = 0
    repeat {
      let before = ready ?? 0
      broker.turn()
      #expect(before - (ready ?? 0) <= broker.broker.limits.dueStepsPerTurn)
      turns += 1
    } while broker.broker.hasDue
    #expect(ready == 0 && turns > 2)
    broker.expectNothingHeld()
  }

  @Test func eachPriorityHasItsFront() throws {
    try channel.declare(
      "q", arguments: ["x-message-ttl": .int64(100), "x-max-priority": .int64(9)])
    for priority in [1, 9, 4] as [UInt8] {
      try act { try publish(["\(priority)"], priority: priority) }
      pass(10)
    }
    pass(70)
    #expect(ready == 2)
    pass(10)
    #expect(try channel.drain("q").map(\.text) == ["4"])
  }

  @Test func theQueueCanGoMeanwhile() throws {
    try declare(ttl: 100)
    try act { try publish(["a"]) }
    try channel.delete("q")
    #expect(broker.broker.deadlines.count == 0)
    pass(200)
    broker.expectNothingHeld()
  }

  // MARK: No life

  @Test(arguments: [false, true])
  func withoutAnyLifeOnlyWhoIsThereGetsIt(isPersistent: Bool) throws {
    try declare(ttl: 0, isDurable: isPersistent)
    try act { try publish(["a"], isPersistent: isPersistent) }
    #expect(ready == 0)
    channel.setPrefetch(3, isGlobal: false)
    try act { try channel.consume("q") }
    try act { try publish(["b", "c", "d", "e"], isPersistent: isPersistent) }
    broker.turns { ready == 0 }
    #expect(client.bodies() == ["b", "c", "d"])
  }

  @Test func getNeverFindsWhatHasNoLife() throws {
    try declare(ttl: 0)
    try publish(["a"])
    #expect(try channel.take("q") == nil)
  }

  // MARK: The message's

  @Test func aMessageOfItsOwnLife() throws {
    try declare(ttl: nil)
    try act {
      try publish(["a"], expiration: "100")
      try publish(["b"])
      try publish(["c"], expiration: "50")
    }
    pass(49)
    #expect(ready == 3)
    pass(1)
    #expect(ready == 2)
    pass(49)
    #expect(ready == 2)
    pass(1)
    #expect(ready == 1)
    #expect(try channel.take("q")?.text == "b")
    broker.turn()
    #expect(ready == 0)
  }

  @Test(
    arguments: [("30", 100, 30), ("100", 30, 30), ("100", nil, 100)] as [(Name, Int64?, Int64)])
  func theShorterLifeCounts(expiration: Name, ttl: Int64?, life: Int64) throws {
    try declare(ttl: ttl)
    try act { try publish(["a"], expiration: expiration) }
    pass(life - 1)
    #expect(ready == 1)
    pass(1)
    #expect(ready == 0)
  }

  @Test func aLargeBodyExpiresToo() throws {
    try declare(ttl: nil)
    var properties = BasicProperties()
    properties.expiration = "20"
    try act {
      try channel.publishLarge(
        [UInt8](repeating: 1, count: 100_000), key: "q", properties: properties)
    }
    pass(20)
    #expect(ready == 0)
    broker.expectNothingHeld()
  }

  @Test func aShortLifeBehindALongOneIsNeverDelivered() throws {
    try declare(ttl: nil)
    try act {
      try publish(["long"], expiration: "60000")
      try publish(["short"], expiration: "10")
      try publish(["last"])
    }
    pass(20)
    try act { try channel.consume("q", isAutomatic: true) }
    broker.turn()
    #expect(client.bodies() == ["long", "last"])
  }

  // MARK: Restarts

  @Test(arguments: [nil, 1_000_000] as [Int64?])
  func whatExpiredMeanwhileIsNotDelivered(ttl: Int64?) throws {
    try declare(ttl: ttl, isDurable: true)
    try broker.durableTurn { try publish(["a"], expiration: "100000", isPersistent: true) }
    pass(50_000)
    try broker.durableTurn { try publish(["b"], expiration: "100000", isPersistent: true) }
    let again = try broker.restarted()
    // Its clock begins where the first one's did.
    again.advance(milliseconds: 110_000)
    let client = again.connect()
    try again.turn { try client.open().consume("q", isAutomatic: true) }
    again.turns { again.queue("q")?.messageCount == 0 }
    #expect(client.bodies() == ["b"])
  }

  @Test func theQueuesLifeHoldsOverARestart() throws {
    try declare(ttl: 100_000, isDurable: true)
    try broker.durableTurn { try publish(["a"], isPersistent: true) }
    pass(50_000)
    try broker.durableTurn { try publish(["b"], isPersistent: true) }
    let again = try broker.restarted()
    again.advance(milliseconds: 110_000)
    again.durableTurn()
    #expect(again.queue("q")?.readyCount == 1)
    again.advance(milliseconds: 50_000)
    again.durableTurn()
    #expect(again.queue("q")?.readyCount == 0)
  }

  @Test(arguments: [nil, 100_000_000] as [Int64?])
  func whatHadMovedExpires(ttl: Int64?) throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declare(
      "q", isDurable: true, arguments: ttl.map { ["x-message-ttl": .int64($0)] } ?? [:])
    var properties = BasicProperties()
    if ttl == nil { properties.expiration = "100000000" }
    for number in 0..<50 {
      try channel.publish(
        [UInt8](repeating: UInt8(number), count: 4000), key: "q", properties: properties,
        isPersistent: true)
    }
    try broker.moveOut(channel)
    #expect(broker.queue("q")?.readyCount == 50)
    broker.advance(milliseconds: 100_000_000)
    broker.turns { broker.queue("q")?.readyCount == 0 }
    #expect(try channel.take("q") == nil)
  }

  // MARK: Arguments

  @Test func whatIsRefused() throws {
    for (value, reason) in [
      (.int64(-1), "{value_negative,-1}"), (.string("1"), "\"expected integer, got longstr\""),
      (.int64(315_360_000_001), "{value_too_large,315360000001}"),
    ] as [(FieldValue, String)] {
      #expect(
        mistake { try channel.declare("q", arguments: ["x-message-ttl": value]) }
          == .refusedArgument(
            "x-message-ttl", of: .subject(.queue("q", in: "/")), reason: reason))
    }
    try declare(ttl: 315_360_000_000)
    try publish(["a"])
    #expect(ready == 1)
  }

  @Test(
    arguments: [
      ("soon", "no_integer"), ("", "no_integer"), ("-", "no_integer"), (" 5", "no_integer"),
      ("-1", "{value_negative,-1}"), ("1.5", "{leftover_string,\".5\"}"),
      ("315360000001", "{value_too_large,315360000001}"),
      ("99999999999999999999", "{value_too_large,99999999999999999999}"),
    ] as [(Name, String)])
  func anExpirationIsANumberOfUpToTenYears(value: Name, reason: String) throws {
    try channel.declare("q")
    var properties = BasicProperties()
    properties.expiration = value
    #expect(
      mistake { try channel.publish("a", key: "q", properties: properties) }
        == .refusedExpiration(value.description, reason: reason))
    properties.expiration = "315360000000"
    try channel.publish("a", key: "q", properties: properties)
  }
}
