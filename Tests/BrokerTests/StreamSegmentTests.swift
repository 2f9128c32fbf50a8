import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Records of streams move out of the log into segments, and nothing else changes.
@Suite struct StreamSegmentTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving(disk)
    channel = broker.connect().open()
    try channel.declareStream()
  }

  private func texts(_ range: Range<Int>, size: Int = 1000) -> [String] {
    range.map { "\($0):" + String(repeating: "x", count: size) }
  }

  private func publish(_ texts: [String], to stream: Name = "s") throws {
    for text in texts { try channel.publish(text, key: stream) }
  }

  // MARK: Moving

  @Test(arguments: [0, 1, 1000, 33_000, 70_000, 300_000, 1 << 20, 3_500_000])
  func recordsOfAnySizeMove(size: Int) throws {
    func body(_ number: Int) -> [UInt8] {
      (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8) &+ number) }
    }
    let count = size > 1 << 20 ? 2 : 5
    for number in 0..<count { try channel.publish(body(number), key: "s") }
    try broker.moveOut(channel)
    #expect(try broker.partition().recentStart == UInt64(count))
    #expect(broker.hasMoved)
    for broker in [broker, try broker.crashed(settings: .moving)] {
      let client = broker.connect()
      let reader = client.open()
      _ = try reader.consume(
        "s", tag: "r", isAutomatic: true, isExclusive: false,
        arguments: ["x-stream-offset": .string("first")])
      var bodies: [[UInt8]] = []
      for _ in 0..<20 where bodies.count < count {
        broker.work(1)
        bodies += client.deliveries().map(\.message.body)
      }
      #expect(bodies == (0..<count).map(body))
      #expect(broker.takeProblem() == nil)
    }
  }

  @Test func propertiesAndNamesMoveWithThem() throws {
    var properties = BasicProperties()
    properties.messageID = "m"
    properties.headers = ["a": .string("b"), "n": .int64(-5)]
    properties.deliveryMode = 1
    try channel.bind("s", to: "amq.topic", key: "#")
    try channel.publish("text", to: "amq.topic", key: "some.key", properties: properties)
    func read() throws -> Message? {
      let client = broker.connect()
      defer { client.close() }
      _ = try client.open().consume(
        "s", tag: "r", isAutomatic: true, isExclusive: false,
        arguments: ["x-stream-offset": .string("first")])
      broker.work(4)
      return client.deliveries().first?.message
    }
    let hot = try #require(try read())
    try broker.moveOut(channel)
    #expect(try broker.partition().recentStart == 1)
    #expect(try read() == hot)
    #expect(hot.exchange == "amq.topic" && hot.key == "some.key")
  }

  @Test func readersGoFromSegmentsIntoTheLog() throws {
    try publish(texts(0..<500))
    try broker.moveOut(channel)
    let moved = try broker.partition().recentStart
    #expect(moved == 500)
    try publish(texts(500..<600))
    try broker.expect(texts(0..<600))
    for offset in [0, 1, 63, 64, 255, 256, 499, 500, 550] as [Int64] {
      let reader = try StreamReader(broker, from: .int64(offset))
      #expect(try reader.rest().map(\.offset) == Array(offset..<600), "from \(offset)")
      reader.close()
    }
    #expect(broker.takeProblem() == nil)
  }

  /// Of a segment the batches before the time are not read, and nobody has missed them.
  @Test func aTimeInASegmentIsAPlaceToBegin() throws {
    try publish(texts(0..<300))
    try broker.moveOut(channel)
    broker.advance(milliseconds: 5000)
    let date = UInt64(broker.broker.now / 1000 + 2)
    broker.advance(milliseconds: 5000)
    // What is published now has the date of this turn.
    broker.durableTurn()
    try publish(texts(300..<500))
    try broker.moveOut(channel)
    #expect(try broker.partition().recentStart == 500)
    let reader = try StreamReader(broker, from: .timestamp(date))
    let found = try reader.rest()
    #expect(found.map(\.offset) == Array(300..<500))
    #expect(found.allSatisfy { $0.skipped == nil })
  }

  /// What a reader has in its queue when it moves is looked up anew; nothing comes twice, or not at all.
  @Test func aReaderInTheMiddleOfARoundMissesNothing() throws {
    let reader = try StreamReader(broker, prefetch: 3)
    try publish(texts(0..<400))
    var found = try reader.rest()
    #expect(found.map(\.offset) == [0, 1, 2])
    try broker.moveOut(channel)
    #expect(try broker.partition().recentStart == 400)
    while found.count < 400, let last = found.last {
      try reader.channel.acknowledge(last.tag, isMultiple: true)
      let more = try reader.read(3)
      if more.isEmpty { break }
      found += more
    }
    #expect(found.map(\.offset) == Array(0..<400))
    #expect(found.map(\.text) == texts(0..<400))
    #expect(!found.contains { $0.isRedelivered })
  }

  /// Readers read on while records leave memory, slice by slice.
  @Test func aReaderWithinTheSlicesOfARoundFindsAll() throws {
    var limits = BrokerLimits()
    limits.walkStepsPerTurn = 4
    let broker = try TestBroker(settings: .moving, limits: limits, disk: FaultyDisk())
    let channel = broker.connect().open()
    try channel.declareStream()
    let reader = try StreamReader(broker, prefetch: 1)
    for number in 0..<1500 { try channel.publish("\(number)", key: "s") }
    var found = try reader.rest()
    try broker.age(channel)
    var slices = 0
    var turns = 0
    var acknowledged = 0
    while found.count < 1500, turns < 20_000 {
      turns += 1
      if let last = found.last, acknowledged < found.count {
        acknowledged = found.count
        try reader.channel.acknowledge(last.tag, isMultiple: true)
      }
      broker.work(1)
      if broker.broker.mover != nil { slices += 1 }
      found += try reader.taken()
    }
    #expect(slices > 3, "records left memory in slices")
    #expect(found.map(\.offset) == Array(0..<1500))
    #expect(try broker.partition().recentStart > 0)
  }

  @Test func whatIsGivenBackComesFromWhereItIs() throws {
    try publish(texts(0..<100))
    let reader = try StreamReader(broker, prefetch: 100)
    let first = try reader.rest()
    #expect(first.count == 100)
    try broker.moveOut(channel)
    try publish(texts(100..<110))
    broker.durableTurn()
    for index in [90, 10, 50, 0] {
      try reader.channel.reject(first[index].tag, isMultiple: false, requeues: true)
    }
    let again = try reader.read(4)
    #expect(again.map(\.offset) == [0, 10, 50, 90])
    #expect(again.map(\.text) == [0, 10, 50, 90].map { first[$0].text })
    #expect(again.map(\.isRedelivered) == again.map { _ in true })
    try reader.channel.acknowledge(again[3].tag, isMultiple: true)
    #expect(try reader.rest().map(\.offset) == Array(100..<110))
  }

  @Test func whatReadersHaveOutKeepsNoSegmentOfTheLog() throws {
    try publish(texts(0..<400))
    let reader = try StreamReader(broker, prefetch: 50)
    #expect(try reader.rest().count == 50)
    try broker.moveOut(channel)
    #expect(broker.journal.segments.first > 0, "what is out with a reader keeps nothing")
    try broker.moveOut(channel)
    #expect(broker.hasMoved)
    #expect(broker.takeProblem() == nil)
  }

  @Test func aMessageMovesIntoQueuesAndStreams() throws {
    try channel.declare("q", isDurable: true)
    for name in ["q", "s"] as [Name] { try channel.bind(name, to: "amq.fanout") }
    for text in texts(0..<200) {
      try channel.publish(text, to: "amq.fanout", key: "k", isPersistent: true)
    }
    try broker.moveOut(channel)
    #expect(broker.hasMoved)
    #expect(try broker.files(".lanes").count == 1)
    try broker.expect(texts(0..<200))
    let again = try broker.crashed(settings: .moving)
    #expect(try again.connect().open().drain("q").map(\.text) == texts(0..<200))
    try again.expect(texts(0..<200))
  }

  // MARK: Segments

  @Test func aSegmentThatIsFullIsFollowedByAnother() throws {
    try channel.declareStream("small", ["x-stream-max-segment-size-bytes": .int64(100_000)])
    for round in 0..<6 {
      try publish(texts(round * 100..<round * 100 + 100), to: "small")
      try broker.moveOut(channel)
    }
    let partition = try broker.partition(of: "small")
    #expect(partition.segments.count > 4)
    #expect(partition.segments[0].base == 0)
    for (segment, next) in zip(partition.segments, partition.segments.dropFirst()) {
      #expect(segment.end == next.base)
      #expect(segment.bytes >= 100_000)
    }
    #expect(try broker.streamFiles().count == partition.segments.count)
    #expect(try broker.streamFiles(".index").count == partition.segments.count)
    try broker.expect(texts(0..<600), in: "small")
    for offset in partition.segments.flatMap({ [$0.base, $0.end - 1] }) {
      let reader = try StreamReader(broker, "small", from: .int64(Int64(offset)))
      #expect(try reader.read(1).first?.offset == Int64(offset))
      reader.close()
    }
    let again = try broker.crashed(settings: .moving)
    try again.expect(texts(0..<600), in: "small")
  }

  @Test func segmentsGrowOverManyRounds() throws {
    for round in 0..<10 {
      try publish(texts(round * 20..<round * 20 + 20))
      try broker.moveOut(channel)
    }
    #expect(try broker.partition().segments.count == 1)
    #expect(try broker.streamFiles().count == 1)
    try broker.expect(texts(0..<200))
  }

  @Test func whatIsDeletedLeavesNoFiles() throws {
    try channel.declareStream("other")
    try publish(texts(0..<200))
    try publish(texts(0..<200), to: "other")
    try broker.moveOut(channel)
    #expect(try broker.streamFiles().count == 2)
    try channel.delete("s")
    broker.durableTurn()
    broker.drainWorkers()
    #expect(try broker.streamFiles().count == 1)
    #expect(try broker.streamFiles(".index").count == 1)
    try broker.expect(texts(0..<200), in: "other")
  }

  /// The files of a stream go with its deletion, and not before that is durable.
  @Test func aDeletionThatIsNotDurableTakesNothingAway() throws {
    try publish(texts(0..<200))
    try broker.moveOut(channel)
    broker.durableTurn()
    let gate = try Gate(disk, .write, ".segment")
    try broker.turn { _ = try channel.delete("s") }
    gate.waitUntilReached()
    for _ in 0..<3 { broker.turn() }
    #expect(try broker.streamFiles().count == 1)
    let again = try TestBroker(
      in: broker.directory.copy(), settings: .moving, disk: FaultyDisk())
    try again.expect(texts(0..<200))
    gate.open()
    broker.durableTurn()
    broker.drainWorkers()
    #expect(try broker.streamFiles().isEmpty)
  }

  @Test func thousandsOfPartitionsMoveInOneRound() throws {
    for number in 0..<4 {
      try channel.declareStream(Name("p\(number)"), ["x-stream-partitions": .int32(1024)])
      try channel.bind(Name("p\(number)"), to: "amq.fanout")
    }
    for number in 0..<20_000 {
      try channel.publish("\(number)", to: "amq.fanout", key: Name("k\(number % 4000)"))
      if number % 2000 == 0 { broker.durableTurn() }
    }
    let spills = broker.journal.statistics.spills
    try broker.moveOut(channel)
    #expect(broker.journal.statistics.spills > spills)
    #expect(broker.hasMoved)
    let moved = broker.broker.partitions.count { $0.recentStart > 0 }
    #expect(moved > 3900, "\(moved)")
    for broker in [broker, try broker.crashed(settings: .moving)] {
      let found = try StreamReader(broker, "p2").rest()
      #expect(found.count == 20_000)
      #expect(Set(found.map(\.text)).count == 20_000)
      #expect(broker.takeProblem() == nil)
    }
  }
}
