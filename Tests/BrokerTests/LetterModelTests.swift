import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Letters that are alike are stored together, and are the same, in the same places, as one by one.
@Suite struct LetterModelTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare(
    _ name: Name = "work", key: String = "dead", isDurable: Bool = false, _ more: FieldTable = [:]
  ) throws {
    var arguments = more
    arguments.entries += [
      .init(name: "x-dead-letter-exchange", value: .string("")),
      .init(name: "x-dead-letter-routing-key", value: .string(key)),
    ]
    try channel.declare(name, isDurable: isDurable, arguments: arguments)
  }

  private func publish(_ numbers: Range<Int>, isPersistent: Bool = false) throws {
    for number in numbers {
      try channel.publish("\(number)", key: "work", isPersistent: isPersistent)
    }
  }

  /// Takes so many, and returns the last tag.
  private func take(_ count: Int, from queue: Name = "work") throws -> UInt64 {
    var last: UInt64 = 0
    for _ in 0..<count {
      last = try #require(try channel.take(queue, isAutomatic: false)).tag
    }
    return last
  }

  private func rejectAll(upTo tag: UInt64) throws {
    try channel.reject(tag, isMultiple: true, requeues: false)
    broker.finishChores()
  }

  private func texts(_ queue: Name) throws -> [String] { try channel.drain(queue).map(\.text) }

  private func properties(_ delivery: Delivery) throws -> BasicProperties {
    var reader = ByteReader(delivery.message.properties.span.bytes)
    return try BasicProperties(from: &reader)
  }

  // MARK: What they say

  private static func properties(_ random: inout SeededRandom) -> BasicProperties {
    var properties = BasicProperties()
    if random.isOne(in: 2) { properties.contentType = "text/plain" }
    if random.isOne(in: 3) { properties.contentEncoding = "gzip" }
    switch random.number(0..<4) {
    case 0: break
    case 1: properties.headers = [:]
    case 2: properties.headers = ["a": .int64(Int64(random.number(0..<2)))]
    default:
      properties.headers = [
        "x-dead-letter-routing-key": .string("dead"),
        "x-death": .array([
          .table(["queue": .string("work"), "reason": .string("rejected"), "count": .int64(3)])
        ]),
      ]
    }
    if random.isOne(in: 2) { properties.deliveryMode = UInt8(random.number(1..<3)) }
    if random.isOne(in: 2) { properties.priority = 4 }
    if random.isOne(in: 6) { properties.expiration = "60000" }
    return properties
  }

  /// Runs of messages that are alike but for what identifies each, with others between them, rejected one by one
  /// and many at a time; the clock goes on.
  @Test(arguments: Seeds.all)
  func theyAreTheSameAsThoseThatAreMadeAnew(seed: UInt64) throws {
    var random = SeededRandom(seed)
    try declare(isDurable: random.isOne(in: 2))
    try channel.declare("dead", isDurable: random.isOne(in: 2))
    let queue = try #require(broker.queue("work"))
    let names = MessageBytes.encoded {
      $0.append("" as Name)
      $0.append("work" as Name)
    }
    for _ in 0..<30 {
      var common = Self.properties(&random)
      var sent: [(text: String, block: [UInt8])] = []
      for number in 0..<random.number(1..<60) {
        if random.isOne(in: 15) { common = Self.properties(&random) }
        if random.isOne(in: 2) { common.messageID = Name("m\(random.number(0..<1000))") }
        let text = "\(number):" + String(repeating: "x", count: random.number(0..<50))
        try channel.publish(Array(text.utf8), key: "work", properties: common)
        sent.append((text, MessageBytes.encoded { common.encode(into: &$0) }))
      }
      let last = try take(sent.count)
      var first = last - UInt64(sent.count) + 1
      while first <= last, random.isOne(in: 2) {
        try channel.reject(first, isMultiple: false, requeues: false)
        first += 1
      }
      if first <= last { try rejectAll(upTo: last) }
      let letters = try channel.drain("dead")
      #expect(letters.map(\.text) == sent.map(\.text), "seed \(seed)")
      for (letter, message) in zip(letters, sent) {
        let made = DeadLetter(
          names: names.span.bytes, properties: message.block.span.bytes, of: queue, for: .rejected,
          now: broker.broker.now)
        let anew = try #require(made)
        guard letter.message.properties == anew.properties, letter.message.key == "dead" else {
          Issue.record("seed \(seed): \(letter.text) is another letter")
          return
        }
      }
      if random.isOne(in: 3) { broker.advance(milliseconds: 700) }
      broker.durableTurn()
    }
    broker.expectNothingHeld()
  }

  @Test func eachSaysTheSecondInWhichItDied() throws {
    try declare()
    try channel.declare("dead")
    var seconds: [UInt64] = []
    for _ in 0..<3 {
      try publish(0..<10)
      try rejectAll(upTo: take(10))
      for letter in try channel.drain("dead") {
        let deaths = try properties(letter).headers?["x-death"]
        guard case .array(let values)? = deaths, case .table(let table)? = values.first,
          case .timestamp(let time)? = table["time"]
        else {
          Issue.record("a death has a time")
          return
        }
        #expect(Int64(time) == broker.broker.now / 1000)
        seconds.append(time)
      }
      broker.advance(milliseconds: 1500)
      broker.turn()
    }
    #expect(Set(seconds).count == 3)
  }

  // MARK: Where they go

  @Test func theyFollowTheBindings() throws {
    try broker.vhost.declare(exchange: "dlx", "fanout")
    try channel.declare(
      "work", arguments: ["x-dead-letter-exchange": .string("dlx")])
    for name in ["a", "b"] as [Name] { try channel.declare(name) }
    try channel.bind("a", to: "dlx")
    try publish(0..<40)
    let last = try take(40)
    try rejectAll(upTo: last - 30)
    try channel.bind("b", to: "dlx")
    try rejectAll(upTo: last - 20)
    try channel.delete("a")
    try rejectAll(upTo: last - 10)
    try channel.unbind("b", from: "dlx")
    try rejectAll(upTo: last)
    #expect(try texts("b") == (10..<30).map(String.init))
    #expect(broker.queue("work")?.messageCount == 0)
    broker.expectNothingHeld()
  }

  @Test func aQueueWithALimitTakesThemAsOthers() throws {
    try declare(key: "short")
    try channel.declare("short", arguments: ["x-max-length": .int64(3)])
    try publish(0..<200)
    try rejectAll(upTo: take(200))
    #expect(try texts("short") == ["197", "198", "199"])
    broker.expectNothingHeld()
  }

  // MARK: The log

  /// All that is rejected at once leaves and arrives in groups of a limited size.
  @Test func whereverTheLogEndsLettersAreInOnePlace() throws {
    try declare(isDurable: true)
    try channel.declare("dead", isDurable: true)
    let count = 150
    try broker.durableTurn { try publish(0..<count, isPersistent: true) }
    let last = try take(count)
    // Those after the second are like the one before.
    try broker.durableTurn { try rejectAll(upTo: last - UInt64(count) + 3) }
    let begin = broker.journal.durablePosition
    try broker.durableTurn { try rejectAll(upTo: last) }
    let end = broker.journal.durablePosition
    var found: Set<Int> = []
    for position in Array(stride(from: begin, to: end, by: 613)) + [end] {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      let reader = other.connect().open()
      let dead = try reader.drain("dead").map(\.text)
      let left = try reader.drain("work").map(\.text)
      #expect(dead + left == (0..<count).map(String.init), "the log ends at \(position)")
      found.insert(dead.count)
      other.close()
    }
    let steps = found.sorted()
    #expect(steps.first == 3 && steps.last == count)
    #expect(steps.count > 2, "one group has all")
    #expect(zip(steps, steps.dropFirst()).allSatisfy { $1 - $0 <= 64 })
  }

  /// Nobody gets a letter before the log has its move.
  @Test func theyWaitForTheLog() throws {
    try declare(isDurable: true)
    try channel.declare("dead", isDurable: true)
    try broker.durableTurn { try publish(0..<50, isPersistent: true) }
    let last = try take(50)
    broker.durableTurn()
    let reader = broker.connect()
    try reader.open().consume("dead", isAutomatic: true)
    try broker.turn { try rejectAll(upTo: last) }
    let durable = broker.journal.durablePosition
    let early = reader.deliveries().count
    if early > 0 { #expect(durable == broker.journal.endPosition) }
    broker.turns { broker.queue("dead")?.messageCount == 0 }
    #expect(early + reader.deliveries().count == 50)
    let again = try broker.crashed()
    #expect(again.queue("work")?.messageCount == 0)
  }
}
