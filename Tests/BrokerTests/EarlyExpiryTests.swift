import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages whose time is over before that of one in front of them: they leave on time wherever they are.
@Suite struct EarlyExpiryTests {
  private static let arguments: FieldTable = ["x-dead-letter-exchange": .string("dlx")]

  private func declare(_ broker: TestBroker, _ channel: Channel, _ more: FieldTable = [:]) throws {
    try broker.vhost.declare(exchange: "dlx", "fanout", isDurable: true)
    try channel.declare("dead", isDurable: true)
    try channel.bind("dead", to: "dlx")
    var arguments = Self.arguments
    arguments.entries += more.entries
    try channel.declare("q", isDurable: true, arguments: arguments)
  }

  private func publish(
    _ channel: Channel, _ body: String, expiration: Int?, isPersistent: Bool = true,
    size: Int? = nil
  ) throws {
    var properties = BasicProperties()
    properties.expiration = expiration.map { Name(String($0)) }
    let bytes =
      Array(body.utf8) + [UInt8](repeating: 32, count: max(0, (size ?? 0) - body.utf8.count))
    try channel.publish(bytes, key: "q", properties: properties, isPersistent: isPersistent)
  }

  private func texts(_ channel: Channel, _ queue: Name) throws -> [String] {
    try channel.drain(queue).map { $0.text.trimming() }
  }

