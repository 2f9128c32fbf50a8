import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages that say in their headers where they go as dead letters.
@Suite struct DeadLetterHeaderTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving()
    channel = broker.connect().open()
    try channel.declare("dead", isDurable: true)
  }

  private func publish(
    _ text: String = "x", exchange: FieldValue? = .string(""), key: FieldValue? = .string("dead"),
    to queue: Name = "work", expiration: Name? = nil, on publisher: Channel? = nil
  ) throws {
    var properties = BasicProperties()
    var headers: FieldTable = ["mine": .int32(7)]
    if let exchange {
      headers.entries.append(.init(name: "x-dead-letter-exchange", value: exchange))
    }
    if let key { headers.entries.append(.init(name: "x-dead-letter-routing-key", value: key)) }
    properties.headers = headers
    properties.expiration = expiration
    try (publisher ?? channel).publish(text, key: queue, properties: properties, isPersistent: true)
  }

  private func reject(_ queue: Name = "work") throws {
    let tag = try #require(try channel.take(queue, isAutomatic: false)).tag
    try channel.reject(tag, isMultiple: false, requeues: false)
  }

  private func headers(_ delivery: Delivery) throws -> FieldTable? {
    var reader = ByteReader(delivery.message.properties.span.bytes)
    return try BasicProperties(from: &reader).headers
  }

  private func reason(_ delivery: Delivery) throws -> FieldValue? {
    try headers(delivery)?["x-last-death-reason"]
  }

  // MARK: Where they go

  @Test func aQueueWithoutArgumentsSendsThemOn() throws {
    try channel.declare("work", isDurable: true)
    try publish()
    try reject()
    let letter = try #require(try channel.take("dead"))
    let headers = try #require(try headers(letter))
    #expect(headers["mine"] == .int32(7))
    #expect(headers["x-first-death-queue"] == .string("work"))
    #expect(headers["x-dead-letter-exchange"] == nil, "it has arrived")
    #expect(headers["x-dead-letter-routing-key"] == nil)
    try channel.declare("other")
    try publish(key: nil)
    try reject()
    #expect(try channel.drain("dead").isEmpty, "its own key leads back, where it is")
    #expect(try channel.take("work") != nil)
  }

  /// The bytes of the name do not make a header, wherever they stand; a header is one wherever it stands.
  @Test(arguments: Seeds.all) func onlyAHeaderNamesAnExchange(seed: UInt64) {
    var random = SeededRandom(seed)
    let name = "x-dead-letter-exchange"
    let sized = [UInt8(name.utf8.count)] + Array(name.utf8)
    let values: [FieldValue] = [
      .void, .string(name), .bytes(sized), .bytes(sized + sized), .bytes(Array(sized.dropLast())),
      .table([Name(name): .void]), .array([.bytes(sized)]),
    ]
    var found = 0
    for _ in 0..<500 {
      var headers: FieldTable = [:]
      for _ in 0..<random.number(0..<4) {
        let names = [name, "a", "x-dead-letter-exchanges", String(repeating: "y", count: 22)]
        let key = random.isOne(in: 4) ? name : names[random.number(1..<4)]
        headers.entries.append(.init(name: Name(key), value: random.element(values)!))
      }
      var properties = BasicProperties()
      if random.isOne(in: 2) { properties.contentType = "text/plain" }
      properties.headers = headers
      if random.isOne(in: 2) { properties.appID = Name(name) }
      let block = MessageBytes.encoded { properties.encode(into: &$0) }
      let isNamed = headers.entries.contains { $0.name == Name(name) }
      #expect(DeadLetterTarget.isNamed(in: block.span.bytes) == isNamed, "seed \(seed)")
      if isNamed { found += 1 }
    }
    #expect(found > 50 && found < 450)
  }

  @Test func theyComeBeforeTheQueuesArguments() throws {
    try channel.declare(
      "work",
      arguments: [
        "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("other"),
      ])
    try channel.declare("other")
    try broker.vhost.declare(exchange: "x", "topic")
    try channel.bind("dead", to: "x", key: "#")
    try publish("1", exchange: nil)
    try publish("2", exchange: .string("x"), key: nil)
    try publish("3", exchange: .string("x"), key: .string("k"))
    try publish("4", exchange: nil, key: nil)
    for _ in 0..<4 { try reject() }
    let letters = try channel.drain("dead")
    #expect(letters.map(\.text) == ["1", "2", "3"])
    #expect(letters.map(\.message.key) == ["dead", "other", "k"])
    #expect(try channel.drain("other").map(\.text) == ["4"])
  }

  @Test(arguments: [
    FieldValue.int32(1), .void, .string([UInt8](repeating: 120, count: 256)), .string("nowhere"),
  ])
  func whatNamesNoExchangeLeadsNowhere(exchange: FieldValue) throws {
    try channel.declare("work")
    try publish(exchange: exchange)
    try reject()
    #expect(try channel.drain("dead").isEmpty)
    #expect(broker.queue("work")?.messageCount == 0)
    channel.close()
    broker.expectNothingHeld()
  }

  // MARK: Why they leave

  @Test func whateverTheReasonTheyAreSentOn() throws {
    try channel.declare("work", arguments: ["x-delivery-limit": .int32(0)])
    try channel.declare("short", arguments: ["x-max-length": .int32(1)])
    try publish("expired", expiration: "5")
    broker.turn()
    broker.advance(milliseconds: 5)
    broker.turn()
    try publish("maxlen", to: "short")
    try publish("stays", to: "short")
    broker.turn()
    try publish("rejected")
    try reject()
    try publish("delivery_limit")
    let tag = try #require(try channel.take("work", isAutomatic: false)).tag
    try channel.reject(tag, isMultiple: false, requeues: true)
    broker.turn()
    let letters = try channel.drain("dead")
    #expect(letters.map(\.text) == ["expired", "maxlen", "rejected", "delivery_limit"])
    #expect(try letters.map { try reason($0) } == letters.map { .string($0.text) })
  }

  @Test func whatARefusingQueueRefusesIsSentOnIfItSaysSo() throws {
    try channel.declare(
      "work",
      arguments: ["x-max-length": .int32(0), "x-overflow": .string("reject-publish-dlx")])
    try channel.declare(
      "strict", arguments: ["x-max-length": .int32(0), "x-overflow": .string("reject-publish")])
    try publish("1")
    try publish("2", to: "strict")
    #expect(try channel.drain("dead").map(\.text) == ["1"])
  }

  // MARK: The log

  @Test func whereverTheLogEndsALetterIsInOnePlace() throws {
    try channel.declare("work", isDurable: true)
    try broker.durableTurn { try publish() }
    _ = try #require(try channel.take("work", isAutomatic: false))
    broker.durableTurn()
    let begin = broker.journal.durablePosition
    try broker.durableTurn { try channel.reject(1, isMultiple: false, requeues: false) }
    var found: Set<[Int?]> = []
    for position in begin...broker.journal.durablePosition {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      found.insert([other.queue("work")?.messageCount, other.queue("dead")?.messageCount])
      other.close()
    }
    #expect(found == [[1, 0], [0, 1]])
  }

  /// Their blocks have left memory when they are rejected, and nobody knows before whether they have headers.
  @Test(arguments: [false, true])
  func whatIsOnDiskIsLookedAt(isTransaction: Bool) throws {
    let publisher = broker.connect().open()
    try publisher.declare("work", isDurable: true)
    if isTransaction { try channel.startTransactions() }
    for number in 0..<20 {
      if number % 2 == 0 {
        try publish("\(number)", on: publisher)
      } else {
        try publisher.publish("\(number)", key: "work", isPersistent: true)
      }
    }
    for _ in 0..<20 { _ = try #require(try channel.take("work", isAutomatic: false)) }
    broker.durableTurn()
    try broker.moveOut(publisher)
    try broker.turn {
      try channel.reject(0, isMultiple: true, requeues: false)
      if isTransaction { _ = try channel.commit() }
    }
    broker.turns {
      broker.queue("dead")?.messageCount == 10 && broker.queue("work")?.messageCount == 0
    }
    let letters = try publisher.drain("dead")
    #expect(letters.map(\.text) == stride(from: 0, to: 20, by: 2).map(String.init))
  }

  /// A commit has a limit of letters, and does not know of these before.
  @Test func whatACommitDrivesOutIsSentOnAfterwards() throws {
    let committer = broker.connect().open()
    try committer.startTransactions()
    try channel.declare("work", isDurable: true, arguments: ["x-max-length": .int32(1)])
    try broker.durableTurn { try publish("0") }
    for number in 1...5 { try publish("\(number)", on: committer) }
    try broker.durableTurn { _ = try committer.commit() }
    broker.turns { broker.queue("dead")?.messageCount == 5 }
    #expect(try channel.drain("work").map(\.text) == ["5"])
    #expect(try channel.drain("dead").map(\.text) == ["0", "1", "2", "3", "4"])
    committer.close()
    channel.close()
    broker.expectNothingHeld()
  }
}
