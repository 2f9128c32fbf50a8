import IO
import Testbed
import Testing

@testable import martlet

/// What the commands on a journal say of directories.
@Suite struct JournalCommandTests {
  @Test func aDirectoryWithoutAJournalIsNotTaken() throws {
    let directory = try TemporaryDirectory()
    for path in [directory.path, directory.path + "/nothing", directory.path + "/file"] {
      if path.hasSuffix("file") { _ = try File(path, .readWrite, creates: true) }
      #expect {
        try JournalDirectory(path)
      } throws: { error in
        let text = (error as? Failure)?.text ?? ""
        return [
          "there is no directory \(path)", "\(path) is not a directory",
          "\(path) is not the data directory of a broker: it has no directory \"journal\" in it",
        ].contains(text)
      }
    }
    #expect(try FileSystem.list(directory.path) == ["file"])
  }

  @Test func theJournalsOwnDirectoryIsTakenToo() throws {
    let directory = try TemporaryDirectory()
    let journal = directory.path + "/journal"
    try FileSystem.makeDirectories(journal)
    #expect(try JournalDirectory(directory.path).journal == journal)
    #expect(try JournalDirectory(directory.path + "/").data == directory.path)
    _ = try File(journal + "/0000000000000000.segment", .readWrite, creates: true)
    let own = try JournalDirectory(journal)
    #expect(own.journal == journal && own.data == directory.path)
  }

  @Test func aRunningBrokerIsNamedAndItsLockLeftAlone() throws {
    let directory = try TemporaryDirectory()
    try FileSystem.makeDirectories(directory.path + "/journal")
    let journal = try JournalDirectory(directory.path)
    #expect(try journal.user() == nil)
    #expect(!FileSystem.exists(directory.path + "/lock"))
    let lock = try DirectoryLock(directory: directory.path)
    let isHeld = lock != nil
    #expect(isHeld)
    let bytes = try FileSystem.readWhole(directory.path + "/lock")
    #expect(try journal.user()?.contains("process") == true)
    #expect {
      try journal.refuseUser()
    } throws: { error in
      (error as? Failure)?.code == .inUse
    }
    #expect(try FileSystem.readWhole(directory.path + "/lock") == bytes)
    _ = consume lock
    #expect(try journal.user() == nil)
  }

  /// Also of one that was begun in the same second.
  @Test func aRepairHasANameThatNoOtherHas() throws {
    let data = try TemporaryDirectory()
    let now: Int64 = 1_795_000_000_000
    var places: Set<String> = []
    for _ in 0..<4 {
      let place = JournalRepairing.place(in: data.path, now)
      #expect(places.insert(place).inserted, "\(place)")
      try FileSystem.makeDirectories(place)
    }
    #expect(places.allSatisfy { $0.hasPrefix(data.path + "/repair-2026") })
  }

  /// Each of the three tools says the same and changes nothing.
  @Test(arguments: ["inspect", "verify", "repair"])
  func anOlderJournalIsRefused(tool: String) throws {
    let data = try TemporaryDirectory()
    let file = data.path + "/journal/0000000000000000.segment"
    try FileSystem.makeDirectories(data.path + "/journal")
    let bytes = Array("MARTLETJ".utf8) + [2] + [UInt8](repeating: 0, count: 8183)
    try File(file, .readWrite, creates: true).write(at: 0, bytes)
    let commands = [JournalInspect.command, JournalVerify.command, JournalRepairing.command]
    let command = try #require(commands.first { $0.name == tool })
    guard case .blocking(let perform) = command.action else {
      Issue.record("the command does not block")
      return
    }
    let invocation = try Invocation(
      of: command, path: ["journal", tool], words: [data.path], environment: [:])
    #expect {
      try perform(invocation)
    } throws: { error in
      (error as? Failure)?.text.hasPrefix(
        "\(file) has format version 2, older than this program can read") == true
    }
    #expect(try FileSystem.readWhole(file) == bytes)
    #expect(try FileSystem.list(data.path + "/journal") == ["0000000000000000.segment"])
  }

  @Test func everyKindOfRecordCanBeAskedFor() throws {
    let words = ["dir", "--kind", "lane-state", "--kind", "lane-file"]
    let command = JournalInspect.command
    _ = try Invocation(of: command, path: [], words: words, environment: [:])
    #expect {
      try Invocation(of: command, path: [], words: ["dir", "--kind", "nothing"], environment: [:])
    } throws: { error in
      (error as? UsageError)?.text.hasPrefix(#"--kind: "nothing" is not "#) == true
    }
  }
}
