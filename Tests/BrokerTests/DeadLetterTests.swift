import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages that leave a queue without having been consumed go where its dead letters go.
@Suite struct DeadLetterTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare(
    _ name: Name = "work", to exchange: String = "dlx", key: String? = nil,
    isDurable: Bool = false, _ more: FieldTable = [:]
  ) throws {
    var arguments = more
    arguments.entries.append(.init(name: "x-dead-letter-exchange", value: .string(exchange)))
    if let key {
      arguments.entries.append(.init(name: "x-dead-letter-routing-key", value: .string(key)))
    }
    try channel.declare(name, isDurable: isDurable, arguments: arguments)
  }

  private func declareTarget(isDurable: Bool = false) throws {
    try broker.vhost.declare(exchange: "dlx", "fanout", isDurable: isDurable)
    try channel.declare("dead", isDurable: isDurable)
    try channel.bind("dead", to: "dlx")
  }

  /// Takes the next message of a queue and rejects it.
  private func reject(_ queue: Name, on channel: Channel? = nil) throws {
    let channel = channel ?? self.channel
    let tag = try #require(try channel.take(queue, isAutomatic: false)).tag
    try channel.reject(tag, isMultiple: false, requeues: false)
  }

  private func properties(_ delivery: Delivery) throws -> BasicProperties {
    var reader = ByteReader(delivery.message.properties.span.bytes)
    return try BasicProperties(from: &reader)
  }

  private func deaths(_ delivery: Delivery) throws -> [FieldTable] {
    guard case .array(let values)? = try properties(delivery).headers?["x-death"] else { return [] }
    return values.compactMap { if case .table(let table) = $0 { table } else { nil } }
  }

  // MARK: What clients read

  @Test func aRejectedMessageSaysWhatBecameOfIt() throws {
    try declareTarget()
    try declare()
    try channel.bind("work", to: "amq.direct", key: "k")
    var sent = BasicProperties()
    sent.headers = ["mine": .int32(7), "CC": .array([.string("other")])]
    sent.expiration = "600000"
    sent.correlationID = "c"
    sent.deliveryMode = 2
    try channel.publish("body", to: "amq.direct", key: "k", properties: sent)
    try reject("work")
    let letter = try #require(try channel.take("dead"))
    #expect(letter.text == "body")
    #expect(letter.message.exchange == "dlx")
    #expect(letter.message.key == "k")
    #expect(!letter.isRedelivered)
    let got = try properties(letter)
    #expect(got.expiration == nil)
    #expect(got.correlationID == "c")
    #expect(got.deliveryMode == 2)
    let headers = try #require(got.headers)
    #expect(headers["mine"] == .int32(7))
    for kind in ["first", "last"] {
      #expect(headers[Name("x-\(kind)-death-reason")] == .string("rejected"))
      #expect(headers[Name("x-\(kind)-death-queue")] == .string("work"))
      #expect(headers[Name("x-\(kind)-death-exchange")] == .string("amq.direct"))
    }
    let death = try #require(try deaths(letter).first)
    #expect(death["count"] == .int64(1))
    #expect(death["reason"] == .string("rejected"))
    #expect(death["queue"] == .string("work"))
    #expect(death["exchange"] == .string("amq.direct"))
    #expect(death["routing-keys"] == .array([.string("k"), .string("other")]))
    #expect(death["original-expiration"] == .string("600000"))
    guard case .timestamp(let seconds)? = death["time"] else {
      Issue.record("a death has a time")
      return
    }
    #expect(Int64(seconds) == broker.broker.now / 1000)
    #expect(broker.queue("work")?.messageCount == 0)
  }

  @Test func aKeyOfTheQueuesReplacesAllOthers() throws {
    try declare(to: "", key: "dead")
    for name in ["dead", "other", "work2"] as [Name] { try channel.declare(name) }
    try channel.publish("a", key: "work", headers: ["CC": .array([.string("other")])])
    #expect(try channel.drain("other").count == 1)
    try reject("work")
    let letter = try #require(try channel.take("dead"))
    #expect(letter.message.exchange == "")
    #expect(letter.message.key == "dead")
    #expect(try properties(letter).headers?["CC"] == nil)
    #expect(try channel.drain("other").isEmpty)
  }

  @Test func deathsAreCountedForEachQueueAndReason() throws {
    try declare("a", to: "", key: "b")
    try declare("b", to: "", key: "a")
    try channel.publish("x", key: "a")
    for queue in ["a", "b", "a", "b", "a"] as [Name] { try reject(queue) }
    let letter = try #require(try channel.take("b"))
    let deaths = try deaths(letter)
    #expect(deaths.map { $0["queue"] } == [.string("a"), .string("b")])
    #expect(deaths.map { $0["count"] } == [.int64(3), .int64(2)])
    let headers = try properties(letter).headers
    #expect(headers?["x-first-death-queue"] == .string("a"))
    #expect(headers?["x-last-death-queue"] == .string("a"))
  }

  // MARK: Where they go

  @Test func whereThereIsNoExchangeOrNoQueueTheyAreGone() throws {
    try declare("work", to: "nowhere")
    try channel.publish("a", key: "work")
    try reject("work")
    #expect(broker.queue("work")?.messageCount == 0)
    try broker.vhost.declare(exchange: "nowhere", "fanout")
    try channel.publish("b", key: "work")
    try reject("work")
    #expect(broker.queue("work")?.messageCount == 0)
  }

  @Test func whatIsRequeuedOrAcknowledgedIsNoDeadLetter() throws {
    try declareTarget()
    try declare()
    try channel.publish("a", key: "work")
    let tag = try #require(try channel.take("work", isAutomatic: false)).tag
    try channel.reject(tag, isMultiple: false, requeues: true)
    let again = try #require(try channel.take("work", isAutomatic: false)).tag
    try channel.acknowledge(again, isMultiple: false)
    #expect(broker.queue("dead")?.messageCount == 0)
  }

  @Test(arguments: [1, 10, 3000])
  func manyAreRejectedInTheirOrder(count: Int) throws {
    try declareTarget()
    try declare()
    for number in 0..<count { try channel.publish("\(number)", key: "work") }
    try channel.consume("work")
    broker.finishChores()
    broker.turn()
    try channel.reject(0, isMultiple: true, requeues: false)
    broker.finishChores()
    #expect(try channel.drain("dead").map(\.text) == (0..<count).map(String.init))
    #expect(broker.queue("work")?.messageCount == 0)
    broker.expectNothingHeld()
  }

  @Test func whatOverflowsIsSentOn() throws {
    try declareTarget()
    try declare("work", ["x-max-length": .int64(2)])
    for number in 0..<5 { try channel.publish("\(number)", key: "work") }
    let letters = try channel.drain("dead")
    #expect(letters.map(\.text) == ["0", "1", "2"])
    #expect(try deaths(letters[0]).first?["reason"] == .string("maxlen"))
    #expect(try channel.drain("work").map(\.text) == ["3", "4"])
  }

  @Test func whatIsRefusedIsSentOnWhereTheQueueSaysSo() throws {
    try declareTarget()
    try declare("work", ["x-max-length": .int64(1), "x-overflow": .string("reject-publish-dlx")])
    try channel.startConfirming()
    try broker.turn { for number in 0..<3 { try channel.publish("\(number)", key: "work") } }
    #expect(client.events().filter { if case .refused = $0 { true } else { false } }.count == 2)
    let letters = try channel.drain("dead")
    #expect(letters.map(\.text) == ["1", "2"])
    #expect(try deaths(letters[0]).first?["reason"] == .string("maxlen"))
  }

  /// Each one's arrival makes another one leave.
  @Test func queuesThatOverflowIntoEachOther() throws {
    try declare("a", to: "", key: "b", ["x-max-length": .int64(1)])
    try declare("b", to: "", key: "c", ["x-max-length": .int64(1)])
    try channel.declare("c")
    for number in 0..<6 {
      try channel.publish("\(number)", key: "a")
      broker.turn()
    }
    broker.finishChores()
    #expect(try channel.drain("a").map(\.text) == ["5"])
    #expect(try channel.drain("b").map(\.text) == ["4"])
    #expect(try channel.drain("c").map(\.text) == ["0", "1", "2", "3"])
    broker.expectNothingHeld()
  }

  /// It would go round for ever: nobody ever rejects it.
  @Test func whatComesBackByItselfIsGone() throws {
    try declare("a", to: "", key: "a", ["x-max-length": .int64(1)])
    for number in 0..<3 {
      try channel.publish("\(number)", key: "a")
      broker.turn()
    }
    broker.finishChores()
    #expect(try channel.drain("a").map(\.text) == ["2"])
  }

  @Test func whatIsRejectedMayComeBack() throws {
    try declare("a", to: "", key: "a")
    try channel.publish("x", key: "a")
    for _ in 0..<3 { try reject("a") }
    let letter = try #require(try channel.take("a"))
    #expect(try deaths(letter).map { $0["count"] } == [.int64(3)])
  }

  /// Nothing can be added to headers that are as many as there may be, or fill a frame; the message goes on
  /// all the same.
  @Test(arguments: [
    FieldTable((0..<FieldTable.valuesMax).map { .init(name: Name("\($0)"), value: .void) }),
    ["large": .bytes([UInt8](repeating: 7, count: 130_900))],
  ])
  func headersThatAreFullStayAsTheyAre(full: FieldTable) throws {
    try declare("a", to: "", key: "a")
    try channel.publish("x", key: "a", headers: full)
    for _ in 0..<3 { try reject("a") }
    let letter = try #require(try channel.take("a"))
    #expect(try properties(letter).headers == full)
  }

  // MARK: The log

  @Test func whereverTheLogEndsALetterIsInOnePlace() throws {
    try declareTarget(isDurable: true)
    try declare(isDurable: true)
    try broker.durableTurn { try channel.publish("1", key: "work", isPersistent: true) }
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

  @Test func aRestartKeepsWhereItWasSent() throws {
    try declareTarget(isDurable: true)
    try declare(isDurable: true)
    try broker.durableTurn { try channel.publish("1", key: "work", isPersistent: true) }
    try reject("work")
    broker.durableTurn()
    let again = try broker.crashed()
    let reader = again.connect().open()
    let letters = try reader.drain("dead")
    #expect(letters.map(\.text) == ["1"])
    #expect(try letters.map { try deaths($0).count } == [1])
    #expect(again.queue("work")?.messageCount == 0)
    try reader.publish("2", key: "work", isPersistent: true)
    try reject("work", on: reader)
    #expect(try reader.drain("dead").map(\.text) == ["2"])
  }

  enum Death: CaseIterable { case rejected, expired, expiredEarly }

  /// Each letter costs what it costs to store it in very many queues.
  @Test(arguments: Death.allCases)
  func lettersToManyQueuesGoInSlices(death: Death) throws {
    let (targets, count) = (500, 200)
    try broker.vhost.declare(exchange: "dlx", "fanout")
    for number in 0..<targets {
      try channel.declare(Name("d\(number)"))
      try channel.bind(Name("d\(number)"), to: "dlx")
    }
    try declare("work", death == .expired ? ["x-message-ttl": .int32(1000)] : [:])
    if death == .expiredEarly { try channel.publish("stays", key: "work") }
    var properties = BasicProperties()
    if death == .expiredEarly { properties.expiration = "1000" }
    try broker.turn {
      for number in 0..<count {
        try channel.publish("\(number)", key: "work", properties: properties)
      }
    }
    switch death {
    case .rejected:
      try channel.consume("work", tag: "c")
      broker.turn()
      try broker.turn { try channel.reject(0, isMultiple: true, requeues: false) }
    case .expired, .expiredEarly: broker.advance(milliseconds: 1100)
    }
    var stored = 0
    var most = 0
    for _ in 0..<count where stored < count {
      let now = broker.queue(Name("d\(targets - 1)"))?.readyCount ?? 0
      most = max(most, now - stored)
      stored = now
      broker.turn()
    }
    #expect(stored == count)
    #expect(most <= 30)
  }
}
