import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What a stop or a crash leaves of streams.
@Suite struct StreamRecoveryTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving(disk)
    channel = broker.connect().open()
    try channel.declareStream()
  }

  private func texts(_ range: Range<Int>) -> [String] {
    range.map { "\($0):" + String(repeating: "x", count: 1000) }
  }

  private func publish(_ range: Range<Int>, to stream: Name = "s") throws {
    for text in texts(range) { try channel.publish(text, key: stream) }
  }

  @Test func anOrderlyStopKeepsAll() throws {
    try publish(0..<300)
    try broker.moveOut(channel)
    try publish(300..<350)
    let again = try broker.restarted(settings: .moving)
    try again.expect(texts(0..<350))
    let next = again.connect().open()
    try next.publish("more", key: "s")
    again.durableTurn()
    try again.expect(texts(0..<350) + ["more"])
  }

  /// A new log would take segments for those of nobody, and remove them.
  @Test func segmentsWithoutTheirLogAreRefused() throws {
    try publish(0..<300)
    try broker.moveOut(channel)
    broker.close()
    let copy = try broker.directory.copy()
    for name in try FileSystem.list(copy.path)
    where name.hasSuffix(".segment") || name.hasSuffix(".checkpoint") {
      try FileSystem.remove(copy.path + "/" + name)
    }
    let before = try FileSystem.list(copy.path + "/streams")
    #expect(!before.isEmpty)
    #expect(throws: JournalError.self) { try TestBroker(in: copy, settings: .moving) }
    #expect(try FileSystem.list(copy.path + "/streams") == before)
  }

  @Test func declarationAndPartitionsComeBack() throws {
    let arguments: FieldTable = [
      "x-stream-partitions": .int32(5), "x-stream-partition-key": .string("message-id"),
      "x-max-age": .string("7D"), "x-max-length-bytes": .int64(1 << 30),
      "x-stream-max-segment-size-bytes": .int64(1 << 20),
    ]
    try channel.declareStream("p", arguments)
    try channel.bind("p", to: "amq.topic", key: "a.#")
    broker.durableTurn()
    let again = try broker.crashed(settings: .moving)
    let next = again.connect().open()
    try next.declareStream("p", arguments)
    let stream = try #require(again.stream("p"))
    #expect(stream.partitions.count == 5)
    #expect(stream.settings.key == .property(.messageID))
    #expect(stream.settings.segmentBytesMax == 1 << 20)
    try next.publish("x", to: "amq.topic", key: "a.b")
    again.durableTurn()
    #expect(stream.readyCount == 1)
  }

  /// At every round and checkpoint a crash leaves all that was durable, each with its offset.
  @Test func crashesBetweenRoundsAndCheckpointsKeepAll() throws {
    var end = 0
    for round in 0..<8 {
      try publish(end..<end + 60)
      end += 60
      broker.durableTurn()
      try broker.crashed(settings: .moving).expect(texts(0..<end))
      try broker.age(channel)
      broker.work(round % 3)
      try broker.crashed(settings: .moving).expect(texts(0..<end))
      if round % 2 == 1 { broker.spillTurns() }
      try broker.crashed(settings: .moving).expect(texts(0..<end))
    }
    try broker.expect(texts(0..<end))
  }

  /// A round that no checkpoint has comes from the log again, and its files are written over.
  @Test func aRoundThatDidNotCountIsWrittenOver() throws {
    try publish(0..<200)
    try broker.moveOut(channel)
    try publish(200..<400)
    try broker.age(channel)
    // The round is written, and the broker is not told.
    broker.turn()
    broker.drainWorkers()
    let crashed = try broker.crashed(settings: .moving)
    try crashed.expect(texts(0..<400))
    let next = crashed.connect().open()
    for text in texts(400..<450) { try next.publish(text, key: "s") }
    try crashed.moveOut(next)
    #expect(try crashed.partition().recentStart == 450)
    try crashed.expect(texts(0..<450))
    try crashed.crashed(settings: .moving).expect(texts(0..<450))
  }

  @Test func filesThatNobodyKnowsGoAtTheStart() throws {
    try publish(0..<200)
    try broker.moveOut(channel)
    broker.quietTurn()
    let copy = try broker.directory.copy()
    for name in ["00000bad-0000000000000000.batches", "00000bad-0000000000000000.index"] {
      try File(
        copy.path + "/" + PartitionFiles.directory + "/" + name, .readWrite, creates: true
      ).write(at: 0, [1, 2, 3])
    }
    let again = try TestBroker(in: copy, settings: .moving, disk: FaultyDisk())
    again.drainWorkers()
    #expect(try again.streamFiles().count == 1)
    #expect(try again.streamFiles(".index").count == 1)
    try again.expect(texts(0..<200))
  }

  @Test func aStartWithoutRecordsInTheLogKnowsTheDates() throws {
    try publish(0..<200)
    try broker.moveOut(channel)
    broker.quietTurn()
    let again = try broker.crashed(settings: .moving)
    #expect(try again.partition().end == again.partition().recentStart)
    let late = UInt64(again.broker.now / 1000 + 3600)
    let reader = try StreamReader(again, from: .timestamp(late))
    #expect(try reader.rest() == [])
    let early = try StreamReader(again, from: .timestamp(1))
    #expect(try early.read(1).first?.offset == 0)
  }

  /// Of records that moved and were given up since the checkpoint none comes back, however often it starts.
  @Test func whatWasGivenUpBehindTheCheckpointStaysAway() throws {
    try channel.declareStream(
      "r",
      ["x-stream-max-segment-size-bytes": .int64(20_000), "x-max-length-bytes": .int64(50_000)]
    )
    broker.quietTurn()
    // No checkpoint from here on: what moves stands in the log as well.
    disk.set { operation, path in
      operation == .open && FaultyDisk.contains(path, ".checkpoint") ? 28 : nil
    }
    for round in 0..<6 {
      try publish(round * 50..<round * 50 + 50, to: "r")
      try broker.age(channel)
      broker.work()
    }
    let start = try broker.partition(of: "r").start
    #expect(start > 0)
    broker.durableTurn()
    broker.drainWorkers()
    var again = try broker.crashed(settings: .moving)
    for _ in 0..<3 {
      let partition = try again.partition(of: "r")
      #expect(partition.start == start)
      try again.expect(texts(Int(start)..<300), from: Int64(start), in: "r")
      again.broker.beginCheckpoint()
      again.quietTurn()
      again = try again.crashed(settings: .moving)
    }
    let next = again.connect().open()
    try again.moveOut(next)
    try again.crashed(settings: .moving).expect(
      texts(Int(again.partition(of: "r").start)..<300),
      from: Int64(again.partition(of: "r").start), in: "r")
  }
}
