import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Exchanges that send their last messages to whatever is bound to them.
@Suite struct RecentHistoryTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private var vhost: VirtualHost { broker.vhost }

  private func declare(_ length: Int32? = nil, isDurable: Bool = false) throws {
    try vhost.declare(
      exchange: "x", "x-recent-history", isDurable: isDurable,
      arguments: length.map { ["x-recent-history-length": .int32($0)] } ?? [:])
  }

  private func publish(_ numbers: ClosedRange<Int>, isPersistent: Bool = true) throws {
    for number in numbers {
      try channel.publish("\(number)", to: "x", key: Name("k\(number)"), isPersistent: isPersistent)
    }
  }

  /// What a queue gets that is bound now.
  private func history(_ channel: Channel? = nil, arguments: FieldTable = [:]) throws -> [String] {
    let channel = channel ?? self.channel
    try channel.declare("fresh")
    try channel.bind("fresh", to: "x", arguments: arguments)
    defer { _ = try? channel.delete("fresh") }
    return try channel.drain("fresh").map(\.text)
  }

  private func texts(_ numbers: ClosedRange<Int>) -> [String] { numbers.map { "\($0)" } }

  // MARK: What is kept

  @Test func aNewQueueGetsTheLastMessages() throws {
    try declare(3)
    try publish(1...2)
    #expect(try history() == ["1", "2"])
    try publish(3...5)
    try channel.declare("q")
    try channel.bind("q", to: "x", key: "any")
    try publish(6...6)
    let messages = try channel.drain("q")
    #expect(messages.map(\.text) == ["3", "4", "5", "6"])
    #expect(messages.map(\.message.key) == ["k3", "k4", "k5", "k6"])
    #expect(messages.allSatisfy { $0.message.exchange == "x" && !$0.isRedelivered })
  }

  @Test func withoutALengthThereAreTwenty() throws {
    try declare()
    try publish(1...50)
    #expect(try history() == texts(31...50))
  }

  @Test func messagesGoToAllQueuesWhateverTheirKeys() throws {
    try declare()
    for queue in ["a", "b"] as [Name] {
      try channel.declare(queue)
      try channel.bind(queue, to: "x", key: queue)
    }
    try publish(1...2)
    #expect(try channel.drain("a").map(\.text) == ["1", "2"])
    #expect(try channel.drain("b").map(\.text) == ["1", "2"])
  }

  @Test func aBindingThatIsThereGetsNothingAgain() throws {
    try declare()
    try channel.declare("q")
    try channel.bind("q", to: "x")
    try publish(1...2)
    try channel.bind("q", to: "x")
    #expect(try channel.drain("q").count == 2)
    try channel.unbind("q", from: "x")
    try channel.bind("q", to: "x")
    #expect(try channel.drain("q").map(\.text) == ["1", "2"])
  }

  @Test func aMessageMaySayThatItIsNotToBeKept() throws {
    try declare()
    let name: Name = "x-recent-history-no-store"
    for (text, value) in [
      ("1", .bool(true)), ("2", .bool(false)), ("3", .int32(1)), ("4", .string("true")),
    ] as [(String, FieldValue)] {
      try channel.publish(text, to: "x", headers: FieldTable([.init(name: name, value: value)]))
    }
    #expect(try history() == ["2", "3", "4"])
  }

  @Test func propertiesAndLargeBodiesAreKept() throws {
    try declare()
    var properties = BasicProperties()
    properties.contentType = "text/plain"
    properties.headers = ["a": .int32(1)]
    let body = [UInt8](repeating: 7, count: 100_000)
    try channel.publishLarge(body, to: "x", key: "k", properties: properties)
    try channel.declare("q")
    try channel.bind("q", to: "x")
    let delivery = try #require(try channel.take("q"))
    #expect(delivery.message.body == body)
    var reader = ByteReader(delivery.message.properties.span.bytes)
    let read = try BasicProperties(from: &reader)
    #expect(read.contentType == "text/plain")
    #expect(read.headers == ["a": .int32(1)])
  }

  // MARK: Bounds

  @Test func bytesAreBoundedAsWell() throws {
    try declare(10_000)
    let body = [UInt8](repeating: 1, count: 1 << 20)
    for _ in 0..<10 { try channel.publish(body, to: "x", key: "k") }
    for queue in ["a", "b"] as [Name] { try channel.declare(queue) }
    try channel.bind("a", to: "x")
    broker.finishChores()
    #expect(try channel.drain("a").count == 3)
    #expect(broker.broker.account[.remembered] <= 4 << 20)
    // What is larger than all of that is not kept, and nothing goes for it.
    try channel.publishLarge([UInt8](repeating: 1, count: 5 << 20), to: "x", key: "k")
    try channel.bind("b", to: "x")
    broker.finishChores()
    #expect(try channel.drain("b").count == 3)
    try vhost.delete(exchange: "x")
    #expect(broker.broker.account[.remembered] == 0)
  }

  @Test func aLongHistoryIsSentInSlices() throws {
    try declare(10_000)
    for number in 0..<10_000 { try channel.publish("\(number)", to: "x", key: "") }
    try channel.declare("q")
    broker.turn()
    try broker.turn { try channel.bind("q", to: "x") }
    let first = broker.queue("q")?.readyCount ?? 0
    #expect(first > 0 && first < 10_000)
    #expect(broker.finishChores() > 1)
    #expect(try channel.drain("q").map(\.text) == (0..<10_000).map { "\($0)" })
  }

  @Test func aQueueThatGoesMeanwhileEndsIt() throws {
    try declare(10_000)
    for number in 0..<10_000 { try channel.publish("\(number)", to: "x", key: "") }
    try channel.declare("q")
    broker.turn()
    try broker.turn { try channel.bind("q", to: "x") }
    try channel.delete("q")
    broker.finishChores()
    broker.expectNothingHeld()
  }

  // MARK: With what other exchanges have

  @Test func anExchangeGetsTheLastMessagesToo() throws {
    try declare()
    try publish(1...4)
    try vhost.declare(exchange: "y", "direct")
    try channel.declare("q")
    try channel.bind("q", to: "y", key: "k2")
    try channel.bind("q", to: "y", key: "k4")
    try vhost.bind(exchange: "y", to: "x")
    #expect(try channel.drain("q").map(\.text) == ["2", "4"])
  }

  @Test func exchangesThatKeepMayFormCircles() throws {
    try declare()
    try vhost.declare(exchange: "y", "x-recent-history")
    try publish(1...2)
    try vhost.bind(exchange: "y", to: "x")
    try vhost.bind(exchange: "x", to: "y")
    try channel.declare("q")
    try channel.bind("q", to: "y")
    #expect(try channel.drain("q").map(\.text).suffix(2) == ["1", "2"])
    try publish(3...3)
    #expect(try channel.drain("q").map(\.text) == ["3"])
  }

  @Test func deadLettersAreKeptToo() throws {
    try declare(isDurable: true)
    try channel.declare(
      "work", isDurable: true, arguments: ["x-dead-letter-exchange": .string("x")])
    for text in ["1", "2"] {
      try channel.publish(text, key: "work", isPersistent: true)
      let delivery = try #require(try channel.take("work", isAutomatic: false))
      try channel.reject(delivery.tag, isMultiple: false, requeues: false)
    }
    #expect(broker.queue("work")?.messageCount == 0)
    broker.durableTurn()
    let again = try broker.restarted()
    #expect(try history(again.connect().open()) == ["1", "2"])
  }

  @Test func aFilterHoldsForTheHistory() throws {
    try declare()
    for number in 1...4 {
      try channel.publish("\(number)", to: "x", headers: ["n": .int32(Int32(number))])
    }
    #expect(try history(arguments: ["x-filter": .string("n > 2")]) == ["3", "4"])
  }

  @Test func aQueueWithSettingsTakesAsManyAsItMay() throws {
    try declare()
    try publish(1...5)
    try channel.declare("q", arguments: ["x-max-length": .int32(2)])
    try channel.bind("q", to: "x")
    #expect(try channel.drain("q").map(\.text) == ["4", "5"])
  }

  @Test func whatReachesNobodyIsKeptAndComesBack() throws {
    try vhost.declare(
      exchange: "x", "x-recent-history",
      arguments: ["alternate-exchange": .string("amq.fanout")])
    try channel.publish("1", to: "x", key: "k", isMandatory: true)
    guard case .returned(let message, on: 1)? = client.events().first else {
      Issue.record("nothing came back")
      return
    }
    #expect(message.text == "1")
    try channel.declare("rest")
    try channel.bind("rest", to: "amq.fanout")
    try publish(2...2)
    #expect(try channel.drain("rest").map(\.text) == ["2"])
    #expect(try history() == ["1", "2"])
  }

  @Test func whatIsRepeatedIsNotKept() throws {
    try vhost.declare(
      exchange: "x", "x-recent-history", arguments: ["x-message-deduplication": .bool(true)])
    try channel.declare("q")
    try channel.bind("q", to: "x")
    for text in ["1", "2"] {
      try channel.publish(text, to: "x", headers: ["x-deduplication-header": .string("a")])
    }
    #expect(try history() == ["1"])
  }

  // MARK: The log

  @Test func aDurableExchangeKeepsPersistentMessages() throws {
    try declare(3, isDurable: true)
    broker.durableTurn()
    try channel.startConfirming()
    try broker.turn { try publish(1...4) }
    #expect(client.events() == [], "nobody got them, and yet they are to be durable")
    broker.durableTurn()
    #expect(client.events() == [.confirmed(4, isMultiple: true, on: 1)])
    try publish(5...5, isPersistent: false)
    #expect(try history() == texts(3...5))
    broker.durableTurn()
    for again in [try broker.crashed(), try broker.restarted()] {
      let channel = again.connect().open()
      #expect(try history(channel) == texts(2...4))
      try channel.publish("6", to: "x", key: "k", isPersistent: true)
      #expect(try history(channel) == ["3", "4", "6"])
      again.close()
    }
  }

  @Test func theHistoryIsThereWhenTheLogHasGoneOn() throws {
    var settings = Journal.Settings.moving
    settings.segmentBytes = 64 << 10
    settings.windowBytes = 128 << 10
    let broker = try TestBroker(settings: settings, disk: FaultyDisk())
    let channel = broker.connect().open()
    try broker.vhost.declare(
      exchange: "x", "x-recent-history", isDurable: true,
      arguments: ["x-recent-history-length": .int32(100)])
    try channel.declare("filler", isDurable: true)
    for number in 0..<250 {
      try channel.publish("\(number)", to: "x", key: "k", isPersistent: true)
    }
    let body = [UInt8](repeating: 1, count: 15_000)
    for round in 0..<100 {
      try broker.turn {
        for _ in 0..<4 { try channel.publish(body, key: "filler", isPersistent: true) }
        if round % 10 == 0 {
          try channel.publish("r\(round)", to: "x", key: "k", isPersistent: true)
        }
        try channel.purge("filler")
      }
      broker.drainWorkers()
    }
    broker.quietTurn()
    #expect(broker.journal.statistics.segmentsRecycled > 50)
    let again = try broker.crashed(settings: settings)
    let expected = (160..<250).map { "\($0)" } + (0..<10).map { "r\($0 * 10)" }
    #expect(try history(again.connect().open()) == expected)
  }

  @Test func whereverTheLogEndsAMessageIsKeptIfItIsThere() throws {
    try declare(isDurable: true)
    try channel.declare("q", isDurable: true)
    try channel.bind("q", to: "x")
    broker.durableTurn()
    let begin = broker.journal.durablePosition
    try broker.durableTurn { try publish(1...1) }
    var found: Set<[Int]> = []
    for position in begin...broker.journal.durablePosition {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      let kept = try history(other.connect().open()).count
      found.insert([other.queue("q")?.messageCount ?? -1, kept])
      other.close()
    }
    #expect(found == [[0, 0], [1, 1]])
  }

  @Test func anotherExchangeOfTheNameBeginsAnew() throws {
    try declare(isDurable: true)
    try publish(1...2)
    try vhost.delete(exchange: "x")
    try declare(isDurable: true)
    #expect(try history() == [])
    broker.durableTurn()
    let again = try broker.restarted()
    #expect(try history(again.connect().open()) == [])
  }

  // MARK: Mistakes

  @Test(
    arguments: [
      (.int32(0), "0"), (.int32(-5), "-5"), (.string("ten"), "<<\"ten\">>"),
    ] as [(FieldValue, String)])
  func aLengthThatIsNoneIsRefused(_ value: FieldValue, _ told: String) throws {
    #expect(
      mistake {
        try vhost.declare(
          exchange: "x", "x-recent-history", arguments: ["x-recent-history-length": value])
      }
        == .refusedExchange(
          reason: "Invalid argument \(told), 'x-recent-history-length' must be a positive integer"))
    #expect(!vhost.hasExchange("x"))
  }

  @Test func aLengthHasALimit() throws {
    #expect(
      mistake { try declare(10_001) }
        == .refusedExchange(
          reason: "Invalid argument 10001, 'x-recent-history-length' must be at most 10000"))
    try declare(10_000)
  }
}
