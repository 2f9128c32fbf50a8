import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Streams get more partitions.
@Suite struct StreamGrowthTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
    try channel.declareStream("s", ["x-stream-partitions": .int32(2)])
    try channel.bind("s", to: "amq.fanout", key: "")
  }

  private func publish(_ range: Range<Int>, in broker: TestBroker? = nil) throws {
    let broker = broker ?? self.broker
    let channel = broker === self.broker ? channel : broker.connect().open()
    try broker.durableTurn {
      for number in range {
        try channel.publish("\(number)", to: "amq.fanout", key: Self.key(number))
      }
    }
  }

  private static func key(_ number: Int) -> Name { Name("k\(number % 40)") }

  /// The partition of a record's key among so many.
  private static func partition(_ number: Int, of count: Int) -> Int64 {
    let key = key(number).bytes
    return Int64(Murmur2.partition(of: key.span.bytes, count: count))
  }

  @discardableResult
  private func add(
    _ count: Int, to stream: Name = "s", in broker: TestBroker? = nil
  ) throws -> Int {
    let broker = broker ?? self.broker
    var found: Result<Int, StreamProblem>?
    broker.turn { broker.vhost.addPartitions(count, toStream: stream) { found = $0 } }
    broker.finishChores()
    broker.durableTurn()
    return try #require(found).get()
  }

  private func expectAll(
    _ texts: Range<Int>, _ records: [StreamRecord],
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(
      Set(records.map(\.text)) == Set(texts.map(String.init)), sourceLocation: sourceLocation)
    #expect(records.count == texts.count, sourceLocation: sourceLocation)
    for (_, of) in Dictionary(grouping: records, by: \.partition) {
      #expect(
        of.map(\.offset) == of.indices.map { Int64($0) }, "no gap and no repeat",
        sourceLocation: sourceLocation)
    }
  }

  // MARK: Records

  /// What is there stays where it is; what comes goes where its key belongs among all.
  @Test func recordsGoWhereTheirKeysBelong() throws {
    try publish(0..<100)
    #expect(try add(3) == 5)
    try publish(100..<300)
    let records = try broker.readAll()
    expectAll(0..<300, records)
    for record in records {
      let number = try #require(Int(record.text))
      #expect(record.partition == Self.partition(number, of: number < 100 ? 2 : 5))
    }
    #expect(Set(records.map(\.partition)) == [0, 1, 2, 3, 4])
  }

  @Test func theySurviveCrashesCheckpointsAndRestarts() throws {
    try publish(0..<100)
    try add(2)
    try publish(100..<200)
    expectAll(0..<200, try broker.crashed().readAll())
    let again = try broker.restarted().restarted()
    #expect(again.stream()?.partitions.count == 4)
    expectAll(0..<200, try again.readAll())
    try add(1, in: again)
    try publish(200..<300, in: again)
    let crashed = try again.crashed()
    expectAll(0..<300, try crashed.readAll())
    #expect(crashed.stream()?.partitions.map(\.index) == [0, 1, 2, 3, 4])
  }

  /// A checkpoint that had begun knows nothing of them; the log does.
  @Test func theyComeDuringACheckpoint() throws {
    var limits = BrokerLimits()
    limits.walkStepsPerTurn = 16
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    for number in 0..<30 { try channel.declare(Name("q\(number)"), isDurable: true) }
    try channel.declareStream("s", ["x-stream-partitions": .int32(2)])
    try channel.bind("s", to: "amq.fanout", key: "")
    try publish(0..<100, in: broker)
    broker.quietTurn()
    broker.broker.beginCheckpoint()
    for round in 1...6 {
      try add(1, in: broker)
      try publish(round * 100..<round * 100 + 100, in: broker)
      broker.turn()
    }
    broker.quietTurn()
    let crashed = try broker.crashed()
    #expect(crashed.stream()?.partitions.count == 8)
    expectAll(0..<700, try crashed.readAll())
  }

  @Test func theyMoveIntoSegments() throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declareStream()
    try channel.bind("s", to: "amq.fanout", key: "")
    try publish(0..<100, in: broker)
    try add(2, in: broker)
    try publish(100..<400, in: broker)
    try broker.moveOut(channel)
    let partitions = try #require(broker.stream()).partitions
    #expect(partitions.allSatisfy { !$0.segments.isEmpty })
    try publish(400..<500, in: broker)
    expectAll(0..<500, try broker.readAll())
    expectAll(0..<500, try broker.crashed(settings: .moving).readAll())
  }

  /// Wherever the log ends, all that were added are there, or none.
  @Test func aCrashFindsAllOrNone() throws {
    try publish(0..<20)
    let begin = broker.journal.endPosition
    try add(4)
    try publish(20..<60)
    let end = broker.journal.endPosition
    var counts: Set<Int> = []
    for position in stride(from: begin, through: end, by: 8) {
      let cut = try TestBroker(in: LogCutTests.cut(broker, at: position))
      let stream = try #require(cut.stream())
      counts.insert(stream.partitions.count)
      #expect(stream.readyCount == 20 || stream.partitions.count == 6)
    }
    #expect(counts == [2, 6])
  }

  // MARK: Readers

  @Test func readersOfAllReadThem() throws {
    try publish(0..<50)
    let first = try StreamReader(broker)
    let next = try StreamReader(broker, from: .string("next"), prefetch: 1000)
    let behind = try StreamReader(broker, from: .int64(1_000_000))
    let one = try StreamReader(broker, partition: 1)
    let before = try first.rest()
    let ofOne = try one.rest()
    #expect(before.count == 50)
    try add(3)
    try publish(50..<250)
    expectAll(0..<250, before + (try first.rest()))
    let came = try next.rest()
    #expect(Set(came.map(\.text)) == Set((50..<250).map(String.init)) && came.count == 200)
    #expect(try behind.rest().allSatisfy { $0.partition ?? 0 >= 2 }, "from their first record on")
    #expect((ofOne + (try one.rest())).allSatisfy { $0.partition == 1 })
    // What is given back comes again.
    let again = try #require(came.last { $0.partition == 4 })
    try next.channel.reject(again.tag, isMultiple: false, requeues: true)
    #expect(try next.rest().map(\.text) == [again.text])
  }

  /// Headers name partitions from then on.
  @Test func oneBecomesMany() throws {
    try channel.declareStream("one")
    try channel.bind("one", to: "amq.fanout", key: "")
    let reader = try StreamReader(broker, "one")
    try publish(0..<10)
    #expect(try reader.rest().allSatisfy { $0.partition == nil })
    try add(1, to: "one")
    try publish(10..<50)
    let records = try reader.rest()
    #expect(Set(records.map(\.partition)) == [0, 1] && records.count == 40)
  }

  // MARK: Groups

  @Test func membersShareThem() throws {
    try publish(0..<50)
    let members = try (0..<3).map { _ in try StreamReader(broker, group: "g", prefetch: 1000) }
    func take() throws -> [[StreamRecord]] {
      try members.map { member in
        let records = try member.rest()
        for record in records {
          try member.channel.acknowledge(record.tag, isMultiple: false)
        }
        broker.durableTurn()
        return records
      }
    }
    var all = try take()
    #expect(all[2].isEmpty, "it stands by")
    try add(4)
    try publish(50..<450)
    let more = try take()
    let shares = more.map { Set($0.compactMap(\.partition)) }
    #expect(shares.map(\.count) == [2, 2, 2])
    #expect(shares.reduce(Set()) { $0.union($1) }.count == 6, "each partition has one reader")
    all = zip(all, more).map { $0 + $1 }
    expectAll(0..<450, all.flatMap { $0 })
    let group = try #require(broker.stream()?.groups["g"])
    #expect((0..<6).allSatisfy { group.lag($0) == 0 })
    let crashed = try broker.crashed()
    let survivor = try StreamReader(crashed, group: "g", prefetch: 100)
    #expect(try survivor.rest().isEmpty)
    #expect(
      crashed.stream()?.groups["g"].map { group in (0..<6).allSatisfy { group.lag($0) == 0 } }
        == true)
  }

  /// A group that nobody is a member of reads them from their first record on, whatever happens meanwhile.
  @Test(arguments: [0, 1, 2]) func aGroupWithoutMembersReadsThem(restarts: Int) throws {
    try publish(0..<50)
    let reader = try StreamReader(broker, from: .string("next"), group: "g", prefetch: 1000)
    reader.close()
    broker.durableTurn()
    try add(3)
    try publish(50..<250)
    var last = broker
    for _ in 0..<restarts { last = try last.restarted() }
    let group = try #require(last.stream()?.groups["g"])
    #expect((0..<5).reduce(0) { $0 + group.lag($1) } == 200)
    #expect(group.committed(4) == 0 && group.holder(4) == nil)
    let records = try StreamReader(last, group: "g", prefetch: 1000).rest()
    #expect(Set(records.map(\.text)) == Set((50..<250).map(String.init)) && records.count == 200)
  }

  @Test func aGroupIsResetInThem() throws {
    try publish(0..<50)
    try StreamReader(broker, group: "g", prefetch: 1000).close()
    broker.durableTurn()
    try add(1)
    try publish(50..<150)
    var moved: Result<[StreamGroupMove], StreamProblem>?
    broker.turn {
      broker.vhost.resetStreamGroup(
        "g", of: "s", to: .string("next"), partition: nil, for: channel.peer
      ) { moved = $0 }
    }
    broker.finishChores()
    broker.durableTurn()
    let ends = try #require(broker.stream()).partitions.map(\.visibleEnd)
    #expect(try #require(moved).get().map(\.to) == ends)
    #expect(try StreamReader(try broker.crashed(), group: "g", prefetch: 10).rest().isEmpty)
  }

  // MARK: Limits

  /// Partitions are given to readers between turns; some go before it is their turn.
  @Test func readersGoMeanwhile() throws {
    var limits = BrokerLimits()
    limits.choreStepsPerTurn = 8
    let broker = try TestBroker(settings: .moving, limits: limits, disk: FaultyDisk())
    let owner = broker.connect().open()
    try owner.declareStream()
    let readers = try (0..<40).map { _ in try StreamReader(broker) }
    var total: Int?
    broker.turn { broker.vhost.addPartitions(6, toStream: "s") { total = try? $0.get() } }
    for reader in readers.dropLast() { reader.close() }
    broker.finishChores()
    broker.durableTurn()
    #expect(total == 7)
    #expect(broker.stream()?.consumerCount == 1)
    try owner.bind("s", to: "amq.fanout")
    for number in 0..<70 { try owner.publish("m", to: "amq.fanout", key: Name("\(number)")) }
    broker.durableTurn()
    #expect(try readers[39].rest().count == 70)
  }

  @Test func whatIsNotPossibleIsRefused() throws {
    try channel.declare("q")
    let tooMany = StreamProblem.tooManyPartitions(present: 2, max: 1024)
    for count in [1023, .max] {
      #expect(throws: tooMany, "\(count)") { try add(count) }
    }
    #expect(throws: StreamProblem.noSuchStream) { try add(1, to: "x") }
    #expect(throws: StreamProblem.isQueue) { try add(1, to: "q") }
    #expect(broker.stream()?.partitions.count == 2)
    #expect(try add(1022) == 1024)
    #expect(throws: StreamProblem.tooManyPartitions(present: 1024, max: 1024)) { try add(1) }
  }

  @Test func aLogThatFailsIsTold() throws {
    let disk = FaultyDisk()
    var settings = Journal.Settings.quick
    settings.isSynced = true
    let broker = try TestBroker(settings: settings, disk: disk)
    try broker.connect().open().declareStream()
    broker.durableTurn()
    disk.fail(.write, ".segment", code: 5)
    var found: [Result<Int, StreamProblem>] = []
    broker.turn { broker.vhost.addPartitions(1, toStream: "s") { found.append($0) } }
    broker.turns { broker.journal.failure != nil }
    let reason = try #require(broker.journal.failure)
    broker.turn { broker.vhost.addPartitions(1, toStream: "s") { found.append($0) } }
    #expect(found.count == 2)
    for result in found { #expect(throws: StreamProblem.logFailed(reason)) { try result.get() } }
  }

  /// What is declared again may have as many as it was declared with, or as many as there are.
  @Test func declaringAgain() throws {
    try add(3)
    for broker in [broker, try broker.crashed()] {
      let channel = broker.connect().open()
      for count in [2, 5] {
        try channel.declareStream("s", ["x-stream-partitions": .int32(Int32(count))])
      }
      for count in [1, 3, 6] {
        #expect(throws: BrokerError.self, "\(count)") {
          try channel.declareStream("s", ["x-stream-partitions": .int32(Int32(count))])
        }
      }
      #expect(throws: BrokerError.self) { try channel.declareStream("s") }
    }
  }

  /// What they take of memory is counted, and is given back.
  @Test func theyAreCounted() throws {
    let (topology, consumers) = (broker.vhost.topologyBytes, broker.broker.consumerBytes)
    try channel.declareStream("t", ["x-stream-partitions": .int32(2)])
    let readers = try [nil, "g"].map {
      try StreamReader(broker, "t", group: $0, prefetch: 10)
    }
    broker.durableTurn()
    let before = (broker.vhost.topologyBytes, broker.broker.consumerBytes)
    try add(100, to: "t")
    #expect(broker.vhost.topologyBytes >= before.0 + 100 * 200)
    #expect(broker.broker.consumerBytes >= before.1 + 2 * 100 * 600)
    let crashed = try broker.crashed()
    #expect(crashed.vhost.topologyBytes == broker.vhost.topologyBytes)
    for reader in readers { reader.close() }
    broker.durableTurn()
    #expect(broker.broker.consumerBytes == consumers)
    for broker in [broker, crashed] {
      try broker.durableTurn { _ = try broker.connect().open().delete("t") }
      broker.finishChores()
      #expect(broker.vhost.topologyBytes == topology)
      #expect(broker.broker.account[.entries] == 0)
    }
  }
}
