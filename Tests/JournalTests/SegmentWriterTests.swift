import IO
import Synchronization
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
    harness.settle()
    harness.close()

    // Only the second segment is left, as if a checkpoint had let go of the first.
    let header = try SegmentFilesProbe.header(directory.path, segment: 1 << 20)
    #expect(header.firstRecord == journal.position(locations[0]))
  }

  @Test func aSegmentIsNotUsedBeforeItsNameIsDurable() throws {
    let directory = try TemporaryDirectory()
    let disk = ForgetfulDirectory()
    var environment = Journal.Environment()
    environment.disk = disk
    let harness = try Harness(directory.path, environment: environment)
    harness.settle()
    harness.wait { harness.journal.files.spareCount > 0 }
    disk.failOnce()
    let body = [UInt8](repeating: 1, count: 30_000)
    for number in 0..<UInt32(50) { harness.append(Message(number: number, body: body)) }
    harness.journal.commit(now: 2)
    harness.wait { harness.journal.postponed != nil }
    harness.journal.retryPostponed()
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

/// The real disk, but for names: it fails to make them durable once, and knows whether they are.
private final class ForgetfulDirectory: Disk {
  private struct State {
    var fails = false
    var areNamesDurable = true
  }

  private let disk = SystemDisk()
  private let state = Mutex(State())

  /// The next segment's name does not become durable at once.
  func failOnce() { state.withLock { $0.fails = true } }

  var areNamesDurable: Bool { state.withLock { $0.areNamesDurable } }

  func syncDirectory(_ path: String) throws(SystemError) {
    let fails = state.withLock { state in
      defer { state.fails = false }
      if !state.fails { state.areNamesDurable = true }
      return state.fails
    }
    if fails { throw SystemError("sync \(path)", code: 5) }
    try disk.syncDirectory(path)
  }

  func rename(_ from: String, _ to: String) throws(SystemError) {
    try disk.rename(from, to)
    state.withLock { $0.areNamesDurable = false }
  }

  func open(
    _ path: String, _ access: File.Access, creates: Bool
  ) throws(SystemError) -> any DiskFile {
    try disk.open(path, access, creates: creates)
  }

  func makeDirectories(_ path: String) throws(SystemError) { try disk.makeDirectories(path) }
  func list(_ path: String) throws(SystemError) -> [String] { try disk.list(path) }
  func exists(_ path: String) -> Bool { disk.exists(path) }
  func remove(_ path: String) throws(SystemError) { try disk.remove(path) }
  func freeBytes(_ path: String) throws(SystemError) -> Int { try disk.freeBytes(path) }
}
