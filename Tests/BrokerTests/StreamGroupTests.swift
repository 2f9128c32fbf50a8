import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Consumers that share a stream's partitions.
@Suite struct StreamGroupTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
    try channel.declareStream("s", ["x-stream-partitions": .int32(6)])
  }

  /// Each under a key of its own, so that all partitions get some.
  private func publish(_ range: Range<Int>) throws {
    try broker.durableTurn {
      for number in range {
        try channel.publish("\(number)", to: "amq.fanout", key: Name("k\(number)"))
      }
    }
  }

  private func bind() throws { try channel.bind("s", to: "amq.fanout", key: "") }

  private func member(_ prefetch: Int = 1000) throws -> StreamReader {
    try StreamReader(broker, group: "g", prefetch: prefetch)
  }

  /// All that comes, acknowledged.
  private func take(_ reader: StreamReader) throws -> [StreamRecord] {
    let records = try reader.rest()
    if let last = records.last { try reader.channel.acknowledge(last.tag, isMultiple: true) }
    broker.durableTurn()
    return records
  }

  private func partitions(_ records: [StreamRecord]) -> Set<Int64?> {
    Set(records.map(\.partition))
  }

  @Test func eachPartitionHasOneReader() throws {
    try bind()
    let first = try member()
    try publish(0..<300)
    var found = try take(first).map(\.text)
    let second = try member()
    let third = try member()
    for _ in 0..<4 { broker.durableTurn() }
    try publish(300..<600)
    let shares = try [first, second, third].map { try take($0) }
    for share in shares { #expect(partitions(share).count == 2) }
    #expect(shares.map(partitions).reduce(Set()) { $0.union($1) }.count == 6)
    found += shares.joined().map(\.text)
    #expect(found.count == 600 && Set(found).count == 600, "nothing comes twice, or not at all")
    #expect(!shares.joined().contains { $0.isRedelivered })
    // Those who stay keep what they have.
    third.close()
    for _ in 0..<4 { broker.durableTurn() }
    try publish(600..<900)
    let left = try [first, second].map { try take($0) }
    #expect(left.joined().count == 300)
    #expect(partitions(left[0]).isSuperset(of: partitions(shares[0])))
    #expect(partitions(left[1]).isSuperset(of: partitions(shares[1])))
  }

  @Test func whatAMemberHadWhenItLeftComesAgain() throws {
    try bind()
    try publish(0..<100)
    let first = try member()
    #expect(try first.rest().count == 100)
    first.close()
    broker.durableTurn()
    let second = try member()
    let again = try second.rest()
    #expect(Set(again.map(\.text)) == Set((0..<100).map(String.init)))
    #expect(again.allSatisfy { $0.isRedelivered })
  }

  /// All before it has to be acknowledged as well.
  @Test func offsetsSurviveUpToTheFirstGap() throws {
    try channel.declareStream("one")
    broker.durableTurn()
    try broker.durableTurn {
      for number in 0..<10 { try channel.publish("\(number)", key: "one") }
    }
    let reader = try StreamReader(broker, "one", group: "g", prefetch: 100)
    let records = try reader.rest()
    for number in [0, 1, 2, 5, 6] {
      try reader.channel.acknowledge(records[number].tag, isMultiple: false)
    }
    broker.durableTurn()
    broker.durableTurn()
    #expect(broker.stream("one")?.groups["g"]?.lag(0) == 7)
    // Another member of this life gets what is missing alone.
    reader.close()
    broker.durableTurn()
    let next = try StreamReader(broker, "one", group: "g", prefetch: 2)
    #expect(try next.rest().map(\.offset) == [3, 4])
    next.close()
    broker.durableTurn()
    let again = try broker.crashed()
    let survivor = try StreamReader(again, "one", group: "g", prefetch: 100)
    let found = try survivor.rest()
    #expect(found.map(\.offset) == Array(3..<10))
    #expect(found.allSatisfy { $0.isRedelivered }, "nobody knows what was delivered before")
    #expect(again.stream("one")?.groups["g"]?.lag(0) == 7)
  }

  /// A client that acknowledges and goes is not asked to wait in between.
  @Test func whatIsAcknowledgedAtTheEndCounts() throws {
    try channel.declareStream("one")
    try broker.durableTurn {
      for number in 0..<10 { try channel.publish("\(number)", key: "one") }
    }
    let reader = try StreamReader(broker, "one", group: "g", prefetch: 100)
    let records = try reader.rest()
    try broker.durableTurn {
      try reader.channel.acknowledge(records[5].tag, isMultiple: true)
      reader.close()
    }
    #expect(broker.stream("one")?.groups["g"]?.lag(0) == 4)
    #expect(try broker.crashed().stream("one")?.groups["g"]?.lag(0) == 4)
  }

  @Test func offsetsSurviveACheckpoint() throws {
    try bind()
    try publish(0..<60)
    let reader = try member()
    #expect(try take(reader).count == 60)
    let again = try broker.restarted().restarted()
    let next = try StreamReader(again, group: "g", prefetch: 10)
    #expect(try next.rest().isEmpty)
    // A group that nobody knows begins where it is told.
    let other = try StreamReader(again, group: "h", prefetch: 100)
    #expect(try other.rest().count == 60)
  }

  /// Without acknowledgements a partition changes hands when the time is over; what comes late means nothing.
  @Test func aMemberThatSitsOnItsRecordsLosesThem() throws {
    try bind()
    try publish(0..<60)
    let first = try member()
    let had = try first.rest()
    #expect(had.count == 60)
    let second = try member()
    #expect(try second.rest().isEmpty, "the first one may still acknowledge")
    broker.advance(milliseconds: StreamGroup.handOverMilliseconds + 1)
    let moved = try second.rest()
    #expect(partitions(moved).count == 3)
    #expect(moved.allSatisfy { $0.isRedelivered })
    // The late acknowledgement of all counts for the partitions that it kept.
    try first.channel.acknowledge(had[59].tag, isMultiple: true)
    broker.durableTurn()
    broker.durableTurn()
    let group = try #require(broker.stream()?.groups["g"])
    let lag = (0..<6).reduce(0) { $0 + group.lag($1) }
    #expect(lag == UInt64(moved.count))
    #expect(try first.rest().isEmpty)
  }

  @Test func whatIsGivenBackComesToTheSameMember() throws {
    try channel.declareStream("one")
    try broker.durableTurn {
      for number in 0..<20 { try channel.publish("\(number)", key: "one") }
    }
    let reader = try StreamReader(broker, "one", group: "g", prefetch: 5)
    let first = try reader.rest()
    try reader.channel.reject(first[1].tag, isMultiple: false, requeues: true)
    let again = try reader.rest()
    #expect(again.map(\.text) == [first[1].text] && again[0].isRedelivered)
  }

  @Test func groupsHaveALimit() throws {
    let max = BrokerLimits.streamGroupsMax
    for number in 0..<max {
      let reader = try StreamReader(broker, group: "g\(number)", prefetch: 1)
      reader.close()
    }
    #expect(throws: BrokerError.limitReached(.streamGroups(stream: "s", in: "/", max: max))) {
      try StreamReader(broker, group: "more", prefetch: 1)
    }
  }

  /// All come in few turns; those that have no partition step in when others go.
  @Test func membersHaveALimit() throws {
    let max = BrokerLimits.streamGroupMembersMax
    let client = broker.connect()
    let own = client.open()
    own.setPrefetch(1, isGlobal: false)
    func join(_ number: Int) throws {
      _ = try own.consume(
        "s", tag: Name("c\(number)"), isAutomatic: false, isExclusive: false,
        arguments: ["x-stream-group": .string(Array("g".utf8))])
    }
    for number in 0..<max { try join(number) }
    #expect(
      throws: BrokerError.limitReached(
        .groupMembers(group: "g", stream: "s", in: "/", max: max))
    ) { try join(max) }
    #expect(broker.stream()?.consumerCount == max)
    try bind()
    try publish(0..<60)
    broker.durableTurn()
    #expect(Set(client.deliveries().map(\.consumer)).count == 6)
    own.close()
    broker.finishChores()
    broker.turn()
    #expect(broker.stream()?.consumerCount == 0)
    let last = try member()
    #expect(try take(last).count == 60)
  }

  /// A checkpoint takes one after the other while more come.
  @Test func groupsKeepTheirPlacesForCheckpoints() throws {
    let stream = try #require(broker.stream())
    func names() -> [Name] {
      // The first piece is that of the producers.
      (1..<stream.pieceCount).compactMap { number in
        let record = stream.records(ofPiece: number, below: .max).first
        return record.map { Name(Array($0.payload[9...])) }
      }
    }
    for number in 0..<50 { try StreamReader(broker, group: "a\(number)", prefetch: 1).close() }
    let before = names()
    #expect(before.count == 50)
    for number in 0..<200 { try StreamReader(broker, group: "b\(number)", prefetch: 1).close() }
    #expect(Array(names().prefix(50)) == before)
    #expect(Set(names()).count == 250)
  }
}
