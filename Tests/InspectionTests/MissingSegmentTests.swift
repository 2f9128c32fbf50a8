import Base
import IO
import Testbed
import Testing

@testable import Inspection
@testable import Journal
@testable import JournalTests

/// A segment that somebody removed is missed, also when it was the last.
@Suite struct MissingSegmentTests {
  private static let segmentBytes = 64 << 10

  private static var settings: Journal.Settings {
    var settings = Harness.small
    settings.segmentBytes = segmentBytes
    return settings
  }

  /// A log of messages of such a size that their records end, or do not, with a segment.
  private func makeLog(size: Int, count: Int) throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    var environment = Journal.Environment()
    environment.disk = FaultyDisk()
    let journal = try Harness(directory.path, Self.settings, environment: environment)
    for number in 0..<count {
      journal.append(
        Message(number: UInt32(number), body: [UInt8](repeating: 1, count: size)))
      journal.settle()
    }
    let crashed = try directory.copy()
    journal.close()
    return crashed
  }

  private func segments(_ directory: TemporaryDirectory) throws -> [String] {
    try JournalNames(SystemDisk(), directory.path).segments.map(\.name)
  }

  /// Small records, one that reaches into the next segment, and ones that fill segments exactly.
  @Test(arguments: [(1000, 100), (40_000, 8), (200_000, 3), (4096 - 16 - 32 - 32, 47)])
  func theLastOneIsMissed(size: Int, count: Int) throws {
    let whole = try makeLog(size: size, count: count)
    var names = try segments(whole)
    #expect(names.count > 1)
    // Without the last one, and without the last two.
    while names.count > 1 {
      let name = names.removeLast()
      try FileSystem.remove(whole.path + "/" + name)
      let error = #expect(throws: JournalError.self) {
        try Harness(whole.path, Self.settings)
      }
      #expect(error.map { "\($0)".contains("\(whole.path)/\(name)") } == true)
      #expect(error?.isDamage == true)
      let survey = try JournalSurvey(directory: whole.path)
      #expect(survey.problems.map(\.file) == [name])
    }
  }

  /// Whatever the log's end is, nothing is missed that nobody removed.
  @Test func aLogThatEndsWithItsSegmentIsWhole() throws {
    for count in 14..<34 {
      let crashed = try makeLog(size: 4096 - 16 - 32, count: count)
      #expect(try JournalSurvey(directory: crashed.path).problems.isEmpty)
      let again = try Harness(crashed.path, Self.settings)
      #expect(again.collector.messages.count == count)
      again.close()
    }
  }

  /// A crash between making a segment and saying so, or between saying so and writing to it; and the
  /// next life gives the segment up.
  @Test func whatACrashLeavesOfANewSegmentIsGivenUp() throws {
    for isMarked in [false, true] {
      let directory = try makeLog(size: 1000, count: 10)
      let journal = try Harness(directory.path, Self.settings)
      let files = journal.journal.files
      let header = SegmentHeader(
        firstPosition: Self.segmentBytes, segmentBytes: Self.segmentBytes,
        identity: files.identity, firstRecord: Self.segmentBytes, epoch: 1)
      journal.close()
      _ = try files.create(header, isSynced: true)
      if isMarked { try files.mark(0, hasSuccessor: true) }
      for _ in 0..<2 {
        let again = try Harness(directory.path, Self.settings)
        #expect(again.collector.messages.count == 10)
        again.close()
      }
      #expect(try segments(directory) == [SegmentFiles.name(0)])
      #expect(try !SegmentFilesProbe.header(directory.path, segment: 0).hasSuccessor)
    }
  }

  @Test func aSegmentThatIsCutIsNamedWithWhereItEnds() throws {
    for bytes in [0, 63, 64, 4095, 5000, Self.segmentBytes] {
      let directory = try makeLog(size: 1000, count: 100)
      let name = try #require(try segments(directory).last)
      let content = try FileSystem.readWhole(directory.path + "/" + name)
      try FileSystem.remove(directory.path + "/" + name)
      try File(directory.path + "/" + name, .readWrite, creates: true)
        .write(at: 0, Array(content[..<bytes]))
      let error = #expect(throws: JournalError.self) {
        try Harness(directory.path, Self.settings)
      }
      #expect(error.map { "\($0)".contains("\(directory.path)/\(name)") } == true)
      #expect(error?.isDamage == true, "\(bytes)")
      let survey = try JournalSurvey(directory: directory.path)
      #expect(survey.problems.contains { $0.file == name }, "\(bytes)")
    }
  }

  @Test func aPartThatTheDiskCannotReadIsDamage() throws {
    let directory = try makeLog(size: 1000, count: 10)
    let disk = FaultyDisk()
    var environment = Journal.Environment()
    environment.disk = disk
    for first in 1...2 {
      disk.fail(.read, ".segment", first: first)
      let error = #expect(throws: JournalError.self) {
        try Harness(directory.path, Self.settings, environment: environment)
      }
      #expect(error?.isDamage == true)
      let text = error.map { "\($0)" } ?? ""
      #expect(text.contains(directory.path + "/" + SegmentFiles.name(0)), "\(text)")
      #expect(text.contains("it cannot be read"), "\(text)")
    }
  }
}
