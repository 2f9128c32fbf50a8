import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// Damage of every kind: the broker refuses to start, `verify` says it, `repair` mends it, and every
/// message that was sound is there.
@Suite struct JournalRepairTests {
  @Test func aSoundJournalIsCountedAsTheBrokerFindsIt() throws {
    for spilling in [true, false] {
      let damaged = try DamagedJournal(spilling: spilling)
      #expect(try damaged.names(".lanes").isEmpty != spilling)
      let before = try damaged.snapshot()
      let verification = try damaged.verify()
      #expect(verification.problems == [])
      for queue in verification.queues {
        #expect(queue.count == damaged.contents[queue.name]?.count)
      }
      #expect(verification.queues.map(\.name).sorted() == DamagedJournal.queues)
      #expect(try damaged.snapshot() == before)
    }
  }

  @Test func flippedBytesInTheMiddleOfTheLog() throws {
    let damaged = try DamagedJournal(spilling: false)
    try damaged.flip(SegmentFiles.name(0), SegmentHeader.pageBytes + 300_000)
    let report = try expectRepair(damaged, names: SegmentFiles.name(0))
    #expect(report.contains("up to 1 lost"), "\(report)")
    #expect(try damaged.found()["first"]!.count == damaged.contents["first"]!.count - 1)
    #expect(try FileSystem.list(damaged.repaired).contains { $0.hasPrefix("log-") })
    // What was delivered may have stood in what is lost.
    let broker = try TestBroker(in: damaged.copied())
    let deliveries = try broker.connect().open().drain("first")
    let countRedelivered = deliveries.count(where: \.isRedelivered)
    #expect(countRedelivered == deliveries.count)
  }

  /// The old journal stays where it is when the new one cannot be finished.
  @Test func aRepairThatFailsChangesNothing() throws {
    let damaged = try DamagedJournal()
    try damaged.flip(try damaged.names(".segment")[0], 40)
    let before = try damaged.snapshot()
    // In the way of the report, which is written last.
    try FileSystem.makeDirectories(damaged.repaired + "/report.txt")
    #expect(throws: JournalError.self) { _ = try damaged.repair() }
    #expect(try damaged.snapshot() == before)
    #expect(!FileSystem.exists(damaged.repaired + "/journal-new"))
  }

  @Test(arguments: [1, 2, 3, 5, 8, 13, 21])
  func flippedBytesAnywhereInTheLog(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let damaged = try DamagedJournal(spilling: seed.isMultiple(of: 2))
    let name = try #require(damaged.names(".segment").first)
    for _ in 0..<3 { try damaged.flip(name, SegmentHeader.pageBytes + random.number(0..<400_000)) }
    guard try damaged.refusal() != nil else { return }
    try expectRepair(damaged, names: name, atLeast: 0.8)
  }

  @Test func aSegmentThatIsCut() throws {
    let damaged = try DamagedJournal(spilling: false)
    try damaged.cut(SegmentFiles.name(0), to: SegmentHeader.pageBytes + 500_000)
    try expectRepair(damaged, names: SegmentFiles.name(0), atLeast: 0.2)
  }

  @Test func aSegmentThatIsMissing() throws {
    for spilling in [true, false] {
      let damaged = try DamagedJournal(spilling: spilling)
      let name = try damaged.names(".segment")[spilling ? 0 : 1]
      try damaged.remove(name)
      try expectRepair(damaged, names: name, saying: "missing", atLeast: 0.5)
    }
  }

  @Test func aSegmentHeaderThatIsDamaged() throws {
    for spilling in [true, false] {
      let damaged = try DamagedJournal(spilling: spilling)
      let name = try #require(damaged.names(".segment").first)
      try damaged.flip(name, 40)
      try expectRepair(damaged, names: name, atLeast: 1)
    }
  }

