import Base
import Testbed
import Testing

@testable import Journal

/// A record that is put together in the memory of its block is a record like all others.
@Suite struct RecordDraftTests {
  private static func body(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 0x9E37_79B1) >> 7) }
  }

  private static func draft(_ journal: Journal, _ body: [UInt8], parts: Int) -> RecordDraft {
    let draft = RecordDraft(journal, headSize: 5)
    for start in stride(from: 0, to: body.count, by: parts) {
      let part = Array(body[start..<min(start + parts, body.count)])
      draft.append(part.span.bytes, of: body.count)
    }
    return draft
  }

  /// Appends it with five bytes before its body and some behind; returns where, and its payload.
  private static func append(
    _ draft: RecordDraft, to journal: Journal, isDurable: Bool = true, number: UInt32,
    tail: [UInt8]
  ) -> (RecordLocation, [UInt8]) {
    let body = Array(draft.body)
    let (location, payload) = journal.append(
      draft, isDurable: isDurable, kind: Harness.kind, word: number, tailSize: tail.count)
    let head: [UInt8] = [1, 2, 3, 4, 5]
    payload.copyMemory(from: head, byteCount: 5)
    (payload + 5 + body.count).copyMemory(from: tail, byteCount: tail.count)
    journal.retain(location.block)
    return (location, head + body + tail)
  }

  /// Also across segments of 1 MiB, and with a tail that needs pages that the body had not.
  @Test(
    arguments: [1, 4000, 4096, 70_000, 262_123, 300_000, 1 << 20, 3_500_000],
    [0, 12, 9000])
  func aRecordIsReadAgain(size: Int, tailSize: Int) throws {
    let directory = try TemporaryDirectory()
    let tail = (0..<tailSize).map { UInt8(truncatingIfNeeded: $0 / 7) }
    var expected: [Message] = []
    do {
      let harness = try Harness(directory.path)
      let journal = harness.journal
      for number in 1...3 as ClosedRange<UInt32> {
        let small = Message(number: 10 * number, body: Self.body(Int(number)))
        harness.append(small)
        let draft = Self.draft(journal, Self.body(size), parts: 50_000)
        let (location, payload) = Self.append(draft, to: journal, number: number, tail: tail)
        #expect(harness.body(at: location) == payload)
        #expect(draft.capacity == 0 && draft.count == 0)
        if number == 2 { harness.settle() }
        expected += [small, Message(number: number, body: payload)]
      }
      let behind = Message(number: 99, body: [9])
      harness.append(behind)
      expected.append(behind)
      #expect(journal.statistics.draftsAppended == 3)
      harness.settle()
      harness.close()
    }
    let again = try Harness(directory.path)
    #expect(again.collector.messages.map(\.message) == expected)
    again.close()
  }

  @Test func memoryIsCountedOnceItIsABlock() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    harness.settle()
    let before = journal.memoryBytes
    let draft = Self.draft(journal, Self.body(3_000_000), parts: 1_000_000)
    #expect(journal.memoryBytes == before)
    #expect((3_000_000..<3_010_000).contains(draft.capacity))
    let (location, payload) = Self.append(
      draft, to: journal, isDurable: false, number: 1, tail: [])
    #expect(journal.memoryBytes - before == BlockMemory.padded(16 + payload.count))
    journal.release(location.block)
    #expect(journal.memoryBytes == before)
    harness.close()
  }

  /// The memory of drafts that come to nothing goes back in parts.
  @Test func whatIsGivenUpGoesBack() throws {
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path)
    let journal = harness.journal
    let before = journal.memoryBytes
    let body = Self.body(1 << 20)
    var drafts = (0..<20).map { _ in Self.draft(journal, body, parts: 1 << 20) }
    let held = drafts.reduce(0) { $0 + $1.capacity }
    drafts = []
    #expect(journal.memoryBytes == before + held)
    var turns = 0
    while journal.isGivingBackMemory {
      journal.trim()
      turns += 1
    }
    #expect(turns == (held + BlockMemory.unmappedBytesMax - 1) / BlockMemory.unmappedBytesMax)
    #expect(journal.memoryBytes == before)
    harness.close()
  }
}
