import Base
import IO
import Testbed
import Testing

@testable import Journal

/// Records that are one: a start finds all of them or none.
@Suite struct GroupTests {
  private static let pageBytes = SegmentHeader.pageBytes
  private static let segmentBytes = 64 << 10

  private static var settings: Journal.Settings {
    var settings = Harness.small
    settings.segmentBytes = segmentBytes
    // A batch for each block.
    settings.batchBytesMax = 1
    return settings
  }

  private static var environment: Journal.Environment {
    var environment = Journal.Environment()
    environment.disk = FaultyDisk()
    return environment
  }

  private static func open(_ directory: TemporaryDirectory) throws -> Harness {
    try Harness(directory.path, settings, environment: environment)
  }

  private static func append(_ numbers: ClosedRange<UInt32>, size: Int = 8, to journal: Harness) {
    for number in numbers {
      journal.append(Message(number: number, body: [UInt8](repeating: 1, count: size)))
    }
  }

  private static func numbers(_ journal: Harness) -> [UInt32] {
    journal.collector.messages.map(\.message.number)
  }

  /// A log of single messages and groups; the numbers behind each.
  private static func makeLog() throws -> (TemporaryDirectory, end: Int, states: [[UInt32]]) {
    let directory = try TemporaryDirectory()
    let journal = try open(directory)
    append(1...1, to: journal)
    journal.settle()
    journal.journal.group { append(2...3, to: journal) }
    journal.settle()
    append(4...4, to: journal)
    journal.journal.group { append(5...7, to: journal) }
    append(8...8, to: journal)
    journal.settle()
    let end = journal.journal.durablePosition
    let crashed = try directory.copy()
    journal.close()
    return (crashed, end, [0, 1, 3, 4, 7, 8].map { (0..<$0).map { UInt32($0 + 1) } })
  }

