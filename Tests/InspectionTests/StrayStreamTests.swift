import Glibc
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// What does not belong among the segments of streams, and what is missing there: the start refuses what
/// `verify` names, and a repair leaves a journal that it begins with.
@Suite struct StrayStreamTests {
  enum Stray: String, CaseIterable {
    case batchesMissing, batchesCut, indexMissing, indexCut, allMissing
    case directoryAsBatches, linkToNowhere, pipe, pipeUnderAnUnknownName
    case foreignName, capitals, fileAsDirectory

    /// In the journal at `path`, of which `name` is a segment without its ending. Returns what is to be named.
    func apply(_ path: String, _ name: String) throws -> String {
      let streams = path + "/" + PartitionFiles.directory
      let (batches, index) = (name + ".batches", name + ".index")
      switch self {
      case .batchesMissing:
        try FileSystem.remove(path + "/" + batches)
        return batches
      case .batchesCut:
        try FileSystem.remove(path + "/" + batches)
        try File(path + "/" + batches, .readWrite, creates: true).write(at: 0, [1, 2, 3])
        return batches
      case .indexMissing:
        try FileSystem.remove(path + "/" + index)
        return index
      case .indexCut:
        try FileSystem.remove(path + "/" + index)
        _ = try File(path + "/" + index, .readWrite, creates: true)
        return index
      case .allMissing:
        for name in try FileSystem.list(streams) { try FileSystem.remove(streams + "/" + name) }
        try FileSystem.removeDirectory(streams)
        return PartitionFiles.directory
      case .directoryAsBatches:
        try FileSystem.remove(path + "/" + batches)
        try FileSystem.makeDirectories(path + "/" + batches)
        return batches
      case .linkToNowhere:
        try FileSystem.remove(path + "/" + batches)
        #expect(symlink("/nowhere/at/all", path + "/" + batches) == 0)
        return batches
      case .pipe:
        try FileSystem.remove(path + "/" + index)
        #expect(mkfifo(path + "/" + index, 0o600) == 0)
        return index
      case .pipeUnderAnUnknownName:
        let unknown = PartitionFiles.batches(77, base: 0)
        #expect(mkfifo(path + "/" + unknown, 0o600) == 0)
        return unknown
      case .foreignName:
        _ = try File(streams + "/copy.batches", .readWrite, creates: true)
        return "copy.batches"
      case .capitals:
        _ = try File(
          streams + "/000003EB-0000000000000000.index", .readWrite, creates: true)
        return "000003EB"
      case .fileAsDirectory:
        for name in try FileSystem.list(streams) { try FileSystem.remove(streams + "/" + name) }
        try FileSystem.removeDirectory(streams)
        _ = try File(streams, .readWrite, creates: true)
        return PartitionFiles.directory
      }
    }
  }

  @Test(arguments: Stray.allCases)
  func theStartRefusesWhatVerifyNames(stray: Stray) throws {
    let damaged = try DamagedStream()
    let (file, _) = try damaged.segment(1)
    let name = String(file.dropLast(".batches".count))
    let copy = try damaged.copied()
    let named = try stray.apply(copy.path, name)
    let before = try files(copy.path)
    let error = #expect(throws: JournalError.self) {
      try TestBroker(in: copy, settings: .moving, disk: FaultyDisk())
    }
    #expect(error?.isDamage == true)
    #expect(error.map { "\($0)".contains(named) } == true, "\(error.map { "\($0)" } ?? "")")
    #expect(try files(copy.path) == before)

    _ = try stray.apply(damaged.journal, name)
    let problems = try damaged.verify().problems
    #expect(problems.contains { $0.file.contains(named) }, "\(problems)")
    _ = try damaged.repair()
    let again = try TestBroker(in: damaged.copied(), settings: .moving, disk: FaultyDisk())
    #expect(again.stream("s") != nil)
  }

  /// All but spare ones.
  private func files(_ path: String) throws -> [String] {
    try FileSystem.list(path).filter { !$0.hasPrefix("spare-") }
  }

  /// A new log would take lane files for rounds that were not over, and remove them.
  @Test func laneFilesWithoutTheirLogAreRefused() throws {
    let damaged = try DamagedJournal()
    let lanes = try damaged.names(".lanes")
    try #require(!lanes.isEmpty)
    let copy = try TemporaryDirectory()
    for name in lanes {
      try File(copy.path + "/" + name, .readWrite, creates: true)
        .write(at: 0, FileSystem.readWhole(damaged.path(name)))
    }
    let error = #expect(throws: JournalError.self) { try TestBroker(in: copy, settings: .damaged) }
    #expect(error?.isDamage == true)
    #expect(try FileSystem.list(copy.path) == lanes)
    #expect(try JournalVerification(directory: copy.path).problems != [])
  }
}
