import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// Streams in a journal that is verified and repaired: what is sound stays, with its offset.
@Suite struct StreamRepairTests {
  // MARK: Sound

  @Test func aSoundJournalIsCounted() throws {
    let damaged = try DamagedStream()
    let before = try damaged.snapshot()
    let verification = try damaged.verify()
    #expect(verification.problems == [])
    let stream = try #require(verification.queues.first { $0.name == "s" })
    #expect(stream.count == DamagedStream.count && stream.isStream)
    #expect(stream.inLog > 0 && stream.inLanes > 0)
    #expect(verification.queues.first { $0.name == "q" }?.count == 20)
    #expect(verification.segmentCount == (try damaged.names(".batches").count))
    #expect(verification.survey.strangers == [])
    #expect(try damaged.snapshot() == before)
    #expect(try damaged.found() == damaged.contents)
  }

  @Test func whatIsBehindTheEndsDoesNotCount() throws {
    let damaged = try DamagedStream()
    for name in try damaged.names(".batches") + damaged.names(".index") {
      let file = try File(damaged.path(name), .readWrite)
      try file.write(at: try file.size, [UInt8](repeating: 7, count: 1000))
    }
    #expect(try damaged.verify().problems == [])
  }

  /// A repair for another reason leaves streams as they are.
  @Test func aRepairOfSomethingElseKeepsAll() throws {
    let damaged = try DamagedStream()
    try damaged.flip(try #require(damaged.names(".segment").first), 40)
    let segments = try damaged.names(".batches").count
    let report = try damaged.repair().report
    let lines = report.split(separator: "\n").filter { $0.contains("\"s\" (") }
    #expect(!lines.isEmpty && !lines.contains { $0.contains("lost") }, "\(report)")
    try damaged.expectRepaired(lost: [])
    #expect(try damaged.names(".batches").count > segments, "the log's records are in further ones")
  }

  /// The checkpoint alone has their offsets, and the log alone that one of them is gone.
  @Test func groupsOfConsumersStay() throws {
    let damaged = try DamagedStream()
    var kinds: Set<UInt8> = []
    try LogSurvey(try damaged.survey(), isPlausible: RecordForm.isPlausible).read { event in
      if case .record(let record, _) = event { kinds.insert(record.kind) }
    }
    #expect(kinds.contains(BrokerRecord.Kind.groupDeleted.rawValue))
    try #require(!kinds.contains(BrokerRecord.Kind.groupOffset.rawValue))
    for isRepaired in [false, true] {
      if isRepaired {
        try damaged.cut(try #require(damaged.names(".batches").last), to: 10)
        #expect(try !damaged.repair().report.isEmpty)
      }
      let groups = try #require(try TestBroker(in: damaged.copied()).stream()).groups
      #expect(groups.keys.sorted() == ["g"], "repaired: \(isRepaired)")
      #expect(groups["g"]?.committed(0) == 50, "repaired: \(isRepaired)")
    }
  }

  /// What is published behind a repair has offsets of its own.
  @Test func aRepairedStreamGoesOn() throws {
    let damaged = try DamagedStream()
    try damaged.flip(try #require(damaged.names(".segment").first), 40)
    _ = try damaged.repair()
    let broker = try TestBroker(in: damaged.copied(), settings: .moving, disk: FaultyDisk())
    let channel = broker.connect().open()
    for number in 0..<50 { try channel.publish("more \(number)", key: "s") }
    try broker.moveOut(channel)
    let found = try broker.readAll()
    #expect(found.count == DamagedStream.count + 50)
    #expect(found.map(\.offset) == (0..<found.count).map { Int64($0) })
    #expect(found.suffix(50).map(\.text) == (0..<50).map { "more \($0)" })
    let again = try broker.crashed(settings: .moving)
    #expect(try again.readAll() == found)
  }

  // MARK: Segments

  @Test func aBatchThatIsDamaged() throws {
    let damaged = try DamagedStream()
    let (name, segment) = try damaged.segment(1)
    let batch = try damaged.batches(segment)[1]
    try damaged.flip(name, batch.position + batch.bytes / 2)
    let lost = Array(batch.first..<batch.end)
    let problems = try damaged.verify().problems
    #expect(problems.count == 1 && problems[0].file == name)
    #expect(problems.first?.offset == batch.position)
    #expect(problems.first?.text.contains("offsets \(lost[0])-\(lost[lost.count - 1])") == true)
    let report = try damaged.repair().report
    #expect(
      report.contains("up to \(lost.count) lost: offsets \(lost[0])-\(lost[lost.count - 1])"),
      "\(report)")
    #expect(
      try FileSystem.list(damaged.repaired).contains { $0.hasSuffix(".damaged") })
    try damaged.expectRepaired(lost: lost)
  }

  /// Its checksum does not tell.
  @Test func aBatchWhoseOffsetIsDamaged() throws {
    let damaged = try DamagedStream()
    let (name, segment) = try damaged.segment(1)
    let batch = try damaged.batches(segment)[1]
    try damaged.flip(name, batch.position + 7)
    _ = try damaged.repair()
    try damaged.expectRepaired(lost: Array(batch.first..<batch.end))
  }

  @Test func theLastBatchOfTheLastSegment() throws {
    let damaged = try DamagedStream()
    let (name, segment) = try damaged.segment(-1)
    let batch = try #require(damaged.batches(segment).last)
    try damaged.flip(name, batch.position + 70)
    _ = try damaged.repair()
    try damaged.expectRepaired(lost: Array(batch.first..<batch.end))
  }

  @Test func aSegmentThatIsCut() throws {
    let damaged = try DamagedStream()
    let (name, segment) = try damaged.segment(1)
    let batches = try damaged.batches(segment)
    try damaged.cut(name, to: batches[1].position + 10)
    #expect(try damaged.verify().problems.contains { $0.file == name })
    _ = try damaged.repair()
    try damaged.expectRepaired(lost: Array(batches[1].first..<segment.end))
  }

  @Test(arguments: [0, 1, -1])
  func aSegmentThatIsMissing(number: Int) throws {
    let damaged = try DamagedStream()
    let (name, segment) = try damaged.segment(number)
    try damaged.remove(name)
    let problems = try damaged.verify().problems
    #expect(problems.map(\.file) == [name])
    #expect(problems.first?.text.contains("missing") == true)
    let report = try damaged.repair().report
    #expect(report.contains("lost: offsets \(segment.base)-\(segment.end - 1)"), "\(report)")
    try damaged.expectRepaired(lost: Array(segment.base..<segment.end))
  }

  @Test func anIndexThatIsDamagedOrMissingIsMadeAnew() throws {
    for isMissing in [true, false] {
      let damaged = try DamagedStream()
      let (name, _) = try damaged.segment(1)
      let index = name.dropLast(".batches".count) + ".index"
      if isMissing {
        try damaged.remove(String(index))
      } else {
        try damaged.flip(String(index), PartitionFiles.indexEntryBytes + 8)
      }
      #expect(try damaged.verify().problems.map(\.file) == [String(index)])
      _ = try damaged.repair()
      try damaged.expectRepaired(lost: [])
    }
  }

  // MARK: The log and the checkpoint

  /// Of records in the log that are lost the offsets stay free.
  @Test func aDamagedRangeOfTheLog() throws {
    let damaged = try DamagedStream()
    let position = try damaged.position(ofOffset: UInt64(DamagedStream.count - 10))
    let place = JournalPlace(try damaged.survey().place(position))
    try damaged.flip(place.file, place.offset + 60)
    #expect(try damaged.refusal() != nil)
    _ = try damaged.repair()
    try damaged.expectRepaired(lost: [UInt64(DamagedStream.count - 10)])
  }

  /// Nothing shows how many records stood there: the next one's offset is above all that they can have had.
  @Test func aDamagedEndOfTheLog() throws {
    let damaged = try DamagedStream()
    let position = try damaged.position(ofOffset: UInt64(DamagedStream.count - 3))
    let place = JournalPlace(try damaged.survey().place(position))
    for record in 0..<3 { try damaged.flip(place.file, place.offset + 60 + record * 1200) }
    guard try damaged.refusal() != nil else { return }
    _ = try damaged.repair()
    #expect(try damaged.verify().problems == [])
    let broker = try TestBroker(in: damaged.copied(), settings: .moving, disk: FaultyDisk())
    let channel = broker.connect().open()
    try channel.publish("more", key: "s")
    let found = try broker.readAll()
    #expect(found.last?.text == "more")
    #expect(try #require(found.last?.offset) >= Int64(DamagedStream.count))
  }

  @Test func aCheckpointThatIsDamaged() throws {
    let damaged = try DamagedStream()
    let name = try #require(damaged.names(".checkpoint").last)
    // The last of its records is of the journal.
    try damaged.flip(name, 57)
    _ = try damaged.repair()
    try damaged.expectRepaired(lost: [])
  }

  @Test func aCheckpointThatIsMissing() throws {
    let damaged = try DamagedStream()
    for name in try damaged.names(".checkpoint") { try damaged.remove(name) }
    _ = try damaged.repair()
    #expect(try damaged.verify().problems == [])
    let name = try #require(
      damaged.verify().queues.first { $0.isStream && $0.count >= DamagedStream.count }?.name)
    let broker = try TestBroker(in: damaged.copied())
    let found = try broker.readAll(name)
    #expect(found.map { String($0.text.prefix { $0 != ":" }) } == damaged.contents.map(\.text))
    #expect(found.map(\.offset) == damaged.contents.map(\.offset))
  }