  /// The log up to `position`; zeros follow.
  private static func cut(_ bytes: [UInt8], at position: Int) throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    let kept = bytes.prefix(pageBytes + position)
    try File(directory.path + "/" + SegmentFiles.name(0), .readWrite, creates: true)
      .write(at: 0, Array(kept) + [UInt8](repeating: 0, count: bytes.count - kept.count))
    return directory
  }

  @Test func cutAtEveryByteOfTheLogAGroupIsWholeOrAbsent() throws {
    let (directory, end, states) = try Self.makeLog()
    let bytes = try FileSystem.readWhole(directory.path + "/" + SegmentFiles.name(0))
    for position in 0..<end {
      let torn = try Self.cut(bytes, at: position)
      let journal = try Self.open(torn)
      let found = Self.numbers(journal)
      #expect(states.contains(found), "cut at \(position): \(found)")
      // What the next life writes is found behind it.
      journal.journal.group { Self.append(98...99, to: journal) }
      journal.close()
      let again = try Self.open(torn)
      #expect(Self.numbers(again) == found + [98, 99], "cut at \(position)")
      again.close()
    }
  }

  /// A crash behind every batch of a group that has many, in many blocks and segments.
  @Test func aGroupOfManySegmentsIsWholeOrAbsent() throws {
    let directory = try TemporaryDirectory()
    let journal = try Self.open(directory)
    Self.append(1...1, to: journal)
    journal.settle()
    let begin = journal.journal.endPosition
    journal.journal.group { Self.append(2...21, size: 20_000, to: journal) }
    let end = journal.journal.endPosition
    #expect(end - begin > 5 * Self.segmentBytes)
    var partCount = 0
    while journal.journal.durablePosition < end {
      let before = journal.journal.durablePosition
      journal.journal.commit(now: 2)
      journal.wait { journal.journal.durablePosition > before }
      let isPart = (begin + 1..<end).contains(journal.journal.durablePosition)
      partCount += isPart ? 1 : 0
      let copy = try directory.copy()
      let crashed = try Self.open(copy)
      let found = Self.numbers(crashed)
      #expect(found == (isPart ? [1] : Array(1...21)))
      if isPart { #expect(crashed.journal.endPosition < begin + Self.segmentBytes) }
      Self.append(99...99, to: crashed)
      crashed.close()
      let again = try Self.open(copy)
      #expect(Self.numbers(again) == found + [99])
      again.close()
    }
    #expect(partCount > 5)
    journal.close()
  }

  /// No life goes on behind an open group, but whoever reads is not misled by one that did.
  @Test func anOpenGroupThatALaterLifeFollowsIsDropped() throws {
    let directory = try TemporaryDirectory()
    let journal = try Self.open(directory)
    Self.append(1...1, to: journal)
    journal.settle()
    journal.journal.group { Self.append(2...3, to: journal) }
    let endBytes = Record.headerSize + 8
    let end = journal.journal.endPosition - endBytes
    journal.settle()
    let epoch = journal.journal.epoch + 1
    let name = "/" + SegmentFiles.name(0)
    let bytes = try FileSystem.readWhole(directory.path + name)
    journal.close()
    let torn = try Self.cut(bytes, at: end)
    var later: [UInt8] = []
    Self.append(
      RawRecord(kind: 2, payload: Self.bytes(epoch) + Self.bytes(9)), at: end, epoch, to: &later)
    Self.append(
      RawRecord(kind: Harness.kind, word: 9, payload: [7]), at: end + later.count, epoch, to: &later
    )
    try File(torn.path + name, .readWrite).write(at: Self.pageBytes + end, later)
    let next = try Self.open(torn)
    #expect(Self.numbers(next) == [1, 9])
    next.close()
  }

  private static func bytes(_ number: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: number)
    return bytes
  }

  /// The record as it stands in the log.
  private static func append(
    _ raw: RawRecord, at position: Int, _ epoch: UInt64, to log: inout [UInt8]
  ) {
    var bytes: [UInt8] = []
    raw.append(to: &bytes)
    let size = Record.headerSize + raw.payload.count
    bytes.withUnsafeMutableBytes { record in
      let sum = Record.checksum(record.baseAddress!, size: size, position: position, epoch: epoch)
      record.storeBytes(of: sum, toByteOffset: Record.checksumOffset, as: UInt32.self)
    }
    log += bytes
  }

  @Test func damageInAGroupIsNamed() throws {
    let (directory, _, _) = try Self.makeLog()
    let path = directory.path + "/" + SegmentFiles.name(0)
    var bytes = try FileSystem.readWhole(path)
    // The second message of the first group; batches behind it prove that it was written.
    let place = try #require(Self.message(3, in: bytes))
    bytes[place + Record.headerSize] ^= 1
    try File(path, .readWrite).write(at: 0, bytes)
    let error = #expect(throws: JournalError.self) { try Self.open(directory) }
    guard case .damaged(path, place, place - Self.pageBytes, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  /// Where a message's record begins in the file.
  static func message(_ number: UInt32, in bytes: [UInt8]) -> Int? {
    bytes.withUnsafeBytes { bytes in
      stride(from: pageBytes, to: bytes.count - Record.headerSize, by: 8).first { place in
        bytes[place + Record.kindOffset] == Harness.kind
          && bytes.load(fromByteOffset: place + Record.wordOffset, as: UInt32.self) == number
      }
    }
  }

  /// Segments go while a group reaches over their border; what is left of it is read as it is.
  @Test func aGroupWhoseBeginningWasGivenUpStaysWhole() throws {
    let directory = try TemporaryDirectory()
    let journal = try Self.open(directory)
    var locations: [RecordLocation] = []
    journal.journal.group {
      for number in UInt32(1)...6 {
        locations.append(
          journal.append(Message(number: number, body: [UInt8](repeating: 1, count: 20_000))))
      }
    }
    journal.settle()
    for location in locations.prefix(5) { journal.journal.release(location.block) }
    journal.journal.checkpoint(payload: [], now: 4)
    journal.wait { !journal.journal.isCheckpointing }
    #expect(journal.journal.statistics.segmentsRecycled > 0)
    let crashed = try directory.copy()
    journal.close()
    let again = try Self.open(crashed)
    #expect(Self.numbers(again).last == 6)
    #expect(Self.numbers(again).count < 6)
    again.close()
  }

  #if os(Linux)
    @Test func aGroupInAGroupStopsTheProcess() async {
      await #expect(processExitsWith: .failure) {
        let directory = try TemporaryDirectory()
        let journal = try Harness(directory.path).journal
        journal.group { journal.group {} }
      }
    }
  #endif
}
