import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Streams while their records are in the log: where what goes, and who sees it when.
@Suite struct StreamTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker(settings: .moving, disk: disk)
    channel = broker.connect().open()
    try channel.declareStream()
  }

  @Test func everyReaderGetsAllInItsOrder() throws {
    for number in 0..<1000 {
      try channel.publish("\(number)", key: "s", isPersistent: number % 2 == 0)
    }
    let expected = (0..<1000).map { "\($0)" }
    try broker.expect(expected)
    try broker.expect(expected)
    #expect(broker.stream()?.readyCount == 1000)
  }

  @Test func readersBeginWhereTheyWant() throws {
    for number in 0..<20 { try channel.publish("\(number)", key: "s") }
    broker.durableTurn()
    let beginnings: [(FieldValue?, Int64)] = [
      (.string("first"), 0), (.string("last"), 19), (.string("next"), 20), (nil, 20),
      (.int64(7), 7), (.int32(-3), 17), (.int64(-1000), 0), (.int64(25), 25),
      (.timestamp(0), 0), (.string("1h"), 0),
    ]
    let readers = try beginnings.map { (try StreamReader(broker, from: $0.0), $0.1) }
    for number in 20..<30 { try channel.publish("\(number)", key: "s") }
    for (reader, first) in readers {
      #expect(try reader.rest().map(\.offset) == Array(first..<30), "from \(first)")
    }
  }

  @Test func readersBeginAtADate() throws {
    var dates: [Int64] = []
    for number in 0..<10 {
      // In a turn, so that the date is that of the record.
      broker.advance(milliseconds: 5000)
      try broker.turn {
        dates.append(broker.broker.now)
        try channel.publish("\(number)", key: "s")
      }
    }
    broker.durableTurn()
    func first(_ seconds: Int64) throws -> Int64? {
      let reader = try StreamReader(broker, from: .timestamp(UInt64(seconds)))
      defer { reader.close() }
      return try reader.read(1).first?.offset
    }
    for (number, date) in dates.enumerated() {
      #expect(try first(date / 1000) == Int64(number), "no later than that second")
      let next = number < 9 ? Int64(number + 1) : nil
      #expect(try first(date / 1000 + 2) == next, "nothing that is older")
    }
    #expect(try first(.max) == nil)
    #expect(try first(1) == 0)
  }

  /// An offset never has two contents: what is not durable is not seen.
  @Test func recordsAreSeenWhenTheyAreDurable() throws {
    let reader = try StreamReader(broker)
    broker.durableTurn()
    let gate = try Gate(disk, .write, ".segment")
    try broker.turn { try channel.publish("a", key: "s") }
    gate.waitUntilReached()
    for _ in 0..<5 { broker.turn() }
    #expect(try reader.taken() == [])
    #expect(try broker.partition().visibleEnd == 0)
    gate.open()
    #expect(try reader.read(1).map(\.text) == ["a"])
  }

  @Test func aLogThatFailsShowsNothing() throws {
    let reader = try StreamReader(broker)
    try channel.publish("a", key: "s")
    #expect(try reader.read(1).map(\.text) == ["a"])
    disk.fail(.write, ".segment")
    try broker.turn { try channel.publish("b", key: "s") }
    #expect(try reader.rest() == [])
    #expect(broker.journal.failure != nil)
    #expect(try StreamReader(broker).rest().map(\.text) == ["a"])
    disk.set(nil)
  }

  @Test func confirmsComeWhenTheLogHasIt() throws {
    let client = broker.connect()
    let publisher = client.open()
    try publisher.startConfirming()
    for number in 0..<10 { try publisher.publish("\(number)", key: "s") }
    broker.durableTurn()
    #expect(client.events() == [.confirmed(10, isMultiple: true, on: 1)])
  }

  // MARK: Partitions

  @Test func aKeyAlwaysGoesToItsPartition() throws {
    try channel.declareStream("p", ["x-stream-partitions": .int32(8)])
    try channel.bind("p", to: "amq.topic", key: "#")
    for number in 0..<400 {
      try channel.publish("\(number)", to: "amq.topic", key: Name("key-\(number % 40)"))
    }
    let found = try StreamReader(broker, "p").rest()
    #expect(found.count == 400)
    for record in found {
      let number = try #require(Int(record.text))
      let key = Array("key-\(number % 40)".utf8)
      #expect(record.partition == Int64(Murmur2.partition(of: key.span.bytes, count: 8)))
    }
    for index in 0..<8 {
      let mine = found.filter { $0.partition == Int64(index) }
      #expect(mine.map(\.offset) == (0..<mine.count).map { Int64($0) })
      #expect(mine.map { Int($0.text)! } == mine.map { Int($0.text)! }.sorted())
      let reader = try StreamReader(broker, "p", partition: Int32(index))
      #expect(try reader.rest().map(\.text) == mine.map(\.text))
    }
  }

  @Test func whatHasNoKeyStaysTogetherInATurn() throws {
    try channel.declareStream(
      "p", ["x-stream-partitions": .int32(4), "x-stream-partition-key": .string("header:k")])
    for turn in 0..<8 {
      try broker.turn {
        for number in 0..<5 { try channel.publish("\(turn)-\(number)", key: "p") }
      }
    }
    broker.durableTurn()
    let found = try StreamReader(broker, "p").rest()
    #expect(found.count == 40)
    var partitions: [String: Set<Int64?>] = [:]
    for record in found {
      partitions[String(record.text.prefix(1)), default: []].insert(record.partition)
    }
    #expect(partitions.values.allSatisfy { $0.count == 1 })
    #expect(Set(partitions.values).count == 4, "the turns go round")
  }

  // MARK: What readers do

  @Test func readersGetNoMoreThanTheyHaveRoomFor() throws {
    for number in 0..<50 { try channel.publish("\(number)", key: "s") }
    let reader = try StreamReader(broker, prefetch: 7)
    let first = try reader.rest()
    #expect(first.map(\.offset) == Array(0..<7))
    try reader.channel.acknowledge(first[2].tag, isMultiple: true)
    let second = try reader.rest()
    #expect(second.map(\.offset) == Array(7..<10))
    try reader.channel.reject(first[3].tag, isMultiple: false, requeues: false)
    #expect(try reader.rest().map(\.offset) == [10], "what is refused is read")
    #expect(broker.stream()?.readyCount == 50, "reading takes nothing away")
  }

  @Test func whatIsGivenBackComesAgainInItsOrder() throws {
    for number in 0..<50 { try channel.publish("\(number)", key: "s") }
    let reader = try StreamReader(broker, prefetch: 10)
    let first = try reader.rest()
    for index in [7, 2, 5] {
      try reader.channel.reject(first[index].tag, isMultiple: false, requeues: true)
    }
    let again = try reader.rest()
    #expect(again.map(\.offset) == [2, 5, 7])
    #expect(again.map(\.isRedelivered) == again.map { _ in true })
    #expect(again.map(\.text) == ["2", "5", "7"])
    try reader.channel.acknowledge(again[2].tag, isMultiple: true)
    let next = try reader.rest()
    #expect(next.map(\.offset) == Array(10..<20))
    #expect(!next.contains { $0.isRedelivered })
  }

  /// A partition that gets nothing does not note its reader again and again.
  @Test func aReaderWaitsOnceAtEachPartition() throws {
    try channel.declareStream(
      "p", ["x-stream-partitions": .int32(2), "x-stream-partition-key": .string("routing-key")])
    let reader = try StreamReader(broker, "p", prefetch: 100)
    for _ in 0..<50 {
      try channel.publish("x", key: "p")
      broker.durableTurn()
    }
    #expect(try reader.rest().count == 50)
    for partition in try #require(broker.stream("p")).partitions {
      #expect(partition.waitingCount == 1)
    }
    reader.close()
    broker.finishChores()
    #expect(broker.stream("p")?.partitions.contains { $0.waitingCount > 0 } == false)
  }

  @Test func aReaderThatGoesLeavesNothing() throws {
    let texts = (0..<300).map { "\($0)" }
    for text in texts { try channel.publish(text, key: "s") }
    broker.durableTurn()
    let before = broker.referenceCount
    let readers = try (1...5).map { try StreamReader(broker, prefetch: $0 * 20) }
    for reader in readers { #expect(try reader.rest().count > 0) }
    #expect(broker.referenceCount > before)
    for reader in readers { reader.close() }
    broker.finishChores()
    broker.durableTurn()
    #expect(broker.referenceCount == before)
    #expect(broker.stream()?.consumerCount == 0)
    try broker.expect(texts)
  }

  @Test func aStreamThatIsDeletedLeavesNothing() throws {
    for number in 0..<300 { try channel.publish("\(number)", key: "s") }
    let reader = try StreamReader(broker, prefetch: 20)
    #expect(try reader.rest().count == 20)
    try channel.delete("s")
    #expect(try reader.rest() == [])
    #expect(reader.isCancelled)
    reader.close()
    broker.finishChores()
    broker.expectNothingHeld()
    let again = try broker.crashed(settings: .moving)
    #expect(again.stream() == nil)
    again.expectNothingHeld()
  }
}
