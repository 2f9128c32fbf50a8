import Arbitrary
import Base
import IO
import Synchronization
import Testbed
import Testing

@testable import Journal

/// How lives of the log are told from each other.
@Suite struct EpochTests {
  private static let pageBytes = SegmentHeader.pageBytes
  private static let segment = SegmentFiles.name(0)

  private static var written: Journal.Settings {
    var settings = Harness.small
    settings.isSynced = false
    return settings
  }

  /// A message that has a block, and pages, of its own.
  private static func message(_ number: UInt32) -> Message {
    Message(number: number, body: [UInt8](repeating: UInt8(number), count: 40_000))
  }

  /// Where writes are not synced a power loss takes what it likes of what was not durable: here the page
  /// in which a life begins, and not those behind it. The next life begins in the same millisecond, so
  /// that chance gives both the same step.
  @Test func aLifeThatLeftRecordsLeftItsEpoch() throws {
    let directory = try TemporaryDirectory()
    let before = try Harness(directory.path, Self.written)
    before.append(Message(number: 0, body: [0]))
    before.settle()
    before.close()
    let path = directory.path + "/" + Self.segment
    let durable = DurableBytes(try FileSystem.readWhole(path))
    let disk = FaultyDisk()
    disk.set { operation, file in
      if operation == .sync, file == path { durable.sync(file) }
      return nil
    }
    var environment = Journal.Environment()
    environment.disk = disk
    let lost = try Harness(directory.path, Self.written, environment: environment)
    let beginning = lost.journal.durablePosition
    for number in 1...4 {
      lost.append(Self.message(UInt32(number)))
      lost.settle()
    }
    let crashed = try directory.copy()
    let kept = durable.bytes
    let epoch = lost.journal.epoch
    lost.close()
    let page = Self.pageBytes + beginning & ~(Self.pageBytes - 1)
    try File(crashed.path + "/" + Self.segment, .readWrite)
      .write(at: page, Array(kept[page..<page + Self.pageBytes]))

    let next = try Harness(crashed.path, Self.written)
    #expect(next.collector.messages.map(\.message.number) == [0])
    #expect(next.journal.epoch > epoch)
    next.close()
  }

