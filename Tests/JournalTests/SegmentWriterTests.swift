import IO
import Testbed
import Testing

@testable import Journal

@Suite struct SegmentWriterTests {
  @Test func whatStandsBehindALargeRecordIsFoundFromItsSegmentOn() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    // Reaches into the second segment, and leaves room for small records in its block.
    let large = harness.append(
      Message(number: 1, body: [UInt8](repeating: 1, count: (1 << 20) + 100)))
    let small = (2..<5).map { Message(number: $0, body: [UInt8($0)]) }
    let locations = small.map { harness.append($0) }
    #expect(locations.allSatisfy { $0.block == large.block })
    let firstSmall = journal.blocks[Int(large.block)].start + Int(locations[0].offset)
    harness.settle()
    harness.close()

    // Only the second segment is left, as if a checkpoint had let go of the first.
    let header = try SegmentFilesProbe.header(directory.path, segment: 1 << 20)
    #expect(header.firstRecord == firstSmall)
  }

  @Test func aSegmentIsNotUsedBeforeItsNameIsDurable() throws {
    let directory = try TemporaryDirectory()
    let disk = FlakyDisk()
    var environment = Journal.Environment()
    environment.disk = disk
    let harness = try Harness(directory.path, environment: environment)
    harness.settle()
    harness.wait { harness.journal.files.spareCount > 0 }
    disk.fail(.syncDirectory)
    let body = [UInt8](repeating: 1, count: 30_000)
    for number in 0..<UInt32(50) { harness.append(Message(number: number, body: body)) }
    harness.journal.commit(now: 2)
    harness.wait { harness.journal.postponed != nil }
    harness.journal.tend(now: 1000)
    harness.wait { !harness.journal.isCommitting }
    #expect(harness.journal.postponed == nil)
    #expect(disk.areNamesDurable)
    harness.close()
  }
}

enum SegmentFilesProbe {
  static func header(_ directory: String, segment: Int) throws -> SegmentHeader {
    let bytes = try FileSystem.readWhole(directory + "/" + SegmentFiles.name(segment))
    return try bytes.withUnsafeBytes { try SegmentHeader($0) }
  }
}
