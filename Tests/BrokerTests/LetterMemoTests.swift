import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// A dead letter that is made after the model of the last one is the same as one that is made anew.
@Suite struct LetterMemoTests {
  private static func properties(_ random: inout SeededRandom) -> BasicProperties {
    var properties = BasicProperties()
    if random.isOne(in: 2) { properties.contentType = "text/plain" }
    if random.isOne(in: 2) { properties.contentEncoding = "gzip" }
    switch random.number(0..<4) {
    case 0: break
    case 1: properties.headers = [:]
    case 2:
      properties.headers = [
        "a": .int64(Int64(random.number(0..<2))), "CC": .array([.string("other")]),
      ]
    default:
      properties.headers = [
        "x-death": .array([
          .table(["queue": .string("q"), "reason": .string("rejected"), "count": .int64(3)])
        ])
      ]
    }
    if random.isOne(in: 2) { properties.deliveryMode = UInt8(random.number(1..<3)) }
    if random.isOne(in: 3) { properties.priority = 4 }
    if random.isOne(in: 2) { properties.correlationID = Name("c\(random.number(0..<100))") }
    if random.isOne(in: 3) { properties.replyTo = "r" }
    if random.isOne(in: 2) { properties.expiration = Name("\(random.number(1..<3))") }
    if random.isOne(in: 2) { properties.messageID = Name("m\(random.number(0..<100))") }
    if random.isOne(in: 3) { properties.timestamp = 17 }
    if random.isOne(in: 3) { properties.type = "t" }
    if random.isOne(in: 3) { properties.appID = "app" }
    return properties
  }

  @Test(arguments: Seeds.all)
  func itIsTheSameAsOneMadeAnew(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let broker = try TestBroker()
    let channel = broker.connect().open()
    for (queue, key) in [("q", nil), ("r", "k")] as [(Name, String?)] {
      var arguments: FieldTable = ["x-dead-letter-exchange": .string("amq.fanout")]
      if let key {
        arguments.entries.append(.init(name: "x-dead-letter-routing-key", value: .string(key)))
      }
      try channel.declare(queue, arguments: arguments)
    }
    var memo = LetterMemo()
    var pool = (0..<6).map { _ in Self.properties(&random) }
    for step in 0..<3000 {
      if random.isOne(in: 20) { pool[random.number(0..<6)] = Self.properties(&random) }
      var properties = pool[random.isOne(in: 3) ? random.number(0..<6) : 0]
      // Those differ where it does not count.
      if properties.correlationID != nil {
        properties.correlationID = Name("c\(random.number(0..<1000))")
      }
      let names = MessageBytes.encoded {
        $0.append("" as Name)
        $0.append(random.isOne(in: 5) ? "other" : "q" as Name)
      }
      let block = MessageBytes.encoded { properties.encode(into: &$0) }
      let queue = try #require(broker.queue(random.isOne(in: 5) ? "r" : "q"))
      let reason: DeathReason = random.isOne(in: 5) ? .expired : .rejected
      let now = Int64(1_790_000_000_000 + random.number(0..<2) * 1000)
      let made = memo.letter(
        names: names.span.bytes, properties: block.span.bytes, of: queue, for: reason, now: now)
      let anew = DeadLetter(
        names: names.span.bytes, properties: block.span.bytes, of: queue, for: reason, now: now)
      let (left, right) = (try #require(made), try #require(anew))
      #expect(left.properties == right.properties, "seed \(seed), step \(step)")
      #expect(left.headers == right.headers && left.names == right.names)
      #expect(left.exchange == right.exchange && left.keys == right.keys)
      #expect(left.isPersistent == right.isPersistent)
      #expect(left.wentRound("q") == right.wentRound("q"))
      if left.properties != right.properties { return }
    }
  }
}
