import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Exchanges and queues that drop repeated messages.
@Suite struct DeduplicationTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  private static let header: Name = "x-deduplication-header"
  static let types: [Name] = [
    "direct", "fanout", "topic", "x-random", "x-modulus-hash", "x-message-deduplication",
  ]

  /// Who drops what is repeated.
  enum Place: CaseIterable { case exchange, queue }

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private var vhost: VirtualHost { broker.vhost }

  /// A queue "q" behind an exchange "x", one of which drops what is repeated.
  private func declare(
    at place: Place, _ arguments: FieldTable = [:], isDurable: Bool = false
  ) throws {
    var all = arguments
    all.entries.append(.init(name: "x-message-deduplication", value: .bool(true)))
    try vhost.declare(
      exchange: "x", "fanout", isDurable: isDurable, arguments: place == .exchange ? all : [:])
    try channel.declare("q", isDurable: isDurable, arguments: place == .queue ? all : [:])
    try channel.bind("q", to: "x")
  }

  private func publish(
    _ text: String, _ value: FieldValue?, on channel: Channel? = nil, header: Name = header,
    ttl: FieldValue? = nil, isPersistent: Bool = true, isMandatory: Bool = false
  ) throws {
    var properties = BasicProperties()
    if let value { properties.headers = FieldTable([.init(name: header, value: value)]) }
    if let ttl { properties.headers?.entries.append(.init(name: "x-cache-ttl", value: ttl)) }
    try (channel ?? self.channel).publish(
      text, to: "x", key: "k", properties: properties, isPersistent: isPersistent,
      isMandatory: isMandatory)
  }

  private func drain(_ queue: Name = "q") throws -> [String] {
    try channel.drain(queue).map(\.text)
  }

  // MARK: What is dropped

  @Test(arguments: types)
  func everyTypeOfExchangeDropsWhatIsRepeated(_ type: Name) throws {
    let isOwnType = type == "x-message-deduplication"
    try vhost.declare(
      exchange: "x", type,
      arguments: isOwnType
        ? ["x-cache-size": .string("5"), "x-cache-persistence": .string("disk")]
        : ["x-message-deduplication": .bool(true)])
    try channel.declare("q")
    try channel.bind("q", to: "x", key: "k")
    for (text, value) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "b"), ("5", "c")] {
      try publish(text, .string(value))
    }
    #expect(try drain() == ["1", "2", "5"])
    // That they were consumed makes no difference.
    try publish("6", .string("a"))
    #expect(try drain() == [])
  }

  @Test func aHeadersExchangeDropsWhatIsRepeated() throws {
    try vhost.declare(
      exchange: "x", "headers", arguments: ["x-message-deduplication": .bool(true)])
    try channel.declare("q")
    try channel.bind("q", to: "x", arguments: [Self.header: .string("a")])
    for text in ["1", "2"] { try publish(text, .string("a")) }
    #expect(try drain() == ["1"])
  }

  @Test func aQueueDropsWhatIsRepeatedForItselfAlone() throws {
    try declare(at: .queue)
    try channel.declare("all")
    try channel.bind("all", to: "x")
    for (text, value) in [("1", "a"), ("2", "a"), ("3", "b")] { try publish(text, .string(value)) }
    #expect(try drain() == ["1", "3"])
    #expect(try drain("all") == ["1", "2", "3"])
  }

  @Test(arguments: Place.allCases)
  func messagesWithoutAValueAreNeverRepeated(_ place: Place) throws {
    try declare(at: place)
    for value in [nil, nil, .void, .void, .double(.nan), .double(.nan)] as [FieldValue?] {
      try publish("m", value)
    }
    try channel.publish("m", to: "x", key: "k")
    try channel.publish("m", to: "x", key: "k")
    #expect(try drain().count == 8)
  }

  @Test(arguments: Place.allCases)
  func valuesAreEqualByWhatTheySay(_ place: Place) throws {
    try declare(at: place)
    let long = [UInt8](repeating: 7, count: 10_000)
    let values: [(String, FieldValue)] = [
      ("1", .int32(1)), ("again", .int8(1)), ("again", .int64(1)), ("2", .string("1")),
      ("3", .bool(true)), ("4", .string("")), ("again", .string("")), ("5", .string(long)),
      ("again", .string(long)), ("6", .string(long + [8])), ("7", .bytes(long)),
      ("8", .table(["a": .int32(1)])), ("again", .table(["a": .int32(1)])), ("9", .array([])),
    ]
    for (text, value) in values { try publish(text, value) }
    #expect(try drain() == (1...9).map { "\($0)" })
  }

  @Test(arguments: Place.allCases)
  func theArgumentNamesTheHeader(_ place: Place) throws {
    try declare(at: place, ["x-deduplication-header": .string("id")])
    for text in ["1", "2"] { try publish(text, .string("a"), header: "id") }
    for text in ["3", "4"] { try publish(text, .string("b")) }
    #expect(try drain() == ["1", "3", "4"])
  }

  @Test(arguments: Place.allCases)
  func largeMessagesAreDroppedAsWell(_ place: Place) throws {
    try declare(at: place)
    let body = [UInt8](repeating: 1, count: 200_000)
    var properties = BasicProperties()
    for value in ["a", "a", "b"] {
      properties.headers = FieldTable([.init(name: Self.header, value: .string(value))])
      try channel.publishLarge(body, to: "x", key: "k", properties: properties, isPersistent: true)
    }
    #expect(broker.queue("q")?.readyCount == 2)
  }

  @Test func anExchangeBehindAnotherDropsForItself() throws {
    try declare(at: .exchange)
    try channel.declare("front")
    try vhost.bind(exchange: "x", to: "amq.topic", key: "#")
    try channel.bind("front", to: "amq.topic", key: "#")
    for text in ["1", "2"] {
      try channel.publish(text, to: "amq.topic", key: "k", headers: [Self.header: .string("a")])
    }
    #expect(try drain() == ["1"])
    #expect(try drain("front") == ["1", "2"])
  }

  @Test func aRouteOfManyQueuesDropsAsWell() throws {
    try declare(at: .exchange)
    for number in 0..<2100 {
      try channel.declare(Name("w\(number)"))
      try channel.bind(Name("w\(number)"), to: "x")
    }
    try broker.turn { try publish("1", .string("a")) }
    broker.finishChores()
    try broker.turn { try publish("2", .string("a")) }
    broker.finishChores()
    #expect(broker.queue("w2099")?.readyCount == 1)
    #expect(broker.queue("q")?.readyCount == 1)
  }

  // MARK: Size and age

  @Test(arguments: Place.allCases)
  func theOldestIsForgottenWhenThereAreTooMany(_ place: Place) throws {
    try declare(at: place, ["x-cache-size": .int32(3)])
    for value in ["a", "b", "c", "a", "d", "b", "a"] { try publish(value, .string(value)) }
    // d pushed out a, which came again and pushed out b.
    #expect(try drain() == ["a", "b", "c", "d", "a"])
  }

  @Test(arguments: Place.allCases)
  func thereIsRoomForSomeWithoutASize(_ place: Place) throws {
    try declare(at: place)
    for number in 0..<128 { try publish("m", .int32(Int32(number))) }
    try publish("0", .int32(0))
    #expect(try drain().count == 128)
    try publish("m", .int32(128))
    try publish("0", .int32(0))
    #expect(try drain() == ["m", "0"])
  }

  @Test(arguments: Place.allCases)
  func valuesAgeUnlessTheMessageSaysOtherwise(_ place: Place) throws {
    try declare(at: place, ["x-cache-ttl": .int32(1000)])
    broker.turn()
    try publish("1", .string("a"))
    try publish("long", .string("b"), ttl: .int32(5000))
    try publish("short", .string("c"), ttl: .int64(10))
    broker.advance(milliseconds: 500)
    broker.turn()
    for (text, value) in [("2", "a"), ("x", "b"), ("short again", "c")] {
      try publish(text, .string(value))
    }
    broker.advance(milliseconds: 500)
    broker.turn()
    for (text, value) in [("3", "a"), ("x", "b")] { try publish(text, .string(value)) }
    broker.advance(milliseconds: 5000)
    broker.turn()
    try publish("4", .string("b"))
    #expect(try drain() == ["1", "long", "short", "short again", "3", "4"])
  }

  @Test func whatIsRememberedIsCountedAndGoesWithItsHolder() throws {
    try declare(at: .exchange, ["x-cache-size": .int32(1000)])
    #expect(broker.broker.account[.remembered] == 0)
    for number in 0..<2000 { try publish("m", .string("value-\(number)")) }
    let bytes = broker.broker.account[.remembered]
    #expect(bytes > 100_000 && bytes < 400_000)
    for number in 0..<1000 { try publish("m", .string("value-\(number)")) }
    #expect(abs(broker.broker.account[.remembered] - bytes) < 2000)
    try vhost.delete(exchange: "x")
    #expect(broker.broker.account[.remembered] == 0)
  }

  @Test func whenMemoryIsScarceTheOldestAreForgotten() throws {
    var limits = BrokerLimits()
    limits.memoryBytes = 400_000
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare(
      "q", arguments: ["x-message-deduplication": .bool(true), "x-cache-size": .int32(100_000)])
    for number in 0..<5000 {
      try channel.publish("m", key: "q", headers: [Self.header: .int32(Int32(number))])
      _ = try channel.take("q")
    }
    #expect(broker.broker.account[.remembered] <= 100_000 + 1000)
    try channel.publish("m", key: "q", headers: [Self.header: .int32(4999)])
    try channel.publish("m", key: "q", headers: [Self.header: .int32(0)])
    #expect(try channel.drain("q").count == 1)
  }

  // MARK: Publishers

  @Test(arguments: Place.allCases)
  func whatIsDroppedIsConfirmed(_ place: Place) throws {
    try declare(at: place, isDurable: true)
    broker.durableTurn()
    try channel.startConfirming()
    try broker.turn {
      try publish("1", .string("a"))
      try publish("2", .string("a"))
    }
    #expect(client.events() == [], "the first one is not durable yet")
    broker.durableTurn()
    #expect(client.events() == [.confirmed(2, isMultiple: true, on: 1)])
    #expect(try drain() == ["1"])
    broker.durableTurn()
    // Nothing is written for this one, and nothing is waited for.
    try broker.turn { try publish("3", .string("a")) }
    #expect(client.events() == [.confirmed(3, isMultiple: false, on: 1)])
  }

  @Test func whatAnExchangeDropsHasNoRoute() throws {
    try declare(at: .exchange)
    try publish("1", .string("a"), isMandatory: true)
    #expect(client.events() == [])
    try publish("2", .string("a"), isMandatory: true)
    guard case .returned(let message, on: 1)? = client.events().first else {
      Issue.record("nothing came back")
      return
    }
    #expect(message.text == "2")
  }

  @Test func whatAQueueDropsHadARoute() throws {
    try declare(at: .queue)
    for text in ["1", "2"] { try publish(text, .string("a"), isMandatory: true) }
    #expect(client.events() == [])
  }

  @Test func whatIsDroppedDoesNotGoToTheAlternateExchange() throws {
    try vhost.declare(
      exchange: "x", "fanout",
      arguments: [
        "x-message-deduplication": .bool(true), "alternate-exchange": .string("amq.fanout"),
      ])
    for queue in ["q", "rest"] as [Name] { try channel.declare(queue) }
    try channel.bind("rest", to: "amq.fanout")
    try publish("1", .string("a"))
    try channel.bind("q", to: "x")
    for text in ["2", "3"] { try publish(text, .string("b")) }
    try publish("4", .string("a"))
    #expect(try drain("rest") == ["1"])
    #expect(try drain() == ["2"])
  }

  @Test func whatReachedNobodyMayComeAgain() throws {
    try vhost.declare(
      exchange: "x", "fanout", arguments: ["x-message-deduplication": .bool(true)])
    try publish("1", .string("a"))
    try channel.declare("q")
    try channel.bind("q", to: "x")
    for text in ["2", "3"] { try publish(text, .string("a")) }
    #expect(try drain() == ["2"])
  }

  @Test(arguments: Place.allCases)
  func whatWasRefusedMayComeAgain(_ place: Place) throws {
    let asks = FieldTable.Entry(name: "x-message-deduplication", value: .bool(true))
    var arguments: FieldTable = [
      "x-max-length": .int32(1), "x-overflow": .string("reject-publish"),
    ]
    if place == .queue { arguments.entries.append(asks) }
    try vhost.declare(
      exchange: "x", "fanout", arguments: place == .exchange ? FieldTable([asks]) : [:])
    try channel.declare("q", arguments: arguments)
    try channel.bind("q", to: "x")
    try publish("1", .string("a"))
    try publish("2", .string("b"))
    #expect(try drain() == ["1"])
    try publish("3", .string("b"))
    #expect(try drain() == ["3"])
  }

  @Test func deadLettersAreDroppedAndRememberedAsWell() throws {
    try declare(at: .exchange, isDurable: true)
    try channel.declare(
      "work", isDurable: true, arguments: ["x-dead-letter-exchange": .string("x")])
    var properties = BasicProperties()
    for (text, value) in [("1", "a"), ("2", "a"), ("3", "b")] {
      properties.headers = FieldTable([.init(name: Self.header, value: .string(value))])
      try channel.publish(text, key: "work", properties: properties, isPersistent: true)
      let delivery = try #require(try channel.take("work", isAutomatic: false))
      try channel.reject(delivery.tag, isMultiple: false, requeues: false)
    }
    try publish("4", .string("b"))
    #expect(try drain() == ["1", "3"])
    #expect(broker.queue("work")?.messageCount == 0)
  }

  @Test func aFullQueueDropsItsHeadWithinTheSameGroup() throws {
    try vhost.declare(
      exchange: "x", "fanout", isDurable: true,
      arguments: ["x-message-deduplication": .bool(true)])
    try channel.declare("dead", isDurable: true)
    try channel.declare(
      "q", isDurable: true,
      arguments: [
        "x-max-length": .int32(1), "x-message-deduplication": .bool(true),
        "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("dead"),
      ])
    try channel.bind("q", to: "x")
    for number in 0..<3 { try publish("\(number)", .int32(Int32(number))) }
    try publish("again", .int32(2))
    #expect(try drain() == ["2"])
    #expect(try drain("dead") == ["0", "1"])
  }

  // MARK: The log

  @Test(arguments: Place.allCases)
  func whatWasSeenIsKnownAfterARestart(_ place: Place) throws {
    try declare(at: place, ["x-cache-size": .int32(3)], isDurable: true)
    try broker.durableTurn {
      for value in ["a", "b", "c", "a", "d"] { try publish(value, .string(value)) }
      try publish("transient", .string("e"), isPersistent: false)
    }
    #expect(try drain() == ["a", "b", "c", "d", "transient"])
    broker.durableTurn()
    for again in [try broker.crashed(), try broker.restarted()] {
      let channel = again.connect().open()
      for value in ["c", "d", "e", "a"] { try publish(value, .string(value), on: channel) }
      #expect(try channel.drain("q").map(\.text) == ["a"])
      again.close()
    }
  }

  @Test(arguments: Place.allCases)
  func whatWasSeenIsKnownWhenTheLogHasGoneOn(_ place: Place) throws {
    var settings = Journal.Settings.moving
    settings.segmentBytes = 64 << 10
    settings.windowBytes = 128 << 10
    let broker = try TestBroker(settings: settings, disk: FaultyDisk())
    let channel = broker.connect().open()
    let asks: FieldTable = [
      "x-message-deduplication": .bool(true), "x-cache-size": .int32(2000),
    ]
    try broker.vhost.declare(
      exchange: "x", "fanout", isDurable: true, arguments: place == .exchange ? asks : [:])
    try channel.declare("q", isDurable: true, arguments: place == .queue ? asks : [:])
    try channel.declare("filler", isDurable: true)
    try channel.bind("q", to: "x")
    for number in 0..<3000 { try publish("m", .int32(Int32(number)), on: channel) }
    try channel.purge("q")
    let body = [UInt8](repeating: 1, count: 15_000)
    for round in 0..<100 {
      try broker.turn {
        for _ in 0..<4 { try channel.publish(body, key: "filler", isPersistent: true) }
        try publish("m", .int32(Int32(3000 + round)), on: channel)
        try channel.purge("filler")
      }
      broker.drainWorkers()
    }
    try channel.purge("q")
    broker.quietTurn()
    #expect(broker.journal.statistics.segmentsRecycled > 50)
    let again = try broker.crashed(settings: settings)
    let reader = again.connect().open()
    for number in 1100..<3100 { try publish("m", .int32(Int32(number)), on: reader) }
    #expect(try reader.drain("q").count == 0)
    try publish("old", .int32(1099), on: reader)
    #expect(try reader.drain("q").map(\.text) == ["old"])
  }

  @Test(arguments: Place.allCases)
  func whereverTheLogEndsAMessageIsThereWithItsValueOrNot(_ place: Place) throws {
    try declare(at: place, isDurable: true)
    broker.durableTurn()
    let begin = broker.journal.durablePosition
    try broker.durableTurn { try publish("1", .string("a")) }
    var found: Set<[Int]> = []
    for position in begin...broker.journal.durablePosition {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      let before = other.queue("q")?.messageCount ?? -1
      let channel = other.connect().open()
      try publish("2", .string("a"), on: channel)
      found.insert([before, other.queue("q")?.messageCount ?? -1])
      other.close()
    }
    #expect(found == [[0, 1], [1, 1]])
  }

  @Test(arguments: Place.allCases)
  func whatIsDeletedIsForgotten(_ place: Place) throws {
    try declare(at: place, isDurable: true)
    try publish("1", .string("a"))
    try vhost.delete(exchange: "x")
    try channel.delete("q")
    broker.finishChores()
    try declare(at: place, isDurable: true)
    try publish("2", .string("a"))
    broker.durableTurn()
    let again = try broker.restarted()
    let reader = again.connect().open()
    try publish("3", .string("a"), on: reader)
    #expect(try reader.drain("q").map(\.text) == ["2"])
  }

  @Test func whatHasAgedIsForgottenAtTheStart() throws {
    try declare(at: .exchange, ["x-cache-ttl": .int32(1)], isDurable: true)
    try publish("1", .string("a"))
    try publish("2", .string("b"), ttl: .int64(1_000_000_000))
    broker.durableTurn()
    broker.close()
    let again = try TestBroker(in: broker.directory, startingAfter: 1000)
    let reader = again.connect().open()
    for (text, value) in [("3", "a"), ("4", "b")] { try publish(text, .string(value), on: reader) }
    #expect(try reader.drain("q").map(\.text) == ["1", "2", "3"])
  }

  // MARK: Mistakes

  @Test(
    arguments: [
      ["x-cache-size": .int32(0)], ["x-cache-size": .int32(-1)], ["x-cache-size": .string("many")],
      ["x-cache-size": .int32(100_001)], ["x-cache-ttl": .int32(0)], ["x-cache-ttl": .bool(true)],
      ["x-deduplication-header": .int32(1)], ["x-message-deduplication": .string("yes")],
    ] as [FieldTable])
  func argumentsThatMeanNothingAreRefused(_ wrong: FieldTable) throws {
    var arguments = wrong
    if wrong["x-message-deduplication"] == nil {
      arguments.entries.append(.init(name: "x-message-deduplication", value: .bool(true)))
    }
    #expect(mistake { try vhost.declare(exchange: "x", arguments: arguments) } != nil)
    #expect(mistake { try channel.declare("q", arguments: arguments) } != nil)
    #expect(!vhost.hasExchange("x") && !vhost.hasQueue("q"))
  }

  @Test func theReasonsAreThoseOfThePlugin() {
    let type: Name = "x-message-deduplication"
    #expect(
      mistake { try vhost.declare(exchange: "x", type, arguments: ["x-cache-size": .int32(0)]) }
        == .refusedExchange(
          reason: "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0"))
    #expect(
      mistake { try vhost.declare(exchange: "x", type, arguments: ["x-cache-ttl": .string("a")]) }
        == .refusedExchange(
          reason: "Invalid argument, 'x-cache-ttl' must be an integer greater than 0"))
  }

  @Test func aMessageWithTooManyHeadersIsRefused() throws {
    var limits = BrokerLimits()
    limits.routingStepsMax = 100
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare("q", arguments: ["x-message-deduplication": .bool(true)])
    let headers = FieldTable((0..<2000).map { .init(name: Name("h\($0)"), value: .void) })
    #expect(
      mistake { try channel.publish("m", key: "q", headers: headers) }
        == .limitReached(.routingSteps(from: "", in: "/", max: 100)))
  }
}
