import IO
import Testbed
import Testing

@testable import Journal

@Suite struct ReopeningTests {
  /// The log ends so close to its segment's end that the next life's first record does not fit.
  @Test(arguments: [8, 16, 24, 32]) func goesOnAtTheVeryEndOfASegment(room: Int) throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    var numbers: [UInt32] = []
    func append(_ bytes: Int) {
      numbers.append(UInt32(numbers.count))
      harness.append(
        Message(
          number: numbers.last!, body: [UInt8](repeating: 1, count: bytes - Record.headerSize)))
    }
    // The commit closes with a record of 32 bytes.
    let end = harness.journal.settings.segmentBytes - room - 32
    while end - harness.journal.endPosition > 20_000 { append(10_000) }
    append(end - harness.journal.endPosition)
    harness.settle()
    #expect(harness.journal.endPosition == end + 32)

    let crashed = try directory.copy()
    harness.close()
    for _ in 0..<3 {
      let again = try Harness(crashed.path)
      #expect(again.collector.messages.map(\.message.number) == numbers)
      again.close()
    }
  }

  /// The segments behind the log's end are given up; that may fail in between, and must leave no gap.
  @Test func segmentsBehindTheEndAreGivenUpFromTheLastOn() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let message = Message(number: 1, body: [1])
    harness.append(message)
    harness.settle()
    let files = harness.journal.files
    harness.close()
    for index in 1...3 {
      let header = SegmentHeader(
        firstPosition: index << 20, segmentBytes: 1 << 20, identity: files.identity,
        firstRecord: index << 20, epoch: 1)
      _ = try files.create(header, isSynced: true)
    }
    for successes in 0...1 {
      let disk = FlakyDisk()
      var environment = Journal.Environment()
      environment.disk = disk
      disk.fail(.rename, after: successes)
      #expect {
        try Harness(directory.path, environment: environment)
      } throws: { error in
        guard case .system(let error)? = error as? JournalError else { return false }
        return error.operation.hasPrefix("rename")
      }
    }
    let again = try Harness(directory.path)
    #expect(again.collector.messages.map(\.message) == [message])
    again.close()
  }
}
