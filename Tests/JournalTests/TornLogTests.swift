import Base
import IO
import Testbed
import Testing

@testable import Journal

/// What a crash and what a bad disk leave behind.
@Suite struct TornLogTests {
  private static let pageBytes = SegmentHeader.pageBytes

  /// A log of several batches, with the end of each.
  private func makeLog() throws -> (TemporaryDirectory, [Message], [Int]) {
    let directory = try TemporaryDirectory()
    let journal = try Harness(directory.path)
    var messages: [Message] = []
    var ends: [Int] = []
    for number in 0..<UInt32(6) {
      let body = [UInt8](repeating: UInt8(number + 1), count: 50 + 30 * Int(number))
      messages.append(Message(number: number, body: body))
      journal.append(messages[messages.count - 1])
      journal.settle()
      ends.append(journal.journal.durablePosition)
    }
    let crashed = try directory.copy()
    journal.close()
    return (crashed, messages, ends)
  }

  @Test func cutAtEveryByteOfTheLastBatchItComesBackWithoutIt() throws {
    let (directory, messages, ends) = try makeLog()
    let whole = try FileSystem.readWhole(directory.path + "/" + SegmentFiles.name(0))
    for cut in ends[4]..<ends[5] {
      let torn = try TemporaryDirectory()
      var bytes = whole
      for index in (Self.pageBytes + cut)..<bytes.count { bytes[index] = 0 }
      try File(torn.path + "/" + SegmentFiles.name(0), .readWrite, creates: true)
        .write(at: 0, bytes)
      let journal = try Harness(torn.path)
      let count = journal.collector.messages.count
      #expect(count == 5 || count == 6, "cut at \(cut)")
      #expect(journal.collector.messages.map(\.message) == Array(messages.prefix(count)))
      // What is written behind the cut is found again.
      journal.append(Message(number: 99, body: [9, 9]))
      journal.close()
      let again = try Harness(torn.path)
      #expect(
        again.collector.messages.map(\.message)
          == Array(messages.prefix(count)) + [Message(number: 99, body: [9, 9])])
      again.close()
    }
  }

  @Test func damageBeforeTheLastBatchIsNamedWithFileAndOffset() throws {
    let (directory, _, ends) = try makeLog()
    let name = SegmentFiles.name(0)
    let whole = try FileSystem.readWhole(directory.path + "/" + name)
    for position in stride(from: 0, to: ends[3], by: 1) {
      var bytes = whole
      bytes[Self.pageBytes + position] ^= 0x40
      let damaged = try TemporaryDirectory()
      try File(damaged.path + "/" + name, .readWrite, creates: true).write(at: 0, bytes)
      do {
        let journal = try Harness(damaged.path)
        // Padding between records is not covered by a checksum, and needs none.
        #expect(journal.collector.messages.count == 6, "damage at \(position) went unseen")
        journal.close()
      } catch let JournalError.damaged(file, offset, at, _) {
        #expect(file == damaged.path + "/" + name)
        #expect(offset == Self.pageBytes + at)
        #expect(at <= position && position < at + 256)
      }
    }
  }

  /// A pad that seems larger would take the records behind it along, and a smaller one would end in it.
  @Test func aDamagedPadHidesNothing() throws {
    let directory = try TemporaryDirectory()
    let journal = try Harness(directory.path)
    // They do not fit into one block, whose end is padded.
    let sizes = [100, 100_000, 100_000, 100_000, 100]
    let messages = sizes.enumerated().map {
      Message(number: UInt32($0.offset), body: [UInt8](repeating: 1, count: $0.element))
    }
    for message in messages {
      journal.append(message)
      journal.settle()
    }
    let crashed = try directory.copy()
    journal.close()
    let name = SegmentFiles.name(0)
    let whole = try FileSystem.readWhole(crashed.path + "/" + name)
    let pad = try #require(Self.firstPad(whole))
    let position = pad - Self.pageBytes
    for bit in 0..<8 * Record.headerSize {
      var bytes = whole
      bytes[pad + bit / 8] ^= 1 << (bit % 8)
      let damaged = try TemporaryDirectory()
      try File(damaged.path + "/" + name, .readWrite, creates: true).write(at: 0, bytes)
      let error = #expect(throws: JournalError.self, "bit \(bit)") { try Harness(damaged.path) }
      guard case .damaged(_, _, position, _) = error else {
        Issue.record("bit \(bit): \(String(describing: error))")
        continue
      }
    }
    let undamaged = try Harness(crashed.path)
    #expect(undamaged.collector.messages.map(\.message) == messages)
    undamaged.close()
  }

  /// Where in a segment's file the first pad that has a kind begins.
  private static func firstPad(_ file: [UInt8]) -> Int? {
    file.withUnsafeBytes { file in
      var place = pageBytes
      while place + Record.headerSize <= file.count {
        let size = Int(file.load(fromByteOffset: place, as: UInt32.self))
        if size == 0 { return nil }
        if size > 8, file[place + Record.kindOffset] == OwnRecord.Kind.pad.rawValue { return place }
        place += Record.padded(size)
      }
      return nil
    }
  }

  @Test func bytesOfAnEarlierLifeAreNeverTakenForRecords() throws {
    let (directory, messages, ends) = try makeLog()
    let name = SegmentFiles.name(0)
    var bytes = try FileSystem.readWhole(directory.path + "/" + name)
    // The batch before the last is torn at its first record; the last one never was promised.
    for index in (Self.pageBytes + ends[4])..<(Self.pageBytes + ends[4] + 8) { bytes[index] = 0 }
    let torn = try TemporaryDirectory()
    try File(torn.path + "/" + name, .readWrite, creates: true).write(at: 0, bytes)
    let journal = try Harness(torn.path)
    #expect(journal.collector.messages.map(\.message) == Array(messages.prefix(5)))
    // A record of the same size takes the torn one's place: what stood behind must stay forgotten.
    let replacement = Message(
      number: 50, body: [UInt8](repeating: 0, count: messages[5].body.count - 32))
    journal.append(replacement)
    journal.close()
    let again = try Harness(torn.path)
    #expect(again.collector.messages.map(\.message) == Array(messages.prefix(5)) + [replacement])
    again.close()
  }

  /// Lives that made a segment and wrote nothing to it leave an epoch behind, and the next one's is above
  /// that. Its beginning is missed all the same.
  @Test(arguments: [0, 1, 2, 20, 200])
  func aLifesBeginningIsMissedWhateverCameToNothingBefore(lives: Int) throws {
    let directory = try TemporaryDirectory()
    let first = try Harness(directory.path)
    first.append(Message(number: 1, body: [1]))
    first.settle()
    let files = first.journal.files
    let epoch = first.journal.epoch
    first.close()
    if lives > 0 {
      let bytes = Harness.small.segmentBytes
      let header = SegmentHeader(
        firstPosition: bytes, segmentBytes: bytes, identity: files.identity, firstRecord: bytes,
        epoch: epoch + UInt64(lives) * LogReader.epochStepMax)
      _ = try files.create(header, isSynced: true)
      try files.mark(0, hasSuccessor: true)
    }
    let second = try Harness(directory.path)
    let beginning = second.journal.durablePosition
    for number in 2...3 {
      second.append(Message(number: UInt32(number), body: [1]))
      second.settle()
    }
    let crashed = try directory.copy()
    second.close()
    let copy = try crashed.copy()
    let whole = try Harness(copy.path)
    #expect(whole.collector.messages.map(\.message.number) == [1, 2, 3])
    whole.close()
    let path = crashed.path + "/" + SegmentFiles.name(0)
    let place = Self.pageBytes + beginning + Record.headerSize
    let byte = try FileSystem.readWhole(path)[place]
    try File(path, .readWrite).write(at: place, [byte ^ 1])
    let error = #expect(throws: JournalError.self) { try Harness(crashed.path) }
    guard case .damaged(path, _, beginning, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }
}
