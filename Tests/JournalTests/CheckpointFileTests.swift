import IO
import Testbed
import Testing

@testable import Journal

/// Checkpoints that have to be written more than once.
@Suite struct CheckpointFileTests {
  /// What a round or an acknowledgement changed meanwhile need not have moved the log.
  @Test func aCheckpointThatFailedIsFollowedByAShorterOneOfTheSamePosition() throws {
    let directory = try TemporaryDirectory()
    let disk = FaultyDisk()
    let files = SegmentFiles(
      disk: disk, directory: directory.path, segmentBytes: 65536, identity: 7, spares: [])
    func store(_ bytes: Int) -> CheckpointOutcome {
      CheckpointFile(
        identity: 7, position: 4096, replayFrom: 0, payload: Self.payload(bytes), isSynced: true
      ).store(files)
    }
    disk.fail(.rename, count: 1)
    guard case .failed = store(400) else {
      Issue.record("the rename did not fail")
      return
    }
    disk.set(nil)
    guard case .stored = store(40) else {
      Issue.record("the second one was not written")
      return
    }
    let newest = try Journal.newestCheckpoint(
      disk, directory.path, JournalNames(disk, directory.path))
    #expect(newest?.payload == Self.payload(40))
  }

  private static func payload(_ count: Int) -> [UInt8] {
    var record = [UInt8](repeating: 0, count: count)
    record.withUnsafeMutableBytes {
      Record.writeHeader($0.baseAddress!, size: count, kind: 32, flags: 0, count: 0, word: 7)
    }
    return record
  }
}
