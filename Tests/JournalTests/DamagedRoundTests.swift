import IO
import Testbed
import Testing

@testable import Journal

@Suite struct DamagedRoundTests {
  /// While a round is written the broker may let go of the message, and its block of another one.
  @Test func aDamagedRecordIsNamedByItsPlaceThoughItsBlockIsGone() throws {
    var settings = Harness.small
    settings.cacheBytes = 0
    let directory = try TemporaryDirectory()
    let harness = try Harness(directory.path, settings)
    // Each has a block of its own.
    let locations = (1...3).map {
      harness.append(Message(number: $0, body: [UInt8](repeating: 1, count: 200_000)))
    }
    harness.settle()
    let journal = harness.journal
    let damaged = locations[1]
    let position = journal.blocks[Int(damaged.block)].start + Int(damaged.offset)
    #expect(position > 200_000)
    try File(directory.path + "/" + SegmentFiles.name(0), .readWrite)
      .write(at: SegmentHeader.pageBytes + position + 1000, [9])

    var selection = SpillSelection(blocks: [damaged.block], isDurable: true)
    selection.lanes = [
      SpillSelection.Lane(id: 1, entries: [LaneEntry(packed: 1 << 8 | 1, location: damaged)])
    ]
    journal.spill(
      selection, cutoff: SpillCutoff(log: position + 1, memory: 0), now: 1)
    journal.release(damaged.block)
    let moved = harness.takeRound()
    let file = directory.path + "/" + SegmentFiles.name(0)
    #expect(
      moved.map(\.damage) == ["the record at log position \(position), in \(file), is damaged"])
    journal.finishSpill(moved)
    harness.close()
  }
}
