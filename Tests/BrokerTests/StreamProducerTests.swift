import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Streams that have a message once, however often its producer sends it.
@Suite struct StreamProducerTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving(disk)
    client = broker.connect()
    channel = client.open()
    try channel.declareStream()
  }

  private func headers(_ producer: String, _ sequence: Int) -> FieldTable {
    ["x-stream-producer": .string(producer), "x-stream-sequence": .int64(Int64(sequence))]
  }

  /// A message whose text is its producer and its sequence.
  private func publish(
    _ producer: String = "p", _ sequence: Int, to stream: Name = "s", on other: Channel? = nil
  ) throws {
    try (other ?? channel).publish(
      "\(producer)\(sequence)", key: stream, headers: headers(producer, sequence))
  }

  private func publish(all sequences: [Int], of producer: String = "p") throws {
    try broker.durableTurn { for sequence in sequences { try publish(producer, sequence) } }
  }

  private func records(_ names: [Int], _ producer: String = "p") -> [String] {
    names.map { "\(producer)\($0)" }
  }

  // MARK: What is stored

  @Test func whatIsRepeatedIsStoredOnce() throws {
    try publish(all: [0, 1, 1, 0, 5, 3, 5, 6])
    try broker.expect(["p0", "p1", "p5", "p6"])
    try broker.moveOut(channel)
    try publish(all: [6, 2, 7])
    try broker.expect(["p0", "p1", "p5", "p6", "p7"])
  }

  @Test func producersHaveSequencesOfTheirOwnInEachStream() throws {
    try channel.declareStream("t")
    try publish(all: [3], of: "p")
    try publish(all: [1, 2], of: "r")
    try broker.durableTurn {
      try publish("p", 1, to: "t")
      try channel.publish("plain", key: "s")
      try channel.publish("plain", key: "s", headers: ["x-stream-sequence": .int32(1)])
    }
    try broker.expect(["p3", "r1", "r2", "plain", "plain"])
    try broker.expect(["p1"], in: "t")
  }

  /// A message that a stream refuses is in none of the others either, however many there are.
  @Test(arguments: [1, WideStore.queuesMax + 1])
  func aMistakeIsRefusedBeforeAnythingIsStored(queues: Int) throws {
    try channel.bind("s", to: "amq.fanout")
    for number in 0..<queues {
      try channel.declare(Name("q\(number)"))
      try channel.bind(Name("q\(number)"), to: "amq.fanout")
    }
    #expect(throws: BrokerError.self) {
      try channel.publish(
        "m", to: "amq.fanout", key: "", headers: ["x-stream-producer": .string("p")])
    }
    broker.finishChores()
    #expect(broker.queue("q0")?.readyCount == 0)
    #expect(broker.stream()?.readyCount == 0)
  }

  @Test func partitionsShareWhatIsKnown() throws {
    try channel.declareStream("many", ["x-stream-partitions": .int32(4)])
    try broker.vhost.declare(exchange: "x", "fanout")
    try channel.bind("many", to: "x")
    try broker.durableTurn {
      for sequence in [0, 1, 2, 3, 4, 5, 6, 7, 2, 7] {
        try channel.publish(
          "\(sequence)", to: "x", key: Name("\(sequence)"), headers: headers("p", sequence))
      }
    }
    #expect(broker.stream("many")?.readyCount == 8)
  }

  /// What else gets the message gets it each time.
  @Test func otherDestinationsGetWhatIsRepeated() throws {
    try broker.vhost.declare(exchange: "x", "fanout")
    try channel.declare("q")
    for name in ["s", "q"] as [Name] { try channel.bind(name, to: "x") }
    try broker.durableTurn {
      for sequence in [1, 1, 2] {
        try channel.publish("\(sequence)", to: "x", key: "", headers: headers("p", sequence))
      }
    }
    try broker.expect(["1", "2"])
    #expect(try channel.drain("q").map(\.text) == ["1", "1", "2"])
  }

  /// They come in an order of their own.
  @Test func whatTheBrokerMovesIsNotLookedAt() throws {
    try channel.declare(
      "q",
      arguments: [
        "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("s"),
      ])
    for sequence in [1, 2] { try publish("p", sequence, to: "q") }
    let first = try #require(try channel.take("q", isAutomatic: false))
    let second = try #require(try channel.take("q", isAutomatic: false))
    for delivery in [second, first] {
      try broker.durableTurn {
        try channel.reject(delivery.tag, isMultiple: false, requeues: false)
      }
      broker.work()
    }
    try publish(all: [1])
    try broker.expect(["p2", "p1", "p1"])
  }

  @Test func mistakesAreRefused() throws {
    let bad: [(FieldTable, String)] = [
      (
        ["x-stream-producer": .int32(1), "x-stream-sequence": .int32(1)],
        "{unacceptable_type_in_header,<<\"x-stream-producer\">>,signedint}"
      ),
      (
        ["x-stream-producer": .string(""), "x-stream-sequence": .int32(1)],
        "\"expected a producer's name of 1 to 255 bytes\""
      ),
      (
        [
          "x-stream-producer": .string(String(repeating: "x", count: 256)),
          "x-stream-sequence": .int32(1),
        ], "\"expected a producer's name of 1 to 255 bytes\""
      ),
      (["x-stream-producer": .string("p")], "\"a message of a producer lacks x-stream-sequence\""),
      (
        ["x-stream-producer": .string("p"), "x-stream-sequence": .string("1")],
        "{unacceptable_type_in_header,<<\"x-stream-sequence\">>,longstr}"
      ),
      (
        ["x-stream-producer": .string("p"), "x-stream-sequence": .int32(-1)],
        "{value_negative,-1}"
      ),
    ]
    let committing = client.open()
    try committing.startTransactions()
    try channel.declare("q")
    for (headers, reason) in bad {
      let error = BrokerError.refusedMessage(reason: reason)
      #expect(throws: error) { try channel.publish("x", key: "s", headers: headers) }
      try committing.publish("x", key: "s", headers: headers)
      #expect(throws: error) { try committing.commit() }
      try channel.publish("x", key: "q", headers: headers)
    }
    broker.durableTurn()
    try broker.expect([])
    #expect(try channel.drain("q").count == bad.count, "to queues they mean nothing")
  }

  // MARK: What is promised

  /// The first one is not in the log yet: its repetition says that it is.
  @Test func aRepeatedOneIsConfirmedWhenTheFirstIsDurable() throws {
    let other = broker.connect()
    let repeating = other.open()
    try repeating.startConfirming()
    broker.durableTurn()
    _ = other.events()
    try broker.turn {
      try publish("p", 1)
      try publish("p", 1, on: repeating)
      #expect(other.events() == [])
    }
    #expect(other.events() == [])
    broker.durableTurn()
    #expect(other.events() == [.confirmed(1, isMultiple: false, on: 1)])
    try broker.durableTurn { try publish("p", 1, on: repeating) }
    #expect(other.events() == [.confirmed(2, isMultiple: false, on: 1)])
    try broker.expect(["p1"])
  }

  /// Wherever the log ends, the message and what is known of it are both there or both not.
  @Test func messageAndSequenceAreOneInTheLog() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    try channel.declareStream()
    try broker.durableTurn { try publish("p", 1, on: channel) }
    let begin = broker.journal.durablePosition
    try broker.durableTurn { try publish("p", 2, on: channel) }
    var found: Set<Int> = []
    for position in begin...broker.journal.durablePosition {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      found.insert(other.stream()?.readyCount ?? 0)
      let again = other.connect().open()
      try other.durableTurn { for sequence in [1, 2] { try publish("p", sequence, on: again) } }
      try other.expect(["p1", "p2"])
      other.close()
    }
    #expect(found == [1, 2])
  }

  /// By the log, by a checkpoint, and by both.
  @Test func whatIsKnownSurvives() throws {
    try publish(all: [1, 2], of: "p")
    let first = try broker.crashed(settings: .moving)
    try first.durableTurn {
      let channel = first.connect().open()
      for sequence in [2, 3] { try publish("p", sequence, on: channel) }
    }
    let second = try first.restarted(settings: .moving)
    let channel = second.connect().open()
    try second.durableTurn { for sequence in [3, 4] { try publish("p", sequence, on: channel) } }
    try second.moveOut(channel)
    #expect(second.journal.statistics.checkpoints > 0)
    try second.durableTurn { try publish("p", 5, on: channel) }
    let third = try second.crashed(settings: .moving)
    let last = third.connect().open()
    try third.durableTurn { for sequence in 1...6 { try publish("p", sequence, on: last) } }
    try third.expect(records(Array(1...6)))
  }

  @Test func aCommitStoresWhatIsNew() throws {
    let committing = client.open()
    try committing.startTransactions()
    try broker.durableTurn {
      try publish("p", 1, on: committing)
      try committing.rollback()
      for sequence in [1, 2, 2, 1, 3] { try publish("p", sequence, on: committing) }
      _ = try committing.commit()
    }
    try broker.durableTurn {
      for sequence in [3, 4] { try publish("p", sequence, on: committing) }
      _ = try committing.commit()
    }
    try broker.expect(["p1", "p2", "p3", "p4"])
    let again = try broker.crashed(settings: .moving)
    let other = again.connect().open()
    try again.durableTurn { for sequence in [4, 5] { try publish("p", sequence, on: other) } }
    try again.expect(["p1", "p2", "p3", "p4", "p5"])
  }

  // MARK: Bounds

  /// Those that have published longest ago go.
  @Test func producersHaveALimit() throws {
    let max = BrokerLimits.streamProducersMax
    let empty = broker.broker.account[.remembered]
    for number in 0..<max { try publish(all: [7], of: "a\(number)-") }
    try publish(all: [8], of: "a0-")
    let full = broker.broker.account[.remembered]
    #expect(full > empty + max * 10)
    try publish(all: [1], of: "new")
    #expect(broker.broker.account[.remembered] < full)
    let count = try #require(broker.stream()?.readyCount)
    try publish(all: [8], of: "a0-")
    try publish(all: [7], of: "a\(max - 1)-")
    #expect(broker.stream()?.readyCount == count, "they are known")
    try publish(all: [7], of: "a1-")
    #expect(broker.stream()?.readyCount == count + 1, "it was forgotten")
    try channel.delete("s")
    #expect(broker.broker.account[.remembered] == empty)
    try channel.declareStream()
    try publish(all: [8], of: "a0-")
    try broker.expect(["a0-8"])
  }
}
