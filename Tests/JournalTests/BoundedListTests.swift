import Testbed
import Testing

@testable import Journal

/// Lists beside the blocks do not grow with what has passed.
@Suite struct BoundedListTests {
  @Test func passingBlocksLeaveNothingBehind() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    for number in 0..<2000 {
      let (location, _) = journal.appendTransient(kind: Harness.kind, payloadSize: 40_000)
      journal.retain(location.block)
      journal.release(location.block)
      let durable = harness.append(
        Message(number: UInt32(number), body: [UInt8](repeating: 1, count: 40_000)))
      if number % 10 == 0 { harness.settle() }
      journal.release(durable.block)
    }
    harness.settle()
    #expect(journal.transientOrder.count <= 64 + 2)
    #expect(journal.logOrder.count <= 64 + 2 * 400)
    #expect(journal.resident.count <= 64 + 2 * 400)
    harness.close()
  }

  @Test func blocksThatStayAreListedOnce() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    var first: RecordLocation?
    for number in 0..<2000 {
      let (location, _) = journal.appendTransient(kind: Harness.kind, payloadSize: 40_000)
      journal.retain(location.block)
      if number == 0 { first = location } else { journal.release(location.block) }
    }
    #expect(journal.transientOrder.count <= 64 + 4)
    #expect(
      journal.transientOrder.oldest(journal.blocks, .memory)
        == first.map { journal.blocks[Int($0.block)].start })
    harness.close()
  }

  @Test func problemsAreKeptUpToALimitAndTheRestIsCounted() {
    var problems = ProblemList()
    #expect(problems.take() == [])
    for number in 0..<20 {
      problems.add("\(number)")
      problems.add("\(number % 3)")
    }
    #expect(
      problems.take() == (0..<16).map { "\($0)" }
        + ["4 more problems of the journal are not named"])
    #expect(problems.take() == [])
  }
}