  @Test func aBlockOfALaneFile() throws {
    let damaged = try DamagedJournal()
    let name = try damaged.names(".lanes")[1]
    let block = try LaneTable(SystemDisk(), damaged.path(name)).blocks[0]
    try damaged.flip(name, block.offset + block.size / 2)
    let lost = block.durableCount
    let report = try expectRepair(damaged, names: name, refuses: false)
    #expect(report.contains("up to \(lost) lost"), "\(report)")
    #expect(FileSystem.exists(damaged.repaired + "/" + JournalRepair.name(block)))
    let messages = try FileSystem.readWhole(
      damaged.repaired + "/" + JournalRepair.messagesName(block))
    let lines = messages.count { $0 == UInt8(ascii: "\n") }
    #expect((lost - 1...lost).contains(lines))
    let queue = try #require(
      damaged.verify().queues.first { $0.id == block.lane - LaneRecord.firstID + 1 })
    #expect(queue.count == damaged.contents[queue.name]!.count - lost)
  }

  @Test func theTableOfALaneFile() throws {
    let damaged = try DamagedJournal()
    let name = try damaged.names(".lanes")[1]
    try damaged.flip(name, FileSystem.readWhole(damaged.path(name)).count - 5)
    try expectRepair(damaged, names: name, atLeast: 1)
  }

  @Test func theHeaderOfALaneFile() throws {
    let damaged = try DamagedJournal()
    let name = try damaged.names(".lanes")[1]
    try damaged.flip(name, 18)
    try expectRepair(damaged, names: name, atLeast: 1)
  }

  @Test func aLaneFileThatIsCut() throws {
    let damaged = try DamagedJournal()
    let name = try damaged.names(".lanes")[1]
    try damaged.cut(name, to: FileSystem.readWhole(damaged.path(name)).count / 2)
    try expectRepair(damaged, names: name, atLeast: 0.5)
  }

  @Test func aLaneFileThatIsMissing() throws {
    let damaged = try DamagedJournal()
    let name = try damaged.names(".lanes")[1]
    let blocks = try LaneTable(SystemDisk(), damaged.path(name)).blocks
    try damaged.remove(name)
    let report = try expectRepair(damaged, names: name)
    let verification = try damaged.verify()
    for queue in verification.queues {
      let lane = verification.census.lanes.values.first { $0.queueID == queue.id }?.id
      let lost = blocks.filter { $0.lane == lane }.reduce(0) { $0 + $1.durableCount }
      #expect(queue.count == damaged.contents[queue.name]!.count - lost)
      if lost > 0 { #expect(report.contains("lost"), "\(report)") }
    }
  }

  @Test func aCheckpointThatIsDamaged() throws {
    let damaged = try DamagedJournal()
    let name = try #require(damaged.names(".checkpoint").last)
    try damaged.flip(name, FileSystem.readWhole(damaged.path(name)).count - 9)
    try expectRepair(damaged, names: name, atLeast: 1, comesBack: true)
  }

  @Test func aCheckpointThatIsMissing() throws {
    let damaged = try DamagedJournal()
    try damaged.remove(#require(damaged.names(".checkpoint").last))
    let name = try #require(damaged.names(".segment").first)
    _ = try damaged.refusal()
    _ = try damaged.repair()
    #expect(try damaged.verify().problems == [])
    #expect(name != SegmentFiles.name(0))
    let found = try damaged.found()
    #expect(Set(found.keys) == ["repaired-1001", "repaired-1002"])
    for (queue, old) in zip(DamagedJournal.queues, ["repaired-1001", "repaired-1002"] as [Name]) {
      #expect(Set(damaged.contents[queue]!).isSubset(of: found[old]!))
    }
  }

  /// Which queue had the lane's messages is said nowhere else.
  @Test func theDeclarationOfALane() throws {
    let damaged = try DamagedJournal(spilling: false)
    let survey = try JournalSurvey(directory: damaged.journal)
    var found: Int?
    try LogSurvey(survey, isPlausible: RecordForm.isPlausible).read { event in
      switch event {
      case .record(let record, _):
        if record.kind == BrokerRecord.Kind.lane.rawValue, found == nil { found = record.position }
      case .damage: break
      }
    }
    let position = try #require(found)
    let place = survey.place(position)
    try damaged.flip(place.file, place.offset + 17)
    _ = try damaged.repair()
    #expect(try damaged.verify().problems == [])
    let contents = try damaged.found()
    #expect(contents["repaired-1001"] == damaged.contents["first"])
    #expect(contents["first"] == [])
    #expect(contents["second"] == damaged.contents["second"])
  }

  /// Several kinds of damage at once, anywhere.
  @Test(arguments: Seeds.all)
  func whateverIsDamagedTheBrokerStartsAfterARepair(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let whole = try DamagedJournal(spilling: !seed.isMultiple(of: 3))
    for round in 0..<6 {
      let damaged = try whole.copy()
      for _ in 0...random.number(0..<4) { try Self.damage(damaged, &random) }
      guard let isSound = try Self.isSound(damaged) else { continue }
      guard !isSound else {
        #expect(try damaged.refusal() == nil, "seed \(seed), round \(round)")
        continue
      }
      let before = try damaged.repair().verification.queues.map(\.count)
      let after = try damaged.verify()
      #expect(after.problems == [], "seed \(seed), round \(round)")
      #expect(after.queues.map(\.count) == before, "seed \(seed), round \(round)")
      let found = try damaged.found()
      for queue in after.queues {
        #expect(found[queue.name]?.count == queue.count, "seed \(seed), round \(round)")
      }
      for (queue, texts) in found {
        let numbers = texts.compactMap { Int($0) }
        #expect(numbers == numbers.sorted(), "seed \(seed), round \(round), \(queue)")
        #expect(Set(numbers).count == texts.count, "seed \(seed), round \(round), \(queue)")
      }
    }
  }

  /// nil if what is damaged looks like another version.
  private static func isSound(_ damaged: DamagedJournal) throws -> Bool? {
    do {
      return try damaged.verify().isSound
    } catch JournalError.older, JournalError.newer {
      return nil
    }
  }

  private static func damage(_ damaged: DamagedJournal, _ random: inout SeededRandom) throws {
    guard let name = random.element(try FileSystem.list(damaged.journal)) else { return }
    let size = try FileSystem.readWhole(damaged.path(name)).count
    switch random.number(0..<10) {
    case 0: try damaged.remove(name)
    case 1: try damaged.cut(name, to: random.number(0..<size + 1))
    case 2: try damaged.flip(name, random.number(0..<min(size, 64)))
    default:
      let start = random.number(0..<size)
      for offset in start..<min(size, start + random.number(1..<5000)) {
        try damaged.flip(name, offset)
      }
    }
  }

  @Test func aNewerVersionIsRefusedAndNotTouched() throws {
    let damaged = try DamagedJournal()
    let name = try #require(damaged.names(".lanes").first)
    try File(damaged.path(name), .readWrite).write(at: 8, [9, 0, 0, 0])
    let before = try damaged.snapshot()
    #expect(throws: JournalError.newer(file: damaged.path(name), version: 9)) {
      try damaged.verify()
    }
    #expect(try damaged.snapshot() == before)
  }

  @Test func anEmptyJournalIsSound() throws {
    let directory = try TemporaryDirectory()
    let verification = try JournalVerification(directory: directory.path)
    #expect(verification.isSound && verification.survey.isEmpty)
    #expect(try FileSystem.list(directory.path) == [])
  }

  // MARK: Repairs that were killed

  /// Where a kill left the two journals before they were exchanged: what was written goes, and the next
  /// repair is as if the first had not been.
  @Test func aRepairThatWasKilledLeavesTheJournalAndIsClearedUp() throws {
    let damaged = try DamagedJournal()
    try damaged.flip(try damaged.names(".segment")[0], 40)
    let before = try damaged.snapshot()
    let new = damaged.repaired + "-1/" + UnfinishedRepair.newName
    try FileSystem.makeDirectories(new)
    for name in ["000.lanes", UnfinishedRepair.mark] {
      _ = try File(new + "/" + name, .readWrite, creates: true)
    }
    let left = try UnfinishedRepair.all(in: damaged.data.path)
    #expect(left.map(\.state) == [.begun])
    try left[0].finish()
    #expect(try FileSystem.list(damaged.data.path) == ["journal"])
    #expect(try damaged.snapshot() == before)
    try expectRepair(damaged, names: damaged.names(".segment")[0], atLeast: 1)
    #expect(try UnfinishedRepair.all(in: damaged.data.path).isEmpty)
  }

  /// The two were exchanged, and the old one had no name yet: it gets it, and is not thrown away.
  @Test func aRepairThatWasKilledBehindTheExchangeIsFinished() throws {
    let damaged = try DamagedJournal()
    try damaged.flip(try damaged.names(".segment")[0], 40)
    let before = try damaged.snapshot()
    _ = try damaged.repair()
    let place = damaged.repaired + "-1"
    try FileSystem.rename(damaged.repaired, place)
    let old = place + "/before"
    try FileSystem.rename(old, place + "/" + UnfinishedRepair.newName)
    _ = try File(damaged.path(UnfinishedRepair.mark), .readWrite, creates: true)
    let left = try UnfinishedRepair.all(in: damaged.data.path)
    try #require(left.map(\.state) == [.exchanged])
    try left[0].finish()
    for (name, bytes) in before { #expect(try FileSystem.readWhole(old + "/" + name) == bytes) }
    #expect(!FileSystem.exists(damaged.path(UnfinishedRepair.mark)))
    #expect(try damaged.verify().problems == [])
  }

  /// Nothing shows what stood in a segment that was the last and is gone.
  @Test func whatStoodAtTheDamagedEndIsUnknown() throws {
    let damaged = try DamagedJournal(spilling: false)
    let name = try #require(damaged.names(".segment").last)
    try damaged.remove(name)
    let report = try expectRepair(damaged, names: name, saying: "missing", atLeast: 0.2)
    #expect(report.contains("an unknown number lost"), "\(report)")
    #expect(!report.contains(" kept, up to"), "\(report)")
  }

  // MARK: What holds for all damage

  /// Expects that the broker does not start, that `verify` names the file and changes nothing, and
  /// that after a repair the broker has what is left, in order, and at least a share of all. Returns the
  /// report.
  @discardableResult
  private func expectRepair(
    _ damaged: DamagedJournal, names file: String, saying words: String? = nil,
    refuses: Bool = true, atLeast share: Double = 0,
    comesBack: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> String {
    let refusal = try damaged.refusal()
    if refuses {
      #expect(
        refusal?.contains(words ?? file) == true, "\(refusal ?? "")",
        sourceLocation: sourceLocation)
    }
    let before = try damaged.snapshot()
    let problems = try damaged.verify().problems
    #expect(problems.contains { $0.file == file }, "\(problems)", sourceLocation: sourceLocation)
    #expect(try damaged.snapshot() == before, sourceLocation: sourceLocation)
    let repair = try damaged.repair()
    for (name, bytes) in before {
      let kept = try FileSystem.readWhole(damaged.repaired + "/before/" + name)
      #expect(kept == bytes, "\(name)", sourceLocation: sourceLocation)
    }
    let report = try FileSystem.readWhole(damaged.repaired + "/report.txt")
    #expect(String(decoding: report, as: UTF8.self) == repair.report)
    #expect(try damaged.verify().problems == [], sourceLocation: sourceLocation)
    let found = try damaged.found()
    for (queue, wanted) in damaged.contents {
      let numbers = found[queue, default: []].map { Int($0)! }
      #expect(numbers == numbers.sorted(), sourceLocation: sourceLocation)
      #expect(Set(numbers).count == numbers.count, sourceLocation: sourceLocation)
      let kept = Set(wanted).intersection(found[queue, default: []]).count
      #expect(
        Double(kept) >= share * Double(wanted.count), "\(kept) of \(wanted.count)",
        sourceLocation: sourceLocation)
      if !comesBack, repair.verification.census.damage.isEmpty {
        #expect(Set(found[queue, default: []]).isSubset(of: wanted), sourceLocation: sourceLocation)
      }
    }
    return repair.report
  }
}
