import Testbed
import Testing

@testable import Journal

@Suite struct BlockTests {
  /// The block has been closed, all of it is durable, and the commit that will look at it is still to
  /// come.
  @Test func aBlockThatWasExactlyFullIsGivenBackOnce() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    // Larger than a usual block, so that it gets its own; the batch record takes the last 32 bytes.
    let size = 3 * 131_072 - 32
    let full = harness.append(
      Message(number: 1, body: [UInt8](repeating: 1, count: size - Record.headerSize)))
    harness.settle()
    #expect(journal.durableTail.room == 0)
    let next = harness.append(Message(number: 2, body: [2]))
    journal.release(full.block)
    harness.settle()
    #expect(Set(journal.freeSlots).count == journal.freeSlots.count)
    let blocks = (0..<70).map { harness.append(Message(number: $0, body: [1, 2, 3])) }
    #expect(harness.body(at: next) == [2])
    #expect(blocks.allSatisfy { harness.body(at: $0) == [1, 2, 3] })
    harness.close()
  }
}
