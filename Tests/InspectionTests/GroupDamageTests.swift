import Base
import IO
import Testbed
import Testing

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
}
