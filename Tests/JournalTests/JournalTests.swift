import Base
import Glibc
import IO
import Testbed
import Testing

@testable import Journal

@Suite struct JournalTests {
  @Test func keepsWhatWasCommittedOverAnOrderlyStop() throws {
    let directory = try TemporaryDirectory()
    let messages = (1...1000).map { Message(number: $0, body: Array("message \($0)".utf8)) }
    let first = try Harness(directory.path)
    #expect(first.recovery.isNew)
    for message in messages { first.append(message) }
    first.close()
    let second = try Harness(directory.path)
    #expect(second.recovery.wasClean)
    #expect(second.collector.messages.map(\.message) == messages)
    second.close()
  }

  @Test func keepsWhatWasDurableWhenTheProcessVanishes() throws {
    let directory = try TemporaryDirectory()
    let journal = try Harness(directory.path)
    let durable = (1...100).map { Message(number: $0, body: [UInt8](repeating: 7, count: 333)) }
    for message in durable { journal.append(message) }
    journal.settle()
    let crashed = try directory.copy()
    journal.close()
    let recovered = try Harness(crashed.path)
    #expect(!recovered.recovery.wasClean)
    #expect(recovered.collector.messages.map(\.message) == durable)
    recovered.close()
  }

  @Test(arguments: [1, 4000, 40_000, 300_000, 1 << 20, 3_500_000])
  func recordsOfAnySizeCrossBlocksAndSegments(size: Int) throws {
    let directory = try TemporaryDirectory()
    let journal = try Harness(directory.path)
    var expected: [Message] = []
    for number in 0..<UInt32(max(4, 3_000_000 / (size + 1000))) {
      let body = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ Int(number)) }
      expected.append(Message(number: number, body: body))
      journal.append(expected[expected.count - 1])
      if number % 3 == 0 { journal.settle() }
    }
    journal.close()
    let again = try Harness(directory.path)
    #expect(again.collector.messages.map(\.message) == expected)
    for (message, location) in again.collector.messages {
      #expect(again.body(at: location) == message.body)
    }
    again.close()
  }

  @Test func goesOnAfterManyRestarts() throws {
    var directory = try TemporaryDirectory()
    var expected: [Message] = []
    for life in 0..<20 {
      let journal = try Harness(directory.path)
      #expect(journal.collector.messages.map(\.message) == expected, "life \(life)")
      for index in 0..<(life * 7) {
        expected.append(
          Message(number: UInt32(life * 1000 + index), body: Array("\(life) \(index)".utf8)))
        journal.append(expected[expected.count - 1])
      }
      // Every other life ends without a close: the next one finds what was there before it.
      if life % 2 == 1 {
        journal.settle()
        directory = try directory.copy()
      }
      journal.close()
    }
  }

  @Test func readsBackWhatTheCacheDropped() throws {
    let directory = try TemporaryDirectory()
    var settings = Harness.small
    settings.cacheBytes = 1 << 20
    let journal = try Harness(directory.path, settings)
    var locations: [(RecordLocation, [UInt8])] = []
    for number in 0..<UInt32(4000) {
      let body = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 1000)
      locations.append((journal.append(Message(number: number, body: body)), body))
      if number % 100 == 0 { journal.settle() }
    }
    journal.settle()
    #expect(journal.journal.statistics.blocksDropped > 0)
    #expect(journal.journal.memoryBytes < 3 << 20)
    for (location, body) in locations {
      #expect(journal.body(at: location) == body)
      journal.journal.trim()
    }
    #expect(journal.journal.statistics.blocksReadBack > 0)
    #expect(journal.journal.memoryBytes < 3 << 20)
    journal.close()
  }

  @Test func recyclesSegmentsThatHoldNothingAlive() throws {
    let directory = try TemporaryDirectory()
    let journal = try Harness(directory.path)
    for round in 0..<40 {
      let locations = (0..<200).map { number in
        journal.append(
          Message(number: UInt32(round * 200 + number), body: [UInt8](repeating: 1, count: 1000)))
      }
      journal.settle()
      for location in locations { journal.journal.release(location.block) }
      if journal.journal.wantsCheckpoint(now: 5) {
        journal.journal.checkpoint(payload: [], now: 5)
        journal.settle()
        let before = journal.journal.statistics.checkpoints
        journal.wait { journal.journal.statistics.checkpoints > before }
      }
    }
    let names = try FileSystem.list(directory.path)
    #expect(names.count { $0.hasSuffix(".segment") } < 8, "\(names)")
    #expect(names.count { $0.hasSuffix(".checkpoint") } == 1, "\(names)")
    #expect(journal.journal.statistics.segmentsRecycled > 3)
    journal.close()
    let again = try Harness(directory.path)
    again.close()
  }

  @Test func aBlockThatEndsWithItsCommitIsGivenUpOnce() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    harness.settle()
    // Leaves room for the batch record and nothing else in the block.
    let size = 40 * 4096 + 4064 - Record.headerSize
    let full = harness.append(Message(number: 1, body: [UInt8](repeating: 1, count: size)))
    harness.settle()
    harness.append(Message(number: 2, body: [2]))
    journal.commit(now: 3)
    journal.release(full.block)
    harness.settle()
    #expect(Set(journal.freeSlots).count == journal.freeSlots.count)
    let others = (3..<6).map { number in
      harness.append(
        Message(number: number, body: [UInt8](repeating: UInt8(number), count: 50_000)))
    }
    #expect(Set(others.map(\.block)).count == 3)
    for (number, location) in zip(UInt8(3)..., others) {
      #expect(harness.body(at: location) == [UInt8](repeating: number, count: 50_000))
    }
    harness.close()
  }

  @Test func aBatchThatFindsNoSegmentIsTriedAgain() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    harness.settle()
    harness.wait { harness.journal.files.spareCount > 0 }
    // Where the next segment has to be made stands something else.
    let obstacle = directory.path + "/" + SegmentFiles.name(1 << 20)
    try FileSystem.makeDirectories(obstacle)
    let body = [UInt8](repeating: 1, count: 30_000)
    let expected = (0..<50).map { Message(number: $0, body: body) }
    for message in expected { harness.append(message) }
    harness.journal.commit(now: 2)
    harness.wait { harness.journal.postponed != nil }
    #expect(harness.journal.failure == nil)
    #expect(harness.journal.spaceProblem != nil)
    rmdir(obstacle)
    harness.journal.tend(now: 1000)
    harness.settle()
    #expect(harness.journal.spaceProblem == nil)
    harness.close()
    let again = try Harness(directory.path)
    #expect(again.collector.messages.map(\.message) == expected)
    again.close()
  }

  @Test func transientMessagesAreForgottenAndTheirMemoryIsUsedAgain() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    for _ in 0..<100_000 {
      let (location, _) = journal.appendTransient(kind: 16, payloadSize: 1000)
      journal.retain(location.block)
      journal.release(location.block)
    }
    #expect(journal.memoryBytes <= 2 * BlockMemory.usualBytes)
    harness.close()
    #expect(try Harness(directory.path).collector.messages.isEmpty)
  }

  @Test func aNewerFormatIsRefusedByName() throws {
    let directory = try TemporaryDirectory()
    let journal = try Harness(directory.path)
    journal.append(Message(number: 1, body: [1]))
    journal.close()
    let path = directory.path + "/" + SegmentFiles.name(0)
    let file = try File(path, .readWrite)
    try file.write(at: 8, [6, 0, 0, 0])
    #expect(throws: JournalError.newer(file: path, version: 6)) { try Harness(directory.path) }
  }

  @Test func aMissingSegmentIsSaid() throws {
    let directory = try TemporaryDirectory()
    let journal = try Harness(directory.path)
    for number in 0..<UInt32(40) {
      journal.append(Message(number: number, body: [UInt8](repeating: 1, count: 100_000)))
    }
    journal.close()
    try FileSystem.remove(directory.path + "/" + SegmentFiles.name(1 << 20))
    #expect {
      try Harness(directory.path)
    } throws: { error in
      guard let error = error as? JournalError, error.isDamage else { return false }
      let neighbours = [SegmentFiles.name(0), SegmentFiles.name(2 << 20)]
      return neighbours.allSatisfy { "\(error)".contains($0) }
    }
  }
}
