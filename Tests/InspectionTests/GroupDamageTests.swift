import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal
@testable import JournalTests

/// What tools make of groups: whole ones are there, and of one that is damaged nothing is.
@Suite struct GroupDamageTests {
  /// Messages 1; 2, 3 and 4 as one; 5, each in a batch of its own but for the group.
  private static func makeLog() throws -> (TemporaryDirectory, group: Range<Int>) {
    let directory = try TemporaryDirectory()
    var environment = Journal.Environment()
    environment.disk = FaultyDisk()
    var settings = Harness.small
    settings.segmentBytes = 64 << 10
    let harness = try Harness(directory.path, settings, environment: environment)
    let append = { (number: UInt32) in
      _ = harness.append(Message(number: number, body: [UInt8](repeating: 3, count: 40)))
    }
    append(1)
    harness.settle()
    let begin = harness.journal.endPosition
    harness.journal.group { for number in UInt32(2)...4 { append(number) } }
    let end = harness.journal.endPosition
    harness.settle()
    append(5)
    harness.settle()
    harness.settle()
    let crashed = try directory.copy()
    harness.close()
    return (crashed, begin..<end)
  }

  private static func read(
    _ directory: TemporaryDirectory
  ) throws -> (numbers: [UInt32], damage: [Range<Int>]) {
    let log = LogSurvey(try JournalSurvey(directory: directory.path)) { _ in true }
    var numbers: [UInt32] = []
    var damage: [Range<Int>] = []
    try log.read { event in
      switch event {
      case .record(let record, epoch: _):
        if record.kind == Harness.kind { numbers.append(record.word) }
      case .damage(let range): damage.append(range)
      }
    }
    return (numbers, damage)
  }

  @Test func aWholeGroupIsRead() throws {
    let (directory, _) = try Self.makeLog()
    let (numbers, damage) = try Self.read(directory)
    #expect(numbers == [1, 2, 3, 4, 5])
    #expect(damage == [])
  }

  /// Whatever byte of it is damaged: all of it is, and nothing else.
  @Test func damageInAGroupIsDamageOfAllOfIt() throws {
    let (directory, group) = try Self.makeLog()
    let path = directory.path + "/" + SegmentFiles.name(0)
    let whole = try FileSystem.readWhole(path)
    for position in group {
      var bytes = whole
      bytes[SegmentHeader.pageBytes + position] ^= 1
      try File(path, .readWrite).write(at: 0, bytes)
      let (numbers, damage) = try Self.read(directory)
      if numbers == [1, 2, 3, 4, 5] { continue }  // Padding has no checksum.
      #expect(numbers == [1, 5], "byte \(position - group.lowerBound)")
      #expect(damage == [group], "byte \(position - group.lowerBound)")
    }
  }

  /// What went together comes back together when the log is damaged where it says so.
  @Test func repairBringsBackAllThatWentInADamagedGroup() throws {
    let (journal, group) = try Self.makeCascade()
    for position in stride(from: group.lowerBound, to: group.upperBound, by: 8) {
      let directory = try TemporaryDirectory()
      let damaged = directory.path + "/journal"
      try FileSystem.makeDirectories(damaged)
      for name in try FileSystem.list(journal.path) where !name.hasPrefix("spare-") {
        var bytes = try FileSystem.readWhole(journal.path + "/" + name)
        if name == SegmentFiles.name(0) { bytes[SegmentHeader.pageBytes + position] ^= 1 }
        try File(damaged + "/" + name, .readWrite, creates: true).write(at: 0, bytes)
      }
      let verification = try JournalVerification(directory: damaged)
      #expect(!verification.isSound, "byte \(position - group.lowerBound)")
      try JournalRepair(verification).perform(in: directory.path + "/repair", now: 1)
      let copy = try TemporaryDirectory()
      for name in try FileSystem.list(damaged) {
        try File(copy.path + "/" + name, .readWrite, creates: true)
          .write(at: 0, FileSystem.readWhole(damaged + "/" + name))
      }
      let broker = try TestBroker(in: copy)
      let isThere =
        [broker.vhost.hasQueue("q")] + Self.going.map { broker.vhost.hasExchange($0) }
      #expect(isThere == [true, true, true], "byte \(position - group.lowerBound)")
      #expect(broker.vhost.bindings == 2, "byte \(position - group.lowerBound)")
      broker.close()
    }
  }

  private static let going: [Name] = ["x", "y"]

  /// A queue went with two exchanges, and the log goes on behind that.
  private static func makeCascade() throws -> (TemporaryDirectory, group: Range<Int>) {
    let broker = try TestBroker(settings: .damagedLog)
    let channel = broker.connect().open()
    try broker.durableTurn {
      try channel.declare("q", isDurable: true)
      for name in going {
        try broker.vhost.declare(exchange: name, isDurable: true, isAutoDelete: true)
        try channel.bind("q", to: name)
      }
    }
    let begin = broker.journal.endPosition
    var end = begin
    try broker.durableTurn {
      try channel.delete("q")
      end = broker.journal.endPosition
    }
    try broker.durableTurn { try channel.declare("p", isDurable: true) }
    try broker.durableTurn { try channel.delete("p") }
    let crashed = try broker.directory.copy()
    broker.close()
    return (crashed, begin..<end)
  }
}
