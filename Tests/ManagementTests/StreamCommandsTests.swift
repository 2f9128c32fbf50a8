import AMQP
import Base
import JSON
import Management
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Journal

/// What is asked of the broker about streams, and what comes back.
@Suite struct StreamCommandsTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving()
    broker.broker.management = ManagementCommands()
    channel = broker.connect().open()
    try channel.declare("answers")
  }

  private func ask(_ command: String, _ fields: String = "") throws -> JSONValue {
    var properties = BasicProperties()
    properties.replyTo = "answers"
    try broker.turn {
      try channel.publish(
        #"{"command":"\#(command)"\#(fields.isEmpty ? "" : ",")\#(fields)}"#,
        key: "amq.martlet.management", properties: properties)
    }
    broker.finishChores()
    broker.durableTurn()
    let delivery = try #require(try channel.take("answers"))
    return try JSONValue(delivery.message.body)
  }

  private func error(_ command: String, _ fields: String = "") throws -> String? {
    try ask(command, fields).text("error")
  }

  private func publish(_ count: Int, to stream: Name = "s") throws {
    let padding = String(repeating: "x", count: 1000)
    try broker.durableTurn {
      for number in 0..<count { try channel.publish("\(number):\(padding)", key: stream) }
    }
  }

  /// A member of a group, with this many records acknowledged.
  private func member(
    _ group: String, _ stream: Name = "s", acknowledging count: Int
  ) throws -> StreamReader {
    let reader = try StreamReader(broker, stream, group: group, prefetch: 1000)
    let records = try reader.rest()
    if count > 0 {
      try reader.channel.acknowledge(records[count - 1].tag, isMultiple: true)
    }
    broker.durableTurn()
    return reader
  }

  // MARK: Lists

  @Test func streamsAreListedInPages() throws {
    #expect(try ask("stream-list").elements("streams").isEmpty)
    try channel.declare("queue", isDurable: true)
    for number in 0..<25 {
      try channel.declareStream(
        Name("s\(number)"), ["x-stream-partitions": .int32(Int32(1 + number % 3))])
    }
    try publish(7, to: "s0")
    let all = try ask("stream-list")
    #expect(all.text("next") == nil)
    let names = all.elements("streams").map { $0.text("name") }
    #expect(names == (0..<25).map { "s\($0)" }.sorted())
    #expect(all.elements("streams").map { $0.number("partitions") }.reduce(0, +) == 49)
    #expect(all.elements("streams")[0].number("records") == 7)
    for limit in [1, 10, 24, 25] {
      var found: [String?] = []
      var cursor: String?
      repeat {
        let page = try ask(
          "stream-list", #""limit":\#(limit)"# + (cursor.map { #","cursor":"\#($0)""# } ?? ""))
        #expect(page.elements("streams").count <= limit)
        found += page.elements("streams").map { $0.text("name") }
        cursor = page.text("next")
      } while cursor != nil
      #expect(found == names, "\(limit) at once")
    }
  }

  @Test func aStreamIsDescribed() throws {
    try channel.declareStream(
      "s",
      ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-length-bytes": .int64(120_000)])
    let empty = try ask("stream-info", #""stream":"s""#).elements("partitions")
    #expect(empty.count == 1)
    #expect(empty[0].number("next_offset") == 0 && empty[0].member("oldest_before") == nil)
    let began = broker.broker.now
    try publish(10)
    let hot = try ask("stream-info", #""stream":"s""#).elements("partitions")[0]
    #expect(hot.number("records_in_log") == 10 && hot.number("segments") == 0)
    #expect((began...began + 1000).contains(Int64(hot.number("oldest_before"))))
    for _ in 0..<8 {
      try publish(50)
      try broker.moveOut(channel)
    }
    try publish(3)
    try member("g", acknowledging: 5).close()
    broker.durableTurn()
    let reader = try StreamReader(broker, "s", prefetch: 1)
    let info = try ask("stream-info", #""stream":"s""#)
    let partition = try broker.partition()
    let bytes = partition.segments.reduce(0) { $0 + $1.bytes }
    #expect(info.text("name") == "s" && info.number("groups") == 1)
    #expect(info.number("consumers") == 1)
    #expect(info.number("segment_bytes") == bytes && bytes > 0)
    #expect(info.member("arguments")?.number("x-max-length-bytes") == 120_000)
    let found = info.elements("partitions")[0]
    #expect(found.number("first_offset") == Int(partition.start) && partition.start > 0)
    #expect(found.number("next_offset") == 413)
    #expect(found.number("records") == 413 - Int(partition.start))
    #expect(found.number("records") == info.number("records"))
    #expect(found.number("records_in_log") == 3)
    #expect(found.number("segments") == partition.segments.count)
    #expect(found.number("segment_bytes") == bytes)
    #expect(Int64(found.number("oldest_before")) == partition.segments[0].timeMax)
    reader.close()
    // The same behind a start.
    let again = try broker.crashed(settings: .moving)
    let other = try again.partition()
    #expect(other.segmentBytes == bytes && other.start == partition.start)
  }

  @Test func groupsAreListedWithTheirLag() throws {
    try channel.declareStream("s")
    try publish(20)
    try member("idle", acknowledging: 5).close()
    let reader = try member("busy", acknowledging: 12)
    broker.durableTurn()
    try publish(10)
    let groups = try ask("stream-groups", #""stream":"s""#).elements("groups")
    #expect(groups.map { $0.text("name") } == ["busy", "idle"])
    #expect(groups.map { $0.number("members") } == [1, 0])
    #expect(groups.map { $0.number("lag") } == [18, 25])
    let (busy, idle) = (groups[0].elements("partitions"), groups[1].elements("partitions"))
    #expect(busy.count == 1 && idle.count == 1)
    #expect(busy[0].number("committed_offset") == 12 && busy[0].number("end_offset") == 30)
    #expect(busy[0].text("consumer") == "r" && busy[0].text("connection") == "test")
    #expect(busy[0].text("user") == "guest")
    #expect(idle[0].number("lag") == 25 && idle[0].member("consumer") == nil)
    let one = try ask("stream-groups", #""stream":"s","group":"idle""#).elements("groups")
    #expect(one.map { $0.text("name") } == ["idle"])
    reader.close()
  }

  /// Records that are gone lag nobody.
  @Test func lagIsOfRecordsThatAreThere() throws {
    try channel.declareStream(
      "s",
      ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-length-bytes": .int64(120_000)])
    try member("g", acknowledging: 0).close()
    for _ in 0..<8 {
      try publish(50)
      try broker.moveOut(channel)
    }
    let start = Int(try broker.partition().start)
    #expect(start > 0)
    let group = try ask("stream-groups", #""stream":"s""#).elements("groups")[0]
    #expect(group.number("lag") == 400 - start)
    #expect(group.elements("partitions")[0].number("committed_offset") == 0)
  }

  @Test func groupsWithManyPartitionsAreListedInPages() throws {
    try channel.declareStream("s", ["x-stream-partitions": .int32(7)])
    let names = ["a", "b", "b\u{e4}", "c"]
    for name in names { try member(name, acknowledging: 0).close() }
    broker.durableTurn()
    for limit in [1, 3, 7, 8, 27, 28, 1000] {
      var found: [String: [Int]] = [:]
      var cursor: String?
      repeat {
        let page = try ask(
          "stream-groups",
          #""stream":"s","limit":\#(limit)"# + (cursor.map { #","cursor":"\#($0)""# } ?? ""))
        let groups = page.elements("groups")
        let counts = groups.map { $0.elements("partitions").count }
        #expect(counts.reduce(0, +) <= limit && !counts.contains(0))
        for group in groups {
          found[group.text("name") ?? "", default: []] +=
            group.elements("partitions").map { $0.number("partition") }
        }
        cursor = page.text("next")
      } while cursor != nil
      #expect(found == Dictionary(uniqueKeysWithValues: names.map { ($0, Array(0..<7)) }))
    }
  }

  // MARK: Changes

  @Test func aGroupIsResetAndDeleted() throws {
    try channel.declareStream("s")
    try publish(20)
    try member("g", acknowledging: 20).close()
    broker.durableTurn()
    for (place, offset) in [
      (#""to":"first""#, 0), (#""to":-4"#, 16), (#""to":7"#, 7), (#""to":"next""#, 20),
      (#""to":"last","partition":0"#, 19), (#""to":"1h""#, 0), (#""time":1000"#, 0),
    ] {
      let answer = try ask("stream-reset", #""stream":"s","group":"g",\#(place)"#)
      let moved = answer.elements("partitions")
      #expect(moved.map { $0.number("to") } == [offset], "\(place): \(answer)")
      #expect(moved[0].number("partition") == 0 && moved[0].member("from") != nil)
    }
    let again = try broker.crashed(settings: .moving)
    #expect(again.stream()?.groups["g"]?.committed(0) == 0)
    #expect(
      try ask("stream-group-delete", #""stream":"s","group":"g""#).text("deleted") == "g")
    #expect(try ask("stream-groups", #""stream":"s""#).elements("groups").isEmpty)
    #expect(try broker.crashed(settings: .moving).stream()?.groups.isEmpty == true)
  }

  @Test func partitionsAreAdded() throws {
    try channel.declareStream("s")
    let answer = try ask("stream-add-partitions", #""stream":"s","count":3"#)
    #expect(answer.text("name") == "s" && answer.number("partitions") == 4)
    #expect(try ask("stream-list").elements("streams")[0].number("partitions") == 4)
    let info = try ask("stream-info", #""stream":"s""#)
    #expect(info.elements("partitions").map { $0.number("partition") } == [0, 1, 2, 3])
    #expect(try broker.crashed(settings: .moving).stream()?.partitions.count == 4)
  }

  @Test func mistakesAreTold() throws {
    try channel.declareStream("s", ["x-stream-partitions": .int32(3)])
    let reader = try member("g", acknowledging: 0)
    let of = #""stream":"s","group":"g""#
    let forms =
      #""first", "last", "next", an offset, a negative number or an interval such as "90m""#
    for (command, fields, expected) in [
      ("stream-list", #""limit":0"#, #""limit" is a whole number from 1 to 1000"#),
      ("stream-list", #""cursor":7"#, #""cursor" is text, not a number"#),
      ("stream-info", "", #"the "stream" is missing"#),
      ("stream-info", #""stream":"x""#, "no stream 'x' in vhost '/'"),
      (
        "stream-info", #""stream":"answers""#,
        "'answers' in vhost '/' is a queue, and no stream"
      ),
      ("stream-info", #""stream":["s"]"#, #""stream" is text, not an array"#),
      ("stream-groups", #""stream":"x""#, "no stream 'x' in vhost '/'"),
      ("stream-groups", #""stream":"s","group":"h""#, "stream 's' has no group 'h'"),
      (
        "stream-groups", #""stream":"s","cursor":"1.+f""#,
        #"the "cursor" is none that an answer had as its "next""#
      ),
      ("stream-groups", #""stream":"s","name":"g""#, #"there is no field "name""#),
      ("stream-reset", #""stream":"s","to":1"#, #"the "group" is missing"#),
      ("stream-reset", of, #"say where by "to", or by "time""#),
      ("stream-reset", of + #","to":1,"time":1"#, #""to" and "time" exclude each other"#),
      ("stream-reset", of + #","to":1.5"#, #""to" is "# + forms),
      ("stream-reset", of + #","to":true"#, #""to" is "# + forms),
      ("stream-reset", of + #","time":-1"#, #""time" is a whole number of at least 0"#),
      (
        "stream-reset", of + #","to":1,"partition":"0""#,
        #""partition" is a whole number of at least 0"#
      ),
      (
        "stream-reset", of + #","to":1"#,
        "group 'g' of stream 's' has 1 member: end its consumer first"
      ),
      (
        "stream-group-delete", of,
        "group 'g' of stream 's' has 1 member: end its consumer first"
      ),
      ("stream-group-delete", #""stream":"s","group":"h""#, "stream 's' has no group 'h'"),
      ("stream-group-delete", of + #","to":1"#, #"there is no field "to""#),
      ("stream-add-partitions", #""stream":"s""#, #"the "count" is missing"#),
      (
        "stream-add-partitions", #""stream":"s","count":0"#,
        #""count" is a whole number of at least 1"#
      ),
      (
        "stream-add-partitions", #""stream":"s","count":1022"#,
        "stream 's' has 3 partitions, and may have 1024"
      ),
      (
        "stream-add-partitions", #""stream":"answers","count":1"#,
        "'answers' in vhost '/' is a queue, and no stream"
      ),
    ] {
      #expect(try error(command, fields) == expected, "\(command) \(fields)")
    }
    reader.close()
    broker.durableTurn()
    #expect(try error("stream-reset", of + #","to":"frist""#) == #""to" is "# + forms)
    #expect(
      try error("stream-reset", of + #","to":1,"partition":3"#)
        == "stream 's' has partitions 0 to 2, not 3")
  }
}

extension JSONValue {
  fileprivate func text(_ name: String) -> String? {
    if case .string(let text)? = member(name) { text } else { nil }
  }

  fileprivate func number(_ name: String) -> Int {
    if case .number(let word)? = member(name) { Int(word) ?? -1 } else { -1 }
  }

  fileprivate func elements(_ name: String) -> [JSONValue] {
    if case .array(let elements)? = member(name) { elements } else { [] }
  }
}