  /// What the turns before the first commit append waits for it, though it closes the block.
  @Test(arguments: [false, true])
  func theFirstBatchOfALifeHasItsEpochAlone(isSynced: Bool) throws {
    var settings = Harness.small
    settings.isSynced = isSynced
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path, settings)
    let beginning = harness.journal.endPosition
    let messages = (1...9).map { Self.message($0) }
    for message in messages { harness.append(message) }
    harness.journal.commit(now: 2)
    harness.wait { !harness.journal.isCommitting }
    #expect(harness.journal.durablePosition == beginning)
    harness.settle()
    #expect(harness.journal.statistics.commits == 2)
    let crashed = try directory.copy()
    harness.close()
    let again = try Harness(crashed.path, settings)
    #expect(again.collector.messages.map(\.message) == messages)
    again.close()
  }

  @Test func aFirstBatchWithoutSpaceIsTriedAgain() throws {
    let directory = try TemporaryDirectory()
    let disk = FaultyDisk()
    disk.fail(.allocate, code: 28)
    var environment = Journal.Environment()
    environment.disk = disk
    let harness = try Harness(directory.path, Self.written, environment: environment)
    harness.append(Self.message(1))
    harness.journal.commit(now: 2)
    harness.wait { harness.journal.postponed != nil }
    #expect(harness.journal.failure == nil)
    harness.append(Self.message(2))
    disk.set(nil)
    harness.journal.tend(now: 1000)
    harness.wait { !harness.journal.isCommitting }
    harness.settle()
    harness.close()
    let again = try Harness(directory.path)
    #expect(again.collector.messages.map(\.message.number) == [1, 2])
    again.close()
  }

  @Test func aLifeWhoseBeginningCannotBeSyncedWritesNothingElse() throws {
    let directory = try TemporaryDirectory()
    let disk = FaultyDisk()
    disk.fail(.sync, Self.segment)
    var environment = Journal.Environment()
    environment.disk = disk
    let harness = try Harness(directory.path, Self.written, environment: environment)
    harness.append(Self.message(1))
    harness.settle()
    #expect(harness.journal.failure != nil)
    harness.close()
    disk.set(nil)
    let again = try Harness(directory.path)
    #expect(again.collector.messages.isEmpty)
    again.close()
  }

  // MARK: Which epoch a record is of

  private static func files(_ directory: TemporaryDirectory) -> SegmentFiles {
    SegmentFiles(
      disk: SystemDisk(), directory: directory.path, segmentBytes: 1 << 20, identity: 1, spares: [])
  }

  /// A batch record with what it says was durable.
  private static func write(_ base: UnsafeMutableRawPointer, says position: Int) {
    Record.writeHeader(
      base, size: 32, kind: OwnRecord.Kind.batch.rawValue, flags: 0, count: 0, word: 0)
    base.storeBytes(of: UInt64(position), toByteOffset: 16, as: UInt64.self)
  }

  @Test(arguments: Seed.some(4))
  func oneChecksumSaysWhatTryingEachEpochSays(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let directory = try TemporaryDirectory()
    for _ in 0..<200 {
      let place = random.number(0...1 << 40) * 8
      let first = UInt64(random.choose([0, 7, 1 << 20, (1 << 32) - 500, 1 << 61]))
      let range = first...first + LogReader.epochGapMax
      var bytes = random.bytes(32)
      // Of an epoch in the range, at its ends, close to it, or of none.
      let epoch = first &+ UInt64(random.choose([0, 1, 1023, 1024, 1025, 2000, 700_000]))
      bytes.withUnsafeMutableBytes { bytes in
        let base = bytes.baseAddress!
        Self.write(base, says: random.number(0...place))
        if random.oneIn(4) { return }
        base.storeBytes(
          of: Record.checksum(base, size: 32, position: place, epoch: epoch),
          toByteOffset: Record.checksumOffset, as: UInt32.self)
      }
      let reader = LogReader(files: Self.files(directory), position: 0, epoch: 0, end: 0)
      bytes.withUnsafeBytes { bytes in
        let base = bytes.baseAddress!
        let sum = base.load(fromByteOffset: Record.checksumOffset, as: UInt32.self)
        let tried = range.first {
          sum == Record.checksum(base, size: 32, position: place, epoch: $0)
        }
        #expect(reader.batchEpoch(in: range, base, at: place) == tried)
      }
    }
  }

  /// A body can look like nothing but records that may prove damage.
  @Test func aSegmentOfWouldBeProofsCostsOneChecksumForEach() throws {
    let directory = try TemporaryDirectory()
    var bytes = [UInt8](repeating: 0, count: Self.pageBytes + 1 << 20)
    var places = 0
    bytes.withUnsafeMutableBytes { bytes in
      for place in stride(from: 32, to: 1 << 20, by: 32) {
        Self.write(bytes.baseAddress! + Self.pageBytes + place, says: 8)
        places += 1
      }
    }
    try File(directory.path + "/" + Self.segment, .readWrite, creates: true).write(at: 0, bytes)
    let reader = LogReader(
      files: Self.files(directory), position: 0, epoch: 1, end: 1 << 20)
    #expect(try reader.next() == nil)
    #expect(reader.proofChecksums == places)
  }
}

/// What a power loss cannot take of a file.
private final class DurableBytes: Sendable {
  private let state: Mutex<[UInt8]>

  init(_ bytes: [UInt8]) { state = Mutex(bytes) }

  var bytes: [UInt8] { state.withLock { $0 } }

  /// Its file is about to be synced.
  func sync(_ path: String) {
    do throws(SystemError) {
      let bytes = try FileSystem.readWhole(path)
      state.withLock { $0 = bytes }
    } catch {
      Issue.record("\(error)")
    }
  }
}
