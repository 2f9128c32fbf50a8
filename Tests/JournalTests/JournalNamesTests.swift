import Base
import IO
import Testbed
import Testing

@testable import Journal

/// What the names in a journal's directory are taken for.
@Suite struct JournalNamesTests {
  @Test func onlyNamesThatTheJournalWritesAreItsOwn() {
    let kinds: [(String, JournalNames.Kind)] = [
      ("0000000004000000.segment", .segment(0x400_0000)), ("spare-3.segment", .spare(3)),
      ("0000000003a01f40.checkpoint", .checkpoint(0x3a0_1f40)),
      ("0000000003a01f40.checkpoint.new", .unfinishedCheckpoint(0x3a0_1f40)),
      ("000000000000001f.lanes", .lanes(0x1f)),
      ("000000000000001f.lanes.new", .unfinishedLanes(0x1f)),
      ("000000000000001f.scratch", .unfinishedLanes(0x1f)),
      ("000000000000001f.scratch.new", .unfinishedLanes(0x1f)), ("log-failed", .failureMark),
    ]
    for (name, kind) in kinds { #expect(JournalNames.kind(of: name) == kind, "\(name)") }
    let foreign = [
      "zzzz.segment", "FFFFFFFFFFFFFFFF.segment", "ffffffffffffffff.segment", "0.segment",
      "-000000000000001.segment", "000000000400000A.segment", "spare-.segment",
      "spare-03.segment", "spare-x.segment", "spare-9223372036854775807.segment", ".segment",
      "copy of 0000000004000000.segment", "1.checkpoint", "8000000000000000.checkpoint",
      "7.lanes", "00000000ffffffff.lanes", "000000000000001f (1).lanes",
    ]
    for name in foreign { #expect(JournalNames.kind(of: name) == .foreign, "\(name)") }
    let strangers = [
      "", ".", "lost+found", "notes.txt", "000000000000001f.lanes.bak", "000000000000001f.lane",
      "log-failed.bak", "1f.scratch", "000000000000001f.lanes.new.new", "x.new", "segment",
    ]
    for name in strangers { #expect(JournalNames.kind(of: name) == .stranger, "\(name)") }
  }

  /// Somebody's copy beside a file is neither used nor removed.
  @Test func aCopyOfALaneFileStays() throws {
    let directory = try TemporaryDirectory()
    try Harness(directory.path).close()
    let copy = directory.path + "/000000000000001f.lanes.bak"
    try File(copy, .readWrite, creates: true).write(at: 0, [1, 2, 3])
    try Harness(directory.path).close()
    #expect(try FileSystem.readWhole(copy) == [1, 2, 3])
  }

  @Test func aFileThatIsNotTheJournalsIsNamed() throws {
    for name in ["zzzz.segment", "FFFFFFFFFFFFFFFF.segment", "copy.lanes", "spare-x.segment"] {
      let directory = try TemporaryDirectory()
      try Harness(directory.path).close()
      _ = try File(directory.path + "/" + name, .readWrite, creates: true)
      #expect(
        throws: JournalError.inconsistent("\(directory.path)/\(name): \(JournalNames.isNotOurs)")
      ) { try Harness(directory.path) }
      #expect(FileSystem.exists(directory.path + "/" + name))
    }
  }

  @Test func aDirectoryWithTheNameOfAFileIsNamed() throws {
    for name in [
      "0000000000000007.lanes", "0000000000000007.scratch", "0000000000100000.segment",
      "spare-7.segment", "0000000000000001.checkpoint",
    ] {
      let directory = try TemporaryDirectory()
      try Harness(directory.path).close()
      let path = directory.path + "/" + name
      try FileSystem.makeDirectories(path)
      #expect(throws: JournalError.inconsistent("\(path): \(JournalNames.isNoFile)")) {
        try Harness(directory.path)
      }
    }
  }

  /// What is in a spare file is of a log that is gone: a new one could take it for its own.
  @Test func aNewLogTakesNoSpareFilesOfAnother() throws {
    let directory = try TemporaryDirectory()
    let bytes = Harness.small.segmentBytes + SegmentHeader.pageBytes
    let other = directory.path + "/spare-7.segment"
    try File(other, .readWrite, creates: true).write(at: 0, [UInt8](repeating: 0xAB, count: bytes))
    try Harness(directory.path).close()
    for name in try FileSystem.list(directory.path) {
      #expect(try !FileSystem.readWhole(directory.path + "/" + name).contains([0xAB, 0xAB, 0xAB]))
    }
  }

  /// Parts of spare files, and more than are kept, are of a broker that found no space.
  @Test func spareFilesThatAreNotWholeGo() throws {
    let directory = try TemporaryDirectory()
    try Harness(directory.path).close()
    for number in 100..<120 {
      let file = try File(
        directory.path + "/spare-\(number).segment", .readWrite, creates: true)
      try file.write(at: 0, [1])
    }
    let again = try Harness(directory.path)
    again.wait { again.journal.files.spareCount > 0 }
    again.close()
    let names = try FileSystem.list(directory.path).filter { $0.hasPrefix("spare-") }
    #expect(names.count <= Background.sparesMax, "\(names)")
    for name in names {
      let size = try File(directory.path + "/" + name, .read).size
      #expect(size == SegmentHeader.pageBytes + (1 << 20), "\(name)")
    }
  }
}