  // MARK: Anything

  @Test(arguments: Seeds.all)
  func whateverIsDamagedKeepsItsOffset(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let whole = try DamagedStream()
    for round in 0..<5 {
      let damaged = try whole.copy()
      for _ in 0...random.number(0..<3) { try Self.damage(damaged, &random) }
      let comment: Comment = "seed \(seed), round \(round)"
      do {
        guard try !damaged.verify().isSound else {
          #expect(try damaged.refusal() == nil, comment)
          continue
        }
      } catch JournalError.older, JournalError.newer {
        continue
      }
      let before = try damaged.repair().verification.queues.map(\.count)
      let after = try damaged.verify()
      #expect(after.problems == [], comment)
      #expect(after.queues.map(\.count) == before, comment)
      for stream in after.queues where stream.isStream {
        let found = try damaged.found(stream.name)
        #expect(found.count == stream.count, comment)
        // A declaration may be lost, and its name; what an offset had it has.
        for record in found {
          #expect(record == damaged.contents.first { $0.offset == record.offset }, comment)
        }
      }
    }
  }

  private static func damage(_ damaged: DamagedStream, _ random: inout SeededRandom) throws {
    let names =
      try damaged.names(".batches") + damaged.names(".index") + damaged.names(".checkpoint")
      + damaged.names(".segment")
    guard let name = random.element(names) else { return }
    let size = try FileSystem.readWhole(damaged.path(name)).count
    switch random.number(0..<8) {
    case 0: try damaged.remove(name)
    case 1: try damaged.cut(name, to: random.number(0..<size + 1))
    default:
      guard size > 0 else { return }
      let start = random.number(0..<size)
      for offset in start..<min(size, start + random.number(1..<3000)) {
        try damaged.flip(name, offset)
      }
    }
  }
}

