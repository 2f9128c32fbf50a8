import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Readers of streams that want some of the records.
@Suite struct StreamFilterTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving(disk)
    channel = broker.connect().open()
    try channel.declareStream()
  }

  /// Every tenth has another level, and each its number.
  private func publish(_ range: Range<Int>, size: Int = 500, to stream: Name = "s") throws {
    try broker.turn {
      for number in range {
        try channel.publish(
          "\(number):" + String(repeating: "x", count: size), key: stream,
          headers: [
            "level": .string(number % 10 == 3 ? "error" : "info"), "number": .int32(Int32(number)),
          ])
      }
    }
    broker.durableTurn()
  }

  private func errors(_ range: Range<Int>) -> [Int64?] {
    range.filter { $0 % 10 == 3 }.map { Int64($0) }
  }

  private func value(_ value: FieldValue) -> FieldTable { ["x-stream-filter-value": value] }

  // MARK: What is delivered

  @Test func aReaderGetsWhatItsFilterIsTrueOf() throws {
    try publish(0..<500)
    func expect(upTo end: Int, _ place: Comment) throws {
      let reader = try StreamReader(broker, filter: "level = 'error'")
      let found = try reader.rest()
      #expect(found.map(\.offset) == errors(0..<end), place)
      #expect(found.allSatisfy { $0.text.hasPrefix("\($0.offset ?? -1):") }, place)
      #expect(found.allSatisfy { $0.skipped == nil && !$0.isRedelivered }, place)
      reader.close()
      let numbers = try StreamReader(
        broker, filter: "number BETWEEN 95 AND 103 AND body LIKE '1%' AND routing_key = 's'")
      #expect(try numbers.rest().map(\.offset) == [100, 101, 102, 103], place)
      numbers.close()
    }
    try expect(upTo: 500, "in the log")
    try broker.moveOut(channel)
    #expect(try broker.partition().recentStart == 500)
    try expect(upTo: 500, "in segments")
    try publish(500..<1500)
    try expect(upTo: 1500, "in both")
    #expect(broker.takeProblem() == nil)
  }

  @Test func whatComesIsFiltered() throws {
    let reader = try StreamReader(broker, from: .string("next"), filter: "level = 'error'")
    let nothing = try StreamReader(broker, from: .string("next"), filter: "level = 'none'")
    try publish(0..<35)
    #expect(try reader.rest().map(\.offset) == [3, 13, 23, 33])
    try publish(35..<60)
    #expect(try reader.rest().map(\.offset) == [43, 53])
    #expect(try nothing.rest() == [])
    #expect(try broker.partition().waitingCount == 2)
  }

  /// After a start nothing of the log is in memory.
  @Test func recordsOfTheLogAreReadBack() throws {
    var settings = Journal.Settings.moving
    settings.windowBytes = 8 << 20
    let first = try TestBroker(settings: settings, disk: disk)
    let channel = first.connect().open()
    try channel.declareStream()
    for round in 0..<10 {
      try first.durableTurn {
        for number in round * 200..<round * 200 + 200 {
          try channel.publish(
            String(repeating: "x", count: 500), key: "s",
            headers: ["level": .string(number % 10 == 3 ? "error" : "info")])
        }
      }
    }
    let again = try first.crashed(settings: settings)
    #expect(try again.partition().recentStart == 0)
    let location = try again.partition().location(of: 0)
    #expect(again.journal.pointer(location) == nil)
    let reader = try StreamReader(again, filter: "level = 'error'", prefetch: 1000)
    #expect(try reader.rest().map(\.offset) == errors(0..<2000))
  }

  /// Exactly those that are asked for, which is more than elsewhere.
  @Test func valuesTellRecordsApart() throws {
    try broker.durableTurn {
      for text in ["eu", "us", "asia", "euro", ""] {
        try channel.publish(text, key: "s", headers: value(.string(text)))
      }
      try channel.publish("none", key: "s")
      try channel.publish("other", key: "s", headers: ["region": .string("eu")])
      try channel.publish("number", key: "s", headers: value(.int32(7)))
      try channel.publish("bytes", key: "s", headers: value(.bytes(Array("eu".utf8))))
    }
    func expect(_ arguments: FieldTable, _ texts: [String]) throws {
      let reader = try StreamReader(broker, arguments: arguments)
      #expect(try reader.rest().map(\.text) == texts, "\(arguments)")
      reader.close()
    }
    for _ in 0..<2 {
      try expect(["x-stream-filter": .string("eu")], ["eu"])
      try expect(["x-stream-filter": .string("")], [""])
      try expect(["x-stream-filter": .array([.string("us"), .string("asia")])], ["us", "asia"])
      try expect(
        ["x-stream-filter": .string("us"), "x-stream-match-unfiltered": .bool(true)],
        ["us", "none", "other", "number", "bytes"])
      try expect(
        ["x-stream-filter": .string("us"), "x-stream-match-unfiltered": .bool(false)], ["us"])
      try expect(
        [
          "x-stream-filter": .array([.string("eu"), .string("us")]),
          "x-filter": .string("body LIKE 'u%'"),
        ], ["us"])
      // Without values that are asked for it means nothing.
      try expect(
        ["x-stream-match-unfiltered": .bool(true), "x-filter": .string("region = 'eu'")],
        ["other"])
      try broker.moveOut(channel)
    }
  }

  @Test func aReaderBeginsAtADateAndFilters() throws {
    try publish(0..<100)
    try broker.moveOut(channel)
    broker.advance(milliseconds: 5000)
    let date = UInt64(broker.broker.now / 1000 + 2)
    broker.advance(milliseconds: 5000)
    broker.durableTurn()
    try publish(100..<200)
    let reader = try StreamReader(broker, from: .timestamp(date), filter: "level = 'error'")
    #expect(try reader.rest().map(\.offset) == errors(100..<200))
  }

  @Test func mistakesAreRefused() throws {
    let bad: [(FieldTable, Name, String)] = [
      (["x-filter": .string("level = )")], "x-filter", "column 9: expected a value, got ')'"),
      (["x-filter": .int32(5)], "x-filter", "expected a string, got signedint"),
      (["x-filter": .array([])], "x-filter", "expected a string, got array"),
      (["x-stream-filter": .int32(5)], "x-stream-filter", "{unacceptable_type,signedint}"),
      (["x-stream-filter": .bytes([1])], "x-stream-filter", "{unacceptable_type,binary}"),
      (["x-stream-filter": .array([])], "x-stream-filter", "\"expected 1 to 1024 strings, got 0\""),
      (
        ["x-stream-filter": .array([.string("a"), .bool(true)])], "x-stream-filter",
        "\"expected strings in the array, got bool\""
      ),
      (
        ["x-stream-filter": .array((0...1024).map { .string("\($0)") })], "x-stream-filter",
        "\"expected 1 to 1024 strings, got 1025\""
      ),
      (
        ["x-stream-filter": .string("a"), "x-stream-match-unfiltered": .string("true")],
        "x-stream-match-unfiltered", "{unacceptable_type,longstr}"
      ),
      (
        ["x-stream-match-unfiltered": .int32(1)], "x-stream-match-unfiltered",
        "{unacceptable_type,signedint}"
      ),
    ]
    for (arguments, name, reason) in bad {
      #expect(
        throws: BrokerError.refusedArgument(
          name, of: .subject(.queue("s", in: "/")), reason: reason)
      ) {
        try StreamReader(broker, group: "g", arguments: arguments, prefetch: 1)
      }
    }
    #expect(broker.stream()?.groups.isEmpty == true)
    #expect(broker.stream()?.consumerCount == 0)
    try channel.declare("q")
    #expect(
      throws: BrokerError.refusedForType("x-filter", queue: "q", in: "/", type: "classic")
    ) {
      try StreamReader(broker, "q", from: nil, filter: "TRUE")
    }
    try channel.publish("x", key: "q")
    let reader = try StreamReader(
      broker, "q", from: nil, arguments: ["x-stream-filter": .string("a")])
    #expect(try reader.rest().map(\.text) == ["x"], "as elsewhere")
  }

  // MARK: How it is delivered

  @Test func aReaderWithAPrefetchOfOneGetsOneByOne() throws {
    try publish(0..<300)
    try broker.moveOut(channel)
    try publish(300..<2000, size: 10)
    let reader = try StreamReader(broker, filter: "level = 'error'", prefetch: 1)
    var found: [Int64?] = []
    while let record = try reader.read(1).first {
      found.append(record.offset)
      #expect(try reader.taken() == [], "no more than one is out")
      try reader.channel.acknowledge(record.tag, isMultiple: false)
    }
    #expect(found == errors(0..<2000))
  }

  /// What is passed over takes nothing of it.
  @Test func thePrefetchCountsWhatIsDelivered() throws {
    try publish(0..<1000)
    let reader = try StreamReader(broker, filter: "level = 'error'", prefetch: 30)
    let first = try reader.rest()
    #expect(first.map(\.offset) == errors(0..<300))
    try reader.channel.acknowledge(first[1].tag, isMultiple: true)
    #expect(try reader.rest().map(\.offset) == errors(300..<320))
  }

  @Test func whatIsGivenBackComesAgain() throws {
    try publish(0..<200)
    let reader = try StreamReader(broker, filter: "level = 'error'", prefetch: 5)
    let first = try reader.rest()
    #expect(first.map(\.offset) == errors(0..<50))
    for index in [3, 1] {
      try reader.channel.reject(first[index].tag, isMultiple: false, requeues: true)
    }
    let again = try reader.rest()
    #expect(again.map(\.offset) == [13, 33])
    #expect(again.allSatisfy { $0.isRedelivered })
    try broker.moveOut(channel)
    try reader.channel.reject(again[0].tag, isMultiple: false, requeues: true)
    let third = try reader.rest()
    #expect(third.map(\.offset) == [13])
    try reader.channel.acknowledge(third[0].tag, isMultiple: true)
    let next = try reader.rest()
    #expect(next.map(\.offset) == errors(50..<100))
    #expect(!next.contains { $0.isRedelivered })
  }

  /// What a reader has in its queue when it moves is looked up anew.
  @Test func aReaderInTheMiddleOfARoundMissesNothing() throws {
    let reader = try StreamReader(broker, group: "g", filter: "level = 'error'", prefetch: 3)
    try publish(0..<400)
    var found = try reader.rest()
    #expect(found.map(\.offset) == [3, 13, 23])
    try broker.moveOut(channel)
    try publish(400..<500)
    while let last = found.last {
      try reader.channel.acknowledge(last.tag, isMultiple: true)
      let next = try reader.rest()
      guard !next.isEmpty else { break }
      found += next
    }
    #expect(found.map(\.offset) == errors(0..<500))
    broker.durableTurn()
    #expect(broker.stream()?.groups["g"]?.lag(0) == 0)
  }

  /// A million of them take a thousand turns like this, in which others are served.
  @Test(arguments: [false, true])
  func whatIsNotWantedTakesManyTurns(isCold: Bool) throws {
    let steps = 1000
    var limits = BrokerLimits()
    limits.deliveryBytesPerTurn = steps * 256
    let broker = try TestBroker(settings: isCold ? .moving : .quick, limits: limits, disk: disk)
    let channel = broker.connect().open()
    try channel.declareStream()
    let count = 8000
    try broker.durableTurn {
      for number in 0..<count {
        try channel.publish("\(number)", key: "s", headers: ["last": .bool(number == count - 1)])
      }
    }
    if isCold { try broker.moveOut(channel) }
    #expect(try broker.partition().recentStart == (isCold ? UInt64(count) : 0))
    try channel.declare("q")
    let other = broker.connect()
    try other.open().consume("q", isAutomatic: true)
    let reader = try StreamReader(broker, filter: "last")
    var turns = 0
    var found: [StreamRecord] = []
    while found.isEmpty, turns < 200 {
      try broker.turn { try channel.publish("\(turns)", key: "q") }
      turns += 1
      if isCold { broker.drainWorkers() }
      found += try reader.taken()
      // Who comes behind a reader that uses a turn up is the first one in the next.
      #expect(other.bodies().count <= 2)
    }
    #expect(found.map(\.offset) == [Int64(count - 1)])
    #expect(turns >= count / steps)
    #expect(turns < 4 * count / steps + (isCold ? 100 : 0))
    broker.turn()
    let rest = other.bodies()
    #expect(rest.last == "\(turns - 1)" || rest.isEmpty)
  }

  @Test func filtersAreCounted() throws {
    func bytes(_ arguments: FieldTable) throws -> Int {
      let before = broker.broker.consumerBytes
      let reader = try StreamReader(broker, arguments: arguments)
      let bytes = broker.broker.consumerBytes - before
      reader.close()
      #expect(broker.broker.consumerBytes == before)
      return bytes
    }
    let long = String(repeating: "x", count: 2000)
    let plain = try bytes([:])
    let few = try bytes(["ignored": .string("body LIKE '%\(long)%'")])
    #expect(try bytes(["x-filter": .string("body LIKE '%\(long)%'")]) >= few + 2000)
    #expect(try bytes(["x-stream-filter": .string(long)]) >= plain + 2000)
  }

  // MARK: Groups

  /// What nobody wants is behind the group, also after a start.
  @Test(arguments: [false, true])
  func aGroupThatWantsNothingHasReadAll(isCold: Bool) throws {
    try publish(0..<700)
    if isCold { try broker.moveOut(channel) }
    let reader = try StreamReader(broker, group: "g", filter: "level = 'none'", prefetch: 10)
    #expect(try reader.rest() == [])
    #expect(broker.stream()?.groups["g"]?.lag(0) == 0)
    try publish(700..<710)
    #expect(try reader.rest() == [])
    #expect(broker.stream()?.groups["g"]?.lag(0) == 0)
    broker.advance(milliseconds: StreamGroup.passedMilliseconds)
    broker.durableTurn()
    let again = try broker.crashed(settings: .moving)
    #expect(again.stream()?.groups["g"]?.lag(0) == 0)
    let next = try StreamReader(again, group: "g", prefetch: 10)
    #expect(try next.rest() == [], "they are not read again")
  }

  /// Not for each record, and not for each turn.
  @Test func theLogIsToldNowAndThenOfWhatNobodyWants() throws {
    let reader = try StreamReader(broker, group: "g", filter: "level = 'none'", prefetch: 10)
    broker.durableTurn()
    var (commits, begin) = (broker.journal.statistics.commits, broker.broker.time)
    for number in 0..<100 {
      try publish(number..<number + 1)
      #expect(try reader.taken() == [])
      #expect(broker.stream()?.groups["g"]?.lag(0) == 0)
    }
    let told = Int(broker.broker.time - begin) / Int(StreamGroup.passedMilliseconds)
    #expect(broker.journal.statistics.commits - commits <= 100 + told + 1)
    commits = broker.journal.statistics.commits
    broker.advance(milliseconds: StreamGroup.passedMilliseconds)
    broker.work()
    #expect(broker.journal.statistics.commits == commits + 1, "the rest")
    begin = broker.broker.time
    while broker.broker.time - begin < 3 * StreamGroup.passedMilliseconds { broker.work(10) }
    #expect(broker.journal.statistics.commits == commits + 1, "nothing is new")
  }

  @Test func aBrokerThatStopsTellsTheLog() throws {
    try publish(0..<30)
    let reader = try StreamReader(broker, group: "g", filter: "level = 'none'", prefetch: 10)
    #expect(try reader.rest() == [])
    let again = try broker.restarted(settings: .moving)
    #expect(again.stream()?.groups["g"]?.lag(0) == 0)
  }

  @Test func theLogIsToldOfManyThatNobodyWants() throws {
    let reader = try StreamReader(broker, group: "g", filter: "level = 'none'", prefetch: 10)
    let count = Int(StreamGroup.passedMax) + 5000
    for first in stride(from: 0, to: count, by: 5000) {
      try publish(first..<min(count, first + 5000), size: 0)
      #expect(try reader.rest() == [])
    }
    broker.durableTurn()
    let again = try broker.crashed(settings: .moving)
    let lag = try #require(again.stream()?.groups["g"]?.lag(0))
    #expect(lag > 0 && lag <= 10_000, "without waiting")
  }

  @Test func aGroupGoesOnBehindWhatItPassesOver() throws {
    try publish(0..<30)
    let reader = try StreamReader(broker, group: "g", filter: "level = 'error'", prefetch: 10)
    let found = try reader.rest()
    #expect(found.map(\.offset) == [3, 13, 23])
    func lag() -> UInt64? {
      broker.durableTurn()
      return broker.stream()?.groups["g"]?.lag(0)
    }
    #expect(lag() == 27, "before the first one")
    try reader.channel.acknowledge(found[1].tag, isMultiple: false)
    #expect(lag() == 27, "all before has to be acknowledged")
    try reader.channel.acknowledge(found[0].tag, isMultiple: false)
    #expect(lag() == 7)
    let again = try broker.crashed(settings: .moving)
    #expect(again.stream()?.groups["g"]?.lag(0) == 7)
    let next = try StreamReader(again, group: "g", filter: "level = 'error'", prefetch: 10)
    let left = try next.rest()
    #expect(left.map(\.offset) == [23])
    try next.channel.acknowledge(left[0].tag, isMultiple: true)
    again.durableTurn()
    again.durableTurn()
    #expect(again.stream()?.groups["g"]?.lag(0) == 0)
  }

  /// Each reader of the partition has passed over what it did not want; the next one gets what is left.
  @Test func membersWithOtherFiltersGetWhatIsLeft() throws {
    try publish(0..<30)
    let first = try StreamReader(broker, group: "g", filter: "level = 'error'", prefetch: 2)
    let had = try first.rest()
    #expect(had.map(\.offset) == [3, 13])
    first.close()
    broker.durableTurn()
    // It was looked at up to the third one, which waited for the second.
    let second = try StreamReader(broker, group: "g", filter: "level = 'info'", prefetch: 100)
    #expect(try second.rest() == [], "the first one did not want them")
    broker.durableTurn()
    #expect(broker.stream()?.groups["g"]?.lag(0) == 0, "and the second one not the others")
    try publish(30..<40)
    #expect(try second.rest().map(\.offset) == [30, 31, 32, 34, 35, 36, 37, 38, 39])
  }

  @Test func aGroupThatIsAcknowledgedAtOnceFilters() throws {
    try publish(0..<30)
    let reader = try StreamReader(broker, group: "g", filter: "level = 'error'")
    #expect(try reader.rest().map(\.offset) == [3, 13, 23])
    broker.durableTurn()
    #expect(broker.stream()?.groups["g"]?.lag(0) == 0)
  }
}
