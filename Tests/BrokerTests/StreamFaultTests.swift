import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Disks that fail, are full or lie, where segments of streams are written and read.
@Suite struct StreamFaultTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    broker = try TestBroker.moving(disk, settings: settings)
    channel = broker.connect().open()
    try channel.declareStream()
  }

  private func texts(_ range: Range<Int>) -> [String] {
    range.map { "\($0):" + String(repeating: "x", count: 1000) }
  }

  private func publish(_ range: Range<Int>) throws {
    for text in texts(range) { try channel.publish(text, key: "s") }
  }

  private func path(_ suffix: String) throws -> String {
    let name = try #require(try broker.streamFiles(suffix).first)
    return broker.directory.path + "/" + PartitionFiles.directory + "/" + name
  }

  // MARK: Writing

  @Test(arguments: [
    (FaultyDisk.Operation.open, ".batches"), (.open, ".index"), (.write, ".batches"),
    (.write, ".index"), (.sync, ".batches"), (.sync, ".index"), (.read, ".segment"),
    (.syncDirectory, "streams"),
  ])
  func aRoundThatFailsIsTriedAgainLater(operation: FaultyDisk.Operation, part: String) throws {
    try publish(0..<100)
    broker.durableTurn()
    disk.fail(operation, part, code: 28)
    try broker.age(channel)
    broker.work(2)
    let problem = try #require(broker.takeProblem())
    #expect(problem.hasPrefix("messages could not be moved out of the log"))
    #expect(problem.hasSuffix("No space left on device"))
    #expect(try broker.partition().recentStart == 0)
    broker.work(3)
    #expect(broker.takeProblem() == nil, "it is told once and not tried again at once")
    let crashed = try broker.crashed(settings: .moving)
    try crashed.expect(texts(0..<100))
    disk.set(nil)
    try broker.expect(texts(0..<100))
    broker.advance(milliseconds: Journal.spillRetryMilliseconds + 1)
    broker.spillTurns()
    #expect(try broker.partition().recentStart == 100)
    try broker.expect(texts(0..<100))
    #expect(broker.takeProblem() == nil)
    try broker.crashed(settings: .moving).expect(texts(0..<100))
  }

  /// A round in the middle of a segment that fails leaves what was there before.
  @Test(arguments: [1, 2, 3])
  func aRoundThatFailsLeavesWhatMovedBefore(write: Int) throws {
    try publish(0..<200)
    try broker.moveOut(channel)
    try publish(200..<400)
    broker.durableTurn()
    disk.fail(.write, ".batches", first: write, code: 5)
    try broker.age(channel)
    broker.work(2)
    #expect(broker.takeProblem() != nil)
    #expect(try broker.partition().recentStart == 200)
    try broker.expect(texts(0..<400))
    try broker.crashed(settings: .moving).expect(texts(0..<400))
    disk.set(nil)
    broker.advance(milliseconds: Journal.spillRetryMilliseconds + 1)
    broker.spillTurns()
    #expect(try broker.partition().recentStart == 400)
    try broker.expect(texts(0..<400))
  }

  /// What is damaged in the log stays there, with what is behind it, and is told once.
  @Test func aRecordThatIsDamagedInTheLogStays() throws {
    try publish(0..<3)
    broker.durableTurn()
    let position = broker.journal.endPosition
    try channel.publish([UInt8](repeating: 9, count: 4000), key: "s")
    try publish(4..<6)
    broker.durableTurn()
    try damage(
      broker.directory.path + "/" + SegmentFiles.name(0),
      at: SegmentHeader.pageBytes + position + 2000)
    try broker.moveOut(channel)
    let problem = try #require(broker.takeProblem())
    #expect(
      problem.hasPrefix("stream 's' stays in the log from offset 3 on: the record at log position"),
      "\(problem)")
    #expect(try broker.partition().recentStart == 3)
    try broker.moveOut(channel)
    #expect(broker.takeProblem() == nil)
    let reader = try StreamReader(broker)
    #expect(try reader.rest().map(\.text) == texts(0..<3))
    #expect(broker.takeProblem()?.contains("queue 's' is stopped where") == true)
    #expect(reader.isCancelled)
  }

  // MARK: Reading

  /// The reader stops where the damage is, and is told; others that begin behind it read on.
  @Test func aBatchThatIsDamagedStopsItsReader() throws {
    try publish(0..<400)
    try broker.moveOut(channel)
    let batches = try path(".batches")
    let size = try FileSystem.readWhole(batches).count
    try damage(batches, at: size / 2)
    let reader = try StreamReader(broker)
    let found = try reader.rest()
    #expect(found.map(\.text) == texts(0..<found.count))
    #expect(found.count < 400)
    #expect(reader.isCancelled)
    let problem = try #require(broker.takeProblem())
    #expect(
      problem.hasPrefix("queue 's' is stopped where the batch at") && problem.contains(batches)
        && problem.contains("is not what was written"), "\(problem)")
    let behind = try StreamReader(broker, from: .int64(390))
    #expect(try behind.rest().map(\.text) == texts(390..<400))
    #expect(!behind.isCancelled)
    try channel.publish("more", key: "s")
    #expect(try behind.rest().map(\.text) == ["more"])
  }

  @Test func aBatchThatIsCutStopsItsReader() throws {
    try publish(0..<400)
    try broker.moveOut(channel)
    let batches = try path(".batches")
    let bytes = try FileSystem.readWhole(batches)
    try FileSystem.remove(batches)
    try File(batches, .readWrite, creates: true).write(at: 0, Array(bytes[..<(bytes.count - 7)]))
    let reader = try StreamReader(broker)
    let found = try reader.rest()
    #expect(found.map(\.text) == texts(0..<found.count))
    #expect(found.count < 400)
    #expect(reader.isCancelled)
    #expect(broker.takeProblem()?.contains("queue 's' is stopped where") == true)
  }

  /// An index that says something else is not believed.
  @Test func anIndexThatIsDamagedNeverLeadsAstray() throws {
    try publish(0..<400)
    try broker.moveOut(channel)
    let index = try path(".index")
    let bytes = try FileSystem.readWhole(index)
    #expect(bytes.count >= 3 * PartitionFiles.indexEntryBytes)
    for place in 0..<bytes.count {
      var changed = bytes
      changed[place] ^= 0x81
      try File(index, .readWrite).write(at: 0, changed)
      let reader = try StreamReader(broker, from: .int64(250))
      let found = try reader.read(10)
      if !found.isEmpty {
        #expect(found.map(\.offset) == Array(250..<260), "\(place)")
        #expect(found.map(\.text) == texts(250..<260), "\(place)")
      } else {
        #expect(reader.isCancelled, "\(place)")
      }
      reader.close()
      broker.work(1)
    }
    _ = broker.takeProblem()
  }

  @Test(arguments: [".batches", ".index"])
  func aFileThatIsGoneIsToldAndTriedAgain(suffix: String) throws {
    try publish(0..<400)
    try broker.moveOut(channel)
    let path = try path(suffix)
    try FileSystem.rename(path, path + ".away")
    let reader = try StreamReader(broker, from: .int64(250))
    #expect(try reader.rest() == [])
    let problem = try #require(broker.takeProblem())
    #expect(problem.contains("could not be read back") && problem.contains(path), "\(problem)")
    #expect(!reader.isCancelled)
    try FileSystem.rename(path + ".away", path)
    broker.advance(milliseconds: 3000)
    #expect(try reader.rest().map(\.offset) == Array(250..<400))
  }

  /// Who reads it is not left waiting for ever.
  @Test(arguments: [".batches", ".index"])
  func aFileThatStaysAwayEndsItsReader(suffix: String) throws {
    try publish(0..<400)
    try broker.moveOut(channel)
    let path = try path(suffix)
    try FileSystem.remove(path)
    let reader = try StreamReader(broker, from: .int64(250))
    for _ in 0...Journal.readTriesMax where !reader.isCancelled {
      #expect(try reader.rest() == [])
      broker.advance(milliseconds: Broker.unreadableMilliseconds + 1)
    }
    #expect(reader.isCancelled)
    let problems = broker.journal.takeProblems()
    #expect(problems.count == 2, "\(problems)")
    #expect(problems.first?.contains("could not be read back") == true)
    #expect(
      problems.last?.hasPrefix("queue 's' is stopped where messages could not be read in") == true)
    #expect(problems.allSatisfy { $0.contains(path) })
  }

  @Test func aReadThatFailsIsTriedAgain() throws {
    try publish(0..<400)
    try broker.moveOut(channel)
    disk.fail(.read, ".batches", count: 2)
    let reader = try StreamReader(broker)
    var found = try reader.rest()
    for _ in 0..<5 {
      broker.advance(milliseconds: 3000)
      found += try reader.rest()
    }
    #expect(found.map(\.text) == texts(0..<400))
    #expect(broker.takeProblem()?.contains("could not be read back") == true)
  }
}