struct JournalPlace {
  let file: String
  let offset: Int

  init(_ place: (file: String, offset: Int)) { (file, offset) = place }
}

/// A data directory with a stream of one partition, of which most is in segments, and a queue.
final class DamagedStream {
  struct Content: Equatable {
    let offset: Int64?
    let text: String
  }

  static let count = 330
  let data: TemporaryDirectory
  let contents: [Content]
  var journal: String { data.path + "/journal" }
  var repaired: String { data.path + "/repair" }

  init() throws {
    data = try TemporaryDirectory()
    let broker = try TestBroker(settings: .moving, disk: FaultyDisk())
    let channel = broker.connect().open()
    try channel.declareStream(
      "s", ["x-stream-max-segment-size-bytes": .int64(80_000)])
    try channel.declare("q", isDurable: true)
    for number in 0..<20 { try channel.publish("\(number)", key: "q", isPersistent: true) }
    for round in 0..<6 {
      for number in round * 50..<round * 50 + 50 {
        try channel.publish(Self.body(number), key: "s")
      }
      try broker.moveOut(channel)
      if round == 2 { for group in ["g", "gone"] { try Self.read(50, as: group, broker) } }
    }
    broker.quietTurn()
    broker.broker.beginCheckpoint()
    broker.quietTurn()
    broker.turn { broker.vhost.deleteStreamGroup("gone", of: "s") { _ in } }
    for number in 300..<Self.count {
      try broker.durableTurn { try channel.publish(Self.body(number), key: "s") }
    }
    #expect(try broker.partition().recentStart == 300)
    broker.close()
    contents = (0..<Self.count).map { Content(offset: Int64($0), text: "\($0)") }
    try FileSystem.makeDirectories(journal)
    try TemporaryDirectory.copyFiles(from: broker.directory.path, to: journal) {
      !$0.hasPrefix("spare-")
    }
  }

