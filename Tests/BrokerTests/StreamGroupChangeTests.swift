import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Groups of a stream's consumers are moved, and taken away.
@Suite struct StreamGroupChangeTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    channel = broker.connect().open()
    try channel.declareStream()
  }

  private func publish(_ range: Range<Int>) throws {
    try broker.durableTurn {
      for number in range { try channel.publish("\(number)", key: "s") }
    }
  }

  /// All that a member of the group gets, acknowledged; it is gone then.
  @discardableResult
  private func read(
    _ group: String, _ stream: Name = "s", in broker: TestBroker? = nil
  ) throws -> [StreamRecord] {
    let reader = try StreamReader(broker ?? self.broker, stream, group: group, prefetch: 1000)
    let records = try reader.rest()
    if let last = records.last { try reader.channel.acknowledge(last.tag, isMultiple: true) }
    (broker ?? self.broker).durableTurn()
    reader.close()
    (broker ?? self.broker).durableTurn()
    return records
  }

  private func reset(
    _ group: Name = "g", _ place: FieldValue, partition: Int? = nil, of stream: Name = "s",
    in broker: TestBroker? = nil
  ) throws -> [StreamGroupMove] {
    let broker = broker ?? self.broker
    var found: Result<[StreamGroupMove], StreamProblem>?
    broker.turn {
      broker.vhost.resetStreamGroup(
        group, of: stream, to: place, partition: partition, for: channel.peer
      ) { found = $0 }
    }
    broker.finishChores()
    broker.durableTurn()
    return try #require(found).get()
  }

  private func delete(_ group: Name, of stream: Name = "s") throws {
    var found: StreamProblem??
    broker.turn { broker.vhost.deleteStreamGroup(group, of: stream) { found = .some($0) } }
    broker.durableTurn()
    if let problem = try #require(found) { throw problem }
  }

  private func committed(_ broker: TestBroker, _ group: Name = "g") -> UInt64? {
    broker.stream()?.groups[group]?.committed(0)
  }

  // MARK: Reset

  @Test func itGoesOnWhereItIsTold() throws {
    try publish(0..<50)
    broker.advance(milliseconds: 60_000)
    // What is published now has the date of this turn.
    broker.durableTurn()
    let date = UInt64(broker.broker.now / 1000)
    broker.advance(milliseconds: 2000)
    broker.durableTurn()
    try publish(50..<100)
    #expect(try read("g").count == 100)
    for (place, offset) in [
      (.string("first"), 0), (.string("last"), 99), (.string("next"), 100), (.int64(30), 30),
      (.int64(-7), 93), (.int64(-1000), 0), (.timestamp(date), 50), (.string("30s"), 50),
      (.string("1h"), 0), (.int64(400), 400), (.int32(10), 10),
    ] as [(FieldValue, UInt64)] {
      let before = try #require(committed(broker))
      #expect(
        try reset("g", place) == [StreamGroupMove(partition: 0, from: before, to: offset)],
        "\(place)")
      #expect(broker.stream()?.groups["g"]?.lag(0) == 100 - min(100, offset))
    }
    let again = try read("g")
    #expect(again.map(\.offset) == Array(10..<100))
    #expect(again.allSatisfy { $0.isRedelivered }, "the group had them")
  }

  /// What was acknowledged behind a gap comes again as well.
  @Test func itForgetsWhatWasAcknowledged() throws {
    try publish(0..<10)
    let reader = try StreamReader(broker, group: "g", prefetch: 100)
    let records = try reader.rest()
    for number in [0, 5, 6] {
      try reader.channel.acknowledge(records[number].tag, isMultiple: false)
    }
    broker.durableTurn()
    reader.close()
    broker.durableTurn()
    #expect(try reset("g", .int64(3)) == [StreamGroupMove(partition: 0, from: 1, to: 3)])
    #expect(try read("g").map(\.offset) == Array(3..<10))
  }

  @Test func oneOfSeveralPartitions() throws {
    try channel.declareStream("many", ["x-stream-partitions": .int32(4)])
    try channel.bind("many", to: "amq.fanout", key: "")
    try broker.durableTurn {
      for number in 0..<80 {
        try channel.publish("\(number)", to: "amq.fanout", key: Name("k\(number)"))
      }
    }
    #expect(try read("g", "many").count == 80)
    let group = try #require(broker.stream("many")?.groups["g"])
    let ends = (0..<4).map { group.committed($0) }
    #expect(!ends.contains(0) && ends.reduce(0, +) == 80)
    #expect(
      try reset("g", .string("first"), partition: 2, of: "many")
        == [StreamGroupMove(partition: 2, from: ends[2], to: 0)])
    #expect((0..<4).map { group.lag($0) } == [0, 0, ends[2], 0])
    #expect(try read("g", "many").allSatisfy { $0.partition == 2 })
    let all = try reset("g", .int64(-1), of: "many")
    #expect(all == (0..<4).map { StreamGroupMove(partition: $0, from: ends[$0], to: ends[$0] - 1) })
    #expect(throws: StreamProblem.noSuchPartition(count: 4)) {
      try reset("g", .string("first"), partition: 4, of: "many")
    }
  }

  @Test func itSurvivesACrashAndACheckpoint() throws {
    try publish(0..<100)
    try read("g")
    _ = try reset("g", .int64(40))
    #expect(committed(try broker.crashed()) == 40)
    let again = try broker.restarted().restarted()
    #expect(committed(again) == 40)
    #expect(try read("g", in: again).map(\.offset) == Array(40..<100))
    _ = try reset("g", .string("first"), in: again)
    #expect(committed(try again.crashed()) == 0)
  }

  /// All partitions are where they were, or all where they are to be, wherever the log ends.
  @Test func aCrashFindsAllOrNothing() throws {
    try channel.declareStream("many", ["x-stream-partitions": .int32(3)])
    try channel.bind("many", to: "amq.fanout", key: "")
    try broker.durableTurn {
      for number in 0..<60 {
        try channel.publish("\(number)", to: "amq.fanout", key: Name("k\(number)"))
      }
    }
    try read("g", "many")
    let begin = broker.journal.endPosition
    _ = try reset("g", .string("first"), of: "many")
    let end = broker.journal.endPosition
    var counts: Set<Int> = []
    for position in stride(from: begin, through: end, by: 8) {
      let cut = try TestBroker(in: LogCutTests.cut(broker, at: position))
      let group = try #require(cut.stream("many")?.groups["g"])
      counts.insert((0..<3).count { group.committed($0) == 0 })
    }
    #expect(counts == [0, 3])
  }

  // MARK: Deletion

  @Test func aGroupThatIsDeletedStaysAway() throws {
    try publish(0..<100)
    for group in ["g", "h"] { try read(group) }
    broker.quietTurn()
    broker.broker.beginCheckpoint()
    broker.quietTurn()
    try delete("g")
    #expect(broker.stream()?.groups.keys.sorted() == ["h"])
    let crashed = try broker.crashed()
    #expect(crashed.stream()?.groups.keys.sorted() == ["h"])
    #expect(committed(crashed, "h") == 100)
    let again = try broker.restarted().restarted()
    #expect(again.stream()?.groups.keys.sorted() == ["h"])
    // One of the same name is another one.
    #expect(try read("g", in: again).count == 100)
    #expect(committed(try again.crashed()) == 100)
  }

  @Test func deletionMakesRoomForAnotherGroup() throws {
    let before = broker.broker.account[.entries]
    for number in 0..<BrokerLimits.streamGroupsMax {
      let reader = try StreamReader(broker, group: "g\(number)", prefetch: 1)
      reader.close()
    }
    #expect(throws: BrokerError.self) { try StreamReader(broker, group: "more", prefetch: 1) }
    try delete("g7")
    try StreamReader(broker, group: "more", prefetch: 1).close()
    broker.durableTurn()
    for name in try #require(broker.stream()).groups.keys { try delete(name) }
    broker.durableTurn()
    #expect(broker.broker.account[.entries] <= before, "no group is counted any more")
  }

  /// A checkpoint goes over groups in slices, while some go and others come.
  @Test func groupsComeAndGoDuringACheckpoint() throws {
    var limits = BrokerLimits()
    limits.walkStepsPerTurn = 16
    let broker = try TestBroker(settings: .moving, limits: limits, disk: FaultyDisk())
    let channel = broker.connect().open()
    try channel.declareStream()
    try channel.declare("q", isDurable: true)
    let names = (0..<60).map { Name("g\($0)") }
    for (number, name) in names.enumerated() {
      let reader = try StreamReader(
        broker, from: .int64(Int64(number)), group: name.description, prefetch: 1)
      reader.close()
    }
    // The log that has them goes.
    for _ in 0..<4 {
      for number in 0..<100 {
        try channel.publish(
          "\(number)" + String(repeating: "x", count: 2000), key: "s", isPersistent: true)
      }
      try broker.moveOut(channel)
    }
    broker.quietTurn()
    broker.broker.beginCheckpoint()
    var gone: Set<Name> = []
    var more: [Name] = []
    for number in 0..<20 {
      let leaving = names[number * 37 % 60]
      broker.turn { broker.vhost.deleteStreamGroup(leaving, of: "s") { #expect($0 == nil) } }
      gone.insert(leaving)
      let coming = Name("more\(number)")
      let reader = try StreamReader(broker, group: coming.description, prefetch: 1)
      reader.close()
      more.append(coming)
    }
    broker.quietTurn()
    let found = try #require(try broker.crashed(settings: .moving).stream()).groups
    #expect(Set(found.keys) == Set(names).subtracting(gone).union(more))
    for (number, name) in names.enumerated() where !gone.contains(name) {
      #expect(found[name]?.committed(0) == UInt64(number))
    }
  }

  // MARK: Durability

  @Test func itIsToldWhenTheLogHasIt() throws {
    try publish(0..<10)
    for group in ["g", "h"] { try read(group) }
    var told: [Int] = []
    let tell = { told.append(broker.journal.durablePosition) }
    for change in [
      {
        broker.vhost.resetStreamGroup(
          "g", of: "s", to: .string("first"), partition: nil, for: channel.peer
        ) { _ in tell() }
      },
      { broker.vhost.deleteStreamGroup("h", of: "s") { _ in tell() } },
    ] {
      var end = 0
      told = []
      broker.turn {
        let before = broker.journal.endPosition
        change()
        end = broker.journal.endPosition
        #expect(end > before && told.isEmpty)
      }
      broker.durableTurn()
      #expect(told.count == 1 && told[0] >= end)
    }
  }

  @Test func aLogThatFailsIsTold() throws {
    let disk = FaultyDisk()
    var settings = Journal.Settings.quick
    settings.isSynced = true
    let broker = try TestBroker(settings: settings, disk: disk)
    try broker.connect().open().declareStream()
    for group in ["g", "h"] { try read(group, in: broker) }
    disk.fail(.write, ".segment", code: 5)
    var found: [StreamProblem?] = []
    broker.turn {
      broker.vhost.deleteStreamGroup("g", of: "s") { found.append($0) }
    }
    broker.turns { broker.journal.failure != nil }
    let reason = try #require(broker.journal.failure)
    broker.turn {
      broker.vhost.deleteStreamGroup("h", of: "s") { found.append($0) }
      broker.vhost.resetStreamGroup(
        "h", of: "s", to: .string("first"), partition: nil, for: broker.connect().peer
      ) { result in
        if case .failure(let problem) = result { found.append(problem) }
      }
    }
    broker.finishChores()
    #expect(found == [StreamProblem](repeating: .logFailed(reason), count: 3))
    #expect(broker.stream()?.groups.keys.sorted() == ["h"])
  }

  // MARK: Refused

  @Test func aGroupWithMembersIsNotChanged() throws {
    try publish(0..<10)
    let reader = try StreamReader(broker, group: "g", prefetch: 5)
    let second = try StreamReader(broker, group: "g", prefetch: 5)
    #expect(throws: StreamProblem.hasMembers(2)) { try reset("g", .string("next")) }
    #expect(throws: StreamProblem.hasMembers(2)) { try delete("g") }
    second.close()
    broker.durableTurn()
    #expect(throws: StreamProblem.hasMembers(1)) { try delete("g") }
    #expect(committed(broker) == 0)
    reader.close()
    broker.durableTurn()
    try delete("g")
  }

  @Test func mistakesAreTold() throws {
    try publish(0..<10)
    try read("g")
    try channel.declare("q")
    #expect(throws: StreamProblem.noSuchStream) { try reset("g", .string("first"), of: "x") }
    #expect(throws: StreamProblem.isQueue) { try reset("g", .string("first"), of: "q") }
    #expect(throws: StreamProblem.noSuchGroup) { try reset("h", .string("first")) }
    #expect(throws: StreamProblem.noSuchPartition(count: 1)) {
      try reset("g", .string("first"), partition: 1)
    }
    for place in [.string("frist"), .bool(true), .string(""), .string("-5s")] as [FieldValue] {
      #expect(throws: StreamProblem.noPlace, "\(place)") { try reset("g", place) }
    }
    #expect(throws: StreamProblem.noSuchStream) { try delete("g", of: "x") }
    #expect(throws: StreamProblem.isQueue) { try delete("g", of: "q") }
    #expect(throws: StreamProblem.noSuchGroup) { try delete("h") }
    #expect(committed(broker) == 10)
  }

  /// A client that acknowledges late, what it got before its consumer ended, changes nothing.
  @Test func lateAcknowledgementsMeanNothing() throws {
    try publish(0..<10)
    let reader = try StreamReader(broker, group: "g", prefetch: 100)
    let records = try reader.rest()
    reader.channel.cancel("r")
    broker.durableTurn()
    #expect(try reset("g", .int64(2)) == [StreamGroupMove(partition: 0, from: 0, to: 2)])
    try reader.channel.acknowledge(records[9].tag, isMultiple: true)
    broker.durableTurn()
    #expect(committed(broker) == 2)
    try delete("g")
    #expect(try read("g").map(\.offset) == Array(0..<10))
  }

  /// The same of a commit: what was acknowledged in it was the member's that is gone.
  @Test(arguments: [true, false]) func lateCommitsMeanNothing(isDeleted: Bool) throws {
    try publish(0..<10)
    let reader = try StreamReader(broker, group: "g", prefetch: 100)
    try reader.channel.startTransactions()
    let records = try reader.rest()
    try reader.channel.acknowledge(records[4].tag, isMultiple: true)
    reader.channel.cancel("r")
    broker.durableTurn()
    if isDeleted { try delete("g") } else { _ = try reset("g", .int64(2)) }
    try broker.durableTurn { _ = try reader.channel.commit() }
    #expect(committed(broker) == (isDeleted ? nil : 2))
    #expect(committed(try broker.crashed()) == (isDeleted ? nil : 2))
  }
}
