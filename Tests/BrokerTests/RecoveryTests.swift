import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

@Suite struct RecoveryTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
  }

  /// A broker that begins on what a crash would leave now, and a client's channel.
  private func afterCrash() throws -> (TestBroker, Channel) {
    broker.quietTurn()
    let crashed = try broker.crashed()
    broker.atClose.append { crashed.close() }
    #expect(!crashed.recovery.wasClean)
    return (crashed, crashed.connect().open())
  }

  // MARK: The catalog

  @Test func durableDeclarationsComeBackAsTheyWere() throws {
    let arguments: FieldTable = [
      "x-max-length": .int64(5), "x-nested": .table(["a": .array([.void, .double(1.5)])]),
    ]
    try channel.declare("q", isDurable: true, arguments: arguments)
    try channel.declare("automatic", isDurable: true, isAutoDelete: true)
    try channel.declare("transient")
    try channel.declare("own", isDurable: true, isExclusive: true)
    let vhost = broker.vhost
    try vhost.declare(
      exchange: "x", "headers", isDurable: true, isAutoDelete: true, isInternal: true,
      arguments: ["alternate-exchange": .string("y"), "other": .bool(true)])
    try vhost.declare(exchange: "y", "fanout", isDurable: true)
    try vhost.declare(exchange: "transient", "fanout")
    try channel.bind("q", to: "x", key: "k", arguments: ["n": .int32(1)])
    try channel.bind("q", to: "transient")
    try channel.bind("transient", to: "y")
    try vhost.bind(exchange: "y", to: "amq.topic", key: "#.k")
    try vhost.bind(exchange: "transient", to: "amq.topic", key: "#")
    let (again, next) = try afterCrash()
    #expect(Set(again.vhost.destinations.keys) == ["q", "automatic"])
    #expect(again.queue("q")?.arguments == arguments)
    #expect(again.queue("q")?.isAutoDelete == false)
    #expect(again.queue("automatic")?.isAutoDelete == true)
    let found = try #require(again.vhost.exchanges["x"])
    #expect(found.kind == .headers)
    #expect(found.isDurable && found.isAutoDelete && found.isInternal)
    #expect(found.arguments == vhost.exchanges["x"]?.arguments)
    #expect(found.alternate == "y")
    #expect(again.vhost.exchanges["transient"] == nil)
    #expect(again.vhost.bindings == 2)
    try next.publish("1", to: "amq.topic", key: "k")
    try next.bind("automatic", to: "y")
    try next.publish("2", to: "amq.topic", key: "a.k")
    #expect(try next.drain("automatic").map(\.text) == ["2"])
    try next.unbind("q", from: "x", key: "k", arguments: ["n": .int32(1)])
    #expect(again.vhost.exchanges["x"] == nil, "it goes with its last binding")
  }

  @Test func whatWasDeletedStaysDeleted() throws {
    try channel.declare("q", isDurable: true)
    try channel.declare("p", isDurable: true)
    try broker.vhost.declare(exchange: "x", isDurable: true)
    try broker.vhost.declare(exchange: "y", isDurable: true, isAutoDelete: true)
    try channel.bind("q", to: "x")
    try channel.bind("p", to: "y")
    try channel.publish("old", key: "q", isPersistent: true)
    broker.durableTurn()
    try channel.delete("q")
    try channel.delete("p")
    try broker.vhost.delete(exchange: "x")
    try channel.declare("q", isDurable: true)
    try channel.publish("new", key: "q", isPersistent: true)
    let (again, next) = try afterCrash()
    #expect(Set(again.vhost.destinations.keys) == ["q"])
    #expect(again.vhost.exchanges["x"] == nil)
    #expect(again.vhost.exchanges["y"] == nil)
    #expect(again.vhost.bindings == 0)
    #expect(try next.drain("q").map(\.text) == ["new"])
  }

  // MARK: Messages

  @Test func onlyPersistentMessagesInDurableQueuesComeBack() throws {
    try channel.declare("durable", isDurable: true)
    try channel.declare("transient")
    for queue in ["durable", "transient"] as [Name] {
      try channel.bind(queue, to: "amq.fanout")
      try channel.publish("persistent", to: "", key: queue, isPersistent: true)
      try channel.publish("not", to: "", key: queue)
    }
    try channel.publish("both", to: "amq.fanout", key: "k", isPersistent: true)
    try channel.publish("not", to: "amq.fanout", key: "k")
    let (again, next) = try afterCrash()
    #expect(again.queue("transient") == nil)
    let taken = try next.drain("durable")
    #expect(taken.map(\.text) == ["persistent", "both"])
    #expect(taken.map(\.message.exchange) == ["", "amq.fanout"])
    again.expectNothingHeld()
  }

  @Test func messagesComeBackWithAllTheirProperties() throws {
    var properties = BasicProperties()
    properties.deliveryMode = 2
    properties.headers = ["n": .int32(1), "CC": .array([.string("other")])]
    properties.messageID = "17"
    try channel.declare("q", isDurable: true)
    try channel.publish("1", key: "q", properties: properties)
    let (_, next) = try afterCrash()
    let message = try #require(try next.take("q")?.message)
    #expect(try BasicProperties(message.properties) == properties)
  }

  @Test func aMessageToManyQueuesLeavesEachByItself() throws {
    for index in 0..<10 {
      try channel.declare(Name("q\(index)"), isDurable: index > 2)
      try channel.bind(Name("q\(index)"), to: "amq.fanout")
    }
    for text in ["1", "2", "3"] {
      try channel.publish(text, to: "amq.fanout", key: "", isPersistent: true)
    }
    _ = try channel.take("q3")
    let first = try channel.take("q4", isAutomatic: false)
    _ = try channel.take("q4", isAutomatic: false)
    try channel.acknowledge(try #require(first?.tag) + 1, isMultiple: false)
    try channel.purge("q5")
    try channel.delete("q6")
    let (again, next) = try afterCrash()
    #expect(try next.drain("q3").map(\.text) == ["2", "3"])
    let rest = try next.drain("q4")
    #expect(rest.map(\.text) == ["1", "3"])
    // The log may have been told ahead of the third, but never behind the first.
    #expect(rest.first?.isRedelivered == true)
    #expect(try next.drain("q5").map(\.text) == [])
    for index in 7..<10 {
      #expect(try next.drain(Name("q\(index)")).map(\.text) == ["1", "2", "3"])
    }
    again.expectNothingHeld()
  }

  /// A record's count of destinations has 16 bits.
  @Test func aMessageMayGoToMoreQueuesThanARecordCanName() throws {
    let count = 65_536 + 3
    for index in 0..<count {
      try channel.declare(Name("q\(index)"), isDurable: index != 7)
      try channel.bind(Name("q\(index)"), to: "amq.fanout")
    }
    try channel.publish("all", to: "amq.fanout", key: "", isPersistent: true)
    broker.finishChores()
    for index in [0, 7, 65_535, 65_538] {
      #expect(try channel.take(Name("q\(index)"))?.text == "all")
    }
    let (again, next) = try afterCrash()
    #expect(again.recoveredCount == count - 4)
    #expect(try next.take("q0") == nil)
    #expect(try next.take("q1")?.text == "all")
    #expect(try next.take("q65536")?.text == "all")
  }

  @Test(arguments: [0, 1, 32_000, 40_000, 300_000, 1 << 20, 3_500_000])
  func bodiesOfAnySizeComeBack(size: Int) throws {
    try channel.declare("q", isDurable: true)
    try channel.declare("p", isDurable: true)
    func body(_ number: Int) -> [UInt8] {
      (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8) &+ number) }
    }
    for number in 0..<5 {
      try channel.publish(body(number), key: "q", isPersistent: true)
      try channel.publish("\(number)", key: "p", isPersistent: true)
      if number == 2 { broker.durableTurn() }
    }
    #expect(try channel.take("q")?.message.body == body(0))
    let (again, next) = try afterCrash()
    #expect(try next.take("q")?.message.body == body(1))
    let once = try again.restarted()
    let last = once.connect().open()
    let bodies = try last.drain("q").map(\.message.body)
    #expect(bodies == (2..<5).map(body))
    #expect(try last.drain("p").map(\.text) == ["0", "1", "2", "3", "4"])
    once.expectNothingHeld()
  }

  @Test func manySettledHereAndThereStayAway() throws {
    try channel.declare("q", isDurable: true)
    for index in 0..<12_000 { try channel.publish("\(index)", key: "q", isPersistent: true) }
    try channel.consume("q", tag: "c")
    broker.durableTurn()
    // More single ranges than one record of settlements holds.
    for tag in stride(from: 2, through: 12_000, by: 2) {
      try channel.acknowledge(UInt64(tag), isMultiple: false)
    }
    let (again, next) = try afterCrash()
    let rest = try next.drain("q")
    #expect(rest.map(\.text) == stride(from: 0, to: 12_000, by: 2).map { "\($0)" })
    #expect(rest.allSatisfy { $0.isRedelivered })
    again.expectNothingHeld()
  }

  // MARK: Redelivered

  @Test func whatWasSeenAndGivenBackWithinATurnIsRedelivered() throws {
    try channel.declare("q", isDurable: true)
    try channel.publish("seen", key: "q", isPersistent: true)
    try channel.publish("unseen", key: "q", isPersistent: true)
    broker.durableTurn()
    try broker.turn {
      _ = try channel.take("q", isAutomatic: false)
      channel.recover()
    }
    let (_, next) = try afterCrash()
    #expect(try next.drain("q").map(\.isRedelivered) == [true, false])
  }

  @Test func aNewMessageIsNotTakenForOneThatWasSeen() throws {
    try channel.declare("q", isDurable: true)
    try channel.publish("1", key: "q", isPersistent: true)
    try channel.publish("transient", key: "q")
    for _ in 0..<2 { _ = try channel.take("q", isAutomatic: false) }
    let (again, next) = try afterCrash()
    try next.publish("2", key: "q", isPersistent: true)
    again.quietTurn()
    let once = try again.crashed()
    let rest = try once.connect().open().drain("q")
    #expect(rest.map(\.text) == ["1", "2"])
    #expect(rest.map(\.isRedelivered) == [true, false])
  }

  // MARK: Checkpoints

  @Test func segmentsOfWhatWasConsumedAreUsedAgain() throws {
    try channel.declare("q", isDurable: true)
    try channel.declare("p", isDurable: true)
    try channel.bind("q", to: "amq.direct", key: "k")
    let body = [UInt8](repeating: 7, count: 20_000)
    for _ in 0..<40 {
      try broker.durableTurn {
        for _ in 0..<20 { try channel.publish(body, key: "q", isPersistent: true) }
        try channel.purge("q")
      }
    }
    broker.quietTurn()
    #expect(broker.journal.statistics.checkpoints > 3)
    #expect(broker.journal.statistics.segmentsRecycled > 8)
    let segments = try FileSystem.list(broker.directory.path).filter { $0.hasSuffix(".segment") }
    #expect(segments.count < 10, "\(segments)")
    let sequence = broker.queue("q")?.lane.nextSequence
    let (again, next) = try afterCrash()
    #expect(again.queue("q")?.lane.nextSequence == sequence, "sequences are never used again")
    #expect(Set(again.vhost.destinations.keys) == ["q", "p"])
    try next.publish("1", to: "amq.direct", key: "k", isPersistent: true)
    #expect(try next.drain("q").map(\.text) == ["1"])
    try next.declare("new", isDurable: true)
    #expect(Set(again.vhost.destinations.values.map(\.id)).count == 3, "nor are ids")
  }

  @Test func anOldMessageOutlivesManySegments() throws {
    try channel.declare("old", isDurable: true)
    try channel.declare("q", isDurable: true)
    try channel.publish("old", key: "old", isPersistent: true)
    let body = [UInt8](repeating: 7, count: 200_000)
    for _ in 0..<30 {
      try broker.durableTurn {
        try channel.publish(body, key: "q", isPersistent: true)
        try channel.purge("q")
      }
    }
    let (again, next) = try afterCrash()
    #expect(try next.drain("old").map(\.text) == ["old"])
    #expect(try next.drain("q").map(\.text) == [])
    again.expectNothingHeld()
  }

  // MARK: Memory

  @Test func whatIsNotInMemoryIsReadBack() throws {
    var settings = Journal.Settings.quick
    settings.cacheBytes = 0
    let broker = try TestBroker(settings: settings)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("q", isDurable: true)
    let texts = (0..<300).map { "\($0):" + String(repeating: "x", count: $0 * 37) }
    for text in texts {
      try channel.publish(text, key: "q", isPersistent: true)
      if text.count.isMultiple(of: 5) { broker.durableTurn() }
    }
    broker.durableTurn()
    #expect(broker.journal.statistics.blocksDropped > 0)
    #expect(broker.journal.memoryBytes <= BlockMemory.usualBytes)
    try channel.consume("q", tag: "c")
    broker.durableTurn()
    #expect(client.bodies() == texts)
    #expect(broker.journal.statistics.blocksReadBack > 0)
    try channel.acknowledge(0, isMultiple: true)
    broker.expectNothingHeld()
  }

  @Test func aMessageThatCannotBeReadStaysInItsQueue() throws {
    var settings = Journal.Settings.quick
    settings.cacheBytes = 0
    let broker = try TestBroker(settings: settings)
    let client = broker.connect()
    let channel = client.open()
    for name in ["q", "p"] as [Name] { try channel.declare(name, isDurable: true) }
    try broker.durableTurn {
      for _ in 0..<3 {
        try channel.publish([UInt8](repeating: 1, count: 400_000), key: "q", isPersistent: true)
      }
    }
    try broker.directory.vanish()
    let error = mistake { _ = try channel.take("q") }
    #expect(error == .unreadable(queue: "q"))
    try channel.consume("q", tag: "c")
    try channel.consume("p", tag: "d")
    try broker.turn { try channel.publish("m", key: "p") }
    #expect(client.bodies() == ["m"], "others are served")
    #expect(broker.queue("q")?.readyCount == 3)
    #expect(broker.takeProblem()?.hasPrefix("messages could not be read back") == true)
  }
}