  /// A member of a group of consumers acknowledges so many records, and goes.
  private static func read(_ count: Int, as group: String, _ broker: TestBroker) throws {
    let reader = try StreamReader(broker, group: group, prefetch: count)
    let records = try reader.read(count)
    try reader.channel.acknowledge(try #require(records.last).tag, isMultiple: true)
    broker.durableTurn()
    reader.close()
    broker.durableTurn()
  }

  private init(_ other: DamagedStream) throws {
    data = try TemporaryDirectory()
    contents = other.contents
    try FileSystem.makeDirectories(journal)
    try TemporaryDirectory.copyFiles(from: other.journal, to: journal)
  }

  func copy() throws -> DamagedStream { try DamagedStream(self) }

  private static func body(_ number: Int) -> String {
    "\(number):" + String(repeating: "x", count: 900 + number % 7 * 100)
  }

  // MARK: Files

  func path(_ name: String) -> String { journal + "/" + name }

  /// Names within the journal, those of segments with their directory.
  func names(_ suffix: String) throws -> [String] {
    let streams = path(PartitionFiles.directory)
    let inner =
      FileSystem.isDirectory(streams)
      ? try FileSystem.list(streams).map { PartitionFiles.directory + "/" + $0 } : []
    return try (FileSystem.list(journal) + inner).filter { $0.hasSuffix(suffix) }
  }

  func flip(_ name: String, _ offset: Int) throws {
    let file = try File(path(name), .readWrite)
    var byte: UInt8 = 0
    _ = try withUnsafeMutableBytes(of: &byte) { bytes throws(SystemError) in
      try file.read(at: offset, into: bytes)
    }
    try file.write(at: offset, [byte ^ 0x55])
  }

  func cut(_ name: String, to count: Int) throws {
    let bytes = try FileSystem.readWhole(path(name)).prefix(count)
    try FileSystem.remove(path(name))
    try File(path(name), .readWrite, creates: true).write(at: 0, Array(bytes))
  }

  func remove(_ name: String) throws { try FileSystem.remove(path(name)) }

  func snapshot() throws -> [String: [UInt8]] {
    var files: [String: [UInt8]] = [:]
    for name in try names("") where !FileSystem.isDirectory(path(name)) {
      files[name] = try FileSystem.readWhole(path(name))
    }
    return files
  }

  // MARK: What is in it

  func survey() throws -> JournalSurvey { try JournalSurvey(directory: journal) }

  /// A segment of the checkpoint, also counted from the end.
  func segment(_ number: Int) throws -> (name: String, segment: PartitionSegment) {
    let all = try survey().partitionSegments
    let (partition, segment) = all[number < 0 ? all.count + number : number]
    return (PartitionFiles.batches(partition, base: segment.base), segment)
  }

  func batches(_ segment: PartitionSegment) throws -> [SegmentScan.Batch] {
    let survey = try survey()
    let scan = try SegmentScan(survey, survey.partitionSegments[0].partition, segment)
    #expect(scan.isSound)
    let batches = Array(scan.runs.joined())
    try #require(batches.count > 1)
    return batches
  }

  /// Where the record of an offset stands in the log.
  func position(ofOffset offset: UInt64) throws -> Int {
    let survey = try survey()
    let partition = try #require(survey.partitionSegments.first?.partition)
    var found: Int?
    try LogSurvey(survey, isPlausible: RecordForm.isPlausible).read { event in
      guard case .record(let record, _) = event, let message = RecordForm.message(record) else {
        return
      }
      if message.destinations.contains(where: { $0.lane == partition && $0.sequence == offset + 1 })
      {
        found = record.position
      }
    }
    return try #require(found)
  }

  // MARK: Tools

  func verify() throws -> JournalVerification { try JournalVerification(directory: journal) }

  func repair() throws -> JournalRepair {
    let repair = JournalRepair(try verify())
    try repair.perform(in: repaired, now: 1_700_000_000_000)
    return repair
  }

  func copied() throws -> TemporaryDirectory {
    let copy = try TemporaryDirectory()
    try TemporaryDirectory.copyFiles(from: journal, to: copy.path)
    return copy
  }

  func refusal() throws -> String? {
    let copy = try copied()
    do {
      _ = try TestBroker(in: copy)
      return nil
    } catch let error as JournalError {
      return "\(error)"
    }
  }

  func found(_ name: Name = "s") throws -> [Content] {
    try TestBroker(in: copied()).readAll(name).map {
      Content(offset: $0.offset, text: String($0.text.prefix { $0 != ":" }))
    }
  }

  /// All but some offsets are there, and the next reader is told how many are not.
  func expectRepaired(
    lost: [UInt64], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    #expect(try verify().problems == [], sourceLocation: sourceLocation)
    let left = contents.filter { !lost.contains(UInt64($0.offset ?? 0)) }
    #expect(try found() == left, sourceLocation: sourceLocation)
    let broker = try TestBroker(in: copied())
    let records = try broker.readAll()
    let isFirstLost = lost.contains(0)
    let skipped = records.reduce(0) { $0 + ($1.skipped ?? 0) }
    // A reader that begins with the first one misses nothing before it.
    #expect(skipped == (isFirstLost ? 0 : Int64(lost.count)), sourceLocation: sourceLocation)
    #expect(broker.takeProblem() == nil, sourceLocation: sourceLocation)
    let channel = broker.connect().open()
    #expect(try channel.drain("q").count == 20, sourceLocation: sourceLocation)
  }
}