  @Test(arguments: [false, true])
  func aShortLifeBehindALongOneLeavesOnTime(isPersistent: Bool) throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    try declare(broker, channel)
    try broker.turn {
      for (body, life) in [("a", nil), ("b", 100), ("c", 5000), ("d", 50), ("e", nil), ("f", 99)] {
        try publish(channel, body, expiration: life, isPersistent: isPersistent)
      }
    }
    // They may wait a little for each other.
    let wait = Queue.earlyMilliseconds
    for (milliseconds, left, dead) in [
      (49, 6, 0), (1 + wait, 5, 1), (48 - wait, 5, 1), (2 + wait, 3, 3), (4899 - wait, 3, 3),
      (1 + wait, 2, 4),
    ] as [(Int64, Int, Int)] {
      _ = broker.rest(milliseconds: milliseconds)
      #expect(broker.queue("q")?.readyCount == left)
      #expect(broker.queue("dead")?.readyCount == dead)
    }
    #expect(try texts(channel, "dead") == ["d", "f", "b", "c"])
    #expect(try texts(channel, "q") == ["a", "e"])
    broker.durableTurn()
    broker.expectNothingHeld()
  }

  @Test func whatCameBackLeavesFromTheMiddleToo() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    try declare(broker, channel)
    var published: Int64 = 0
    try broker.turn {
      published = broker.broker.now
      try publish(channel, "a", expiration: nil)
      for number in 0..<1000 { try publish(channel, "\(number)", expiration: 1000 + number) }
    }
    var tags: [UInt64] = []
    try broker.durableTurn {
      for _ in 0..<1001 {
        tags.append(try #require(try channel.take("q", isAutomatic: false)).tag)
      }
    }
    #expect(broker.queue("q")?.unacknowledgedCount == 1001)
    try broker.turn {
      for tag in tags { try channel.reject(tag, isMultiple: false, requeues: true) }
    }
    let start = published
    for milliseconds in [300, 450, 600, 300] as [Int64] {
      _ = broker.rest(milliseconds: milliseconds)
      let most = min(1000, max(0, Int(broker.broker.now - start) - 999))
      let least = max(0, most - Int(Queue.earlyMilliseconds))
      #expect((1001 - most...1001 - least).contains(broker.queue("q")?.readyCount ?? 0))
    }
    _ = broker.rest(milliseconds: 1000)
    #expect(try texts(channel, "q") == ["a"])
    #expect(broker.queue("dead")?.readyCount == 1000)
  }

  /// What a queue should have.
  private struct Life {
    let body: String
    /// When it is over, as a date; nil for never.
    let end: Int64?
    let isPersistent: Bool

    func isOver(at now: Int64) -> Bool { end.map { $0 <= now } ?? false }
  }

  private func publish(
    _ channel: Channel, _ broker: TestBroker, _ count: Int, _ random: inout SeededRandom
  ) throws -> [Life] {
    var lives: [Life] = []
    for number in 0..<count {
      let life = random.isOne(in: 5) ? nil : random.number(1000..<100_000)
      let isPersistent = !random.isOne(in: 4)
      try broker.turn {
        try publish(
          channel, "\(number)", expiration: life, isPersistent: isPersistent, size: 2000)
        lives.append(
          Life(
            body: "\(number)", end: life.map { broker.broker.now + Int64($0) },
            isPersistent: isPersistent))
      }
      if number == count / 3 || number == count / 3 * 2 { try broker.moveOut(channel) }
    }
    return lives
  }

  private func expectEach(
    _ lives: [Life], leavesOnTime broker: TestBroker, _ random: inout SeededRandom,
    _ comment: Comment
  ) throws {
    for _ in 0..<60 {
      _ = broker.rest(milliseconds: Int64(random.number(100..<3000)))
      let now = broker.broker.now
      let least = lives.count { !$0.isOver(at: now) }
      let most = lives.count { !$0.isOver(at: now - Queue.earlyMilliseconds) }
      try #require((least...most).contains(broker.queue("q")?.readyCount ?? 0), comment)
    }
    _ = broker.rest(milliseconds: 200_000)
    let channel = broker.connect().open()
    let dead = try texts(channel, "dead")
    #expect(Set(dead).count == dead.count, comment)
    #expect(Set(dead) == Set(lives.filter { $0.end != nil }.map(\.body)), comment)
    let left = try texts(channel, "q")
    #expect(left == lives.filter { $0.end == nil }.map(\.body), comment)
  }

  @Test(arguments: Seeds.all)
  func randomLivesLeaveOnTimeWhereverTheyAre(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try declare(broker, channel)
    let lives = try publish(channel, broker, 300, &random)
    #expect(broker.journal.statistics.spills > 1)
    try expectEach(lives, leavesOnTime: broker, &random, "seed \(seed)")
    broker.durableTurn()
    broker.expectNothingHeld()
  }

  @Test(arguments: Seeds.all)
  func randomLivesHoldOverRestarts(seed: UInt64) throws {
    var random = SeededRandom(seed)
    var broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try declare(broker, channel)
    let lives = try publish(channel, broker, 300, &random)
    for _ in 0..<3 {
      _ = broker.rest(milliseconds: Int64(random.number(1000..<20_000)))
      broker.durableTurn()
      let now = broker.broker.now
      broker =
        random.isOne(in: 2)
        ? try broker.crashed(settings: .moving) : try broker.restarted(settings: .moving)
      broker.turn()
      broker.advance(milliseconds: now - broker.broker.now)
      broker.turn()
      _ = broker.rest(milliseconds: 10)
      let ready = broker.queue("q")?.readyCount ?? 0
      let left = [broker.broker.now, broker.broker.now - Queue.earlyMilliseconds].map { date in
        lives.count { $0.isPersistent && !$0.isOver(at: date) }
      }
      #expect(broker.broker.now > now && (left[0]...left[1]).contains(ready), "seed \(seed)")
    }
    try expectEach(
      lives.filter(\.isPersistent), leavesOnTime: broker, &random, "seed \(seed)")
    broker.durableTurn()
    broker.expectNothingHeld()
  }

  @Test func aPurgeBehindExceptions() throws {
    var random = SeededRandom(3)
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try declare(broker, channel)
    _ = try publish(channel, broker, 300, &random)
    _ = broker.rest(milliseconds: 20_000)
    try channel.purge("q")
    broker.finishChores()
    #expect(broker.queue("q")?.messageCount == 0)
    try channel.purge("dead")
    broker.finishChores()
    broker.durableTurn()
    broker.expectNothingHeld()
  }

  @Test func aConsumerGetsWhatIsLeftInItsOrder() throws {
    var random = SeededRandom(4)
    let broker = try TestBroker.moving()
    let client = broker.connect()
    let channel = client.open()
    try declare(broker, channel)
    let lives = try publish(channel, broker, 300, &random)
    _ = broker.rest(milliseconds: 20_000)
    let now = broker.broker.now
    try channel.consume("q", isAutomatic: true)
    broker.turns { broker.queue("q")?.messageCount == 0 }
    let got = client.bodies().map { $0.trimming() }
    // Turns took time meanwhile.
    let least = lives.filter { !$0.isOver(at: broker.broker.now) }.map(\.body)
    let most = lives.filter { !$0.isOver(at: now) }.map(\.body)
    #expect(got == most.filter { Set(got).contains($0) })
    #expect(Set(got).isSuperset(of: least))
  }

  @Test func memoryFollowsWhatIsThere() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    try channel.declare("q")
    try broker.turn { try publish(channel, "stays", expiration: nil, isPersistent: false) }
    var most = 0
    for _ in 0..<200 {
      try broker.turn {
        for _ in 0..<300 { try publish(channel, "x", expiration: 500, isPersistent: false) }
      }
      most = max(most, broker.queue("q")?.lane.byteCount ?? .max)
    }
    _ = broker.rest(milliseconds: 1000)
    #expect(broker.queue("q")?.readyCount == 1)
    // Two or three turns' messages at a time.
    #expect(most < 60_000)
  }

  @Test func manyLeaveFromTheMiddleInSlices() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    try channel.declare("q")
    try broker.turn {
      try publish(channel, "stays", expiration: nil, isPersistent: false)
      for _ in 0..<20_000 { try publish(channel, "x", expiration: 300, isPersistent: false) }
    }
    broker.advance(milliseconds: 300)
    var turns = 0
    repeat {
      let before = broker.queue("q")?.readyCount ?? 0
      broker.turn()
      #expect(before - (broker.queue("q")?.readyCount ?? 0) <= broker.broker.limits.dueStepsPerTurn)
      turns += 1
    } while broker.broker.hasDue
    #expect(broker.queue("q")?.readyCount == 1 && turns > 2)
  }
}

extension String {
  fileprivate func trimming() -> String { String(self.prefix { $0 != " " }) }
}
