import Journal
import Testbed
import Testing

@testable import Broker

@Suite struct EntryLaneTests {
  private func entry(_ sequence: UInt64) -> Entry {
    Entry(
      sequence: sequence,
      location: RecordLocation(block: UInt32(sequence % 7), offset: UInt32(sequence * 8)),
      flags: sequence.isMultiple(of: 2) ? .durable : [])
  }

  private func expectSame(_ left: Entry?, _ right: Entry?, _ comment: Comment) {
    #expect(left?.sequence == right?.sequence, comment)
    #expect(left?.location == right?.location, comment)
    #expect(left?.flags == right?.flags, comment)
  }

  @Test func anEmptyLaneHasNoFirst() {
    let lane = EntryLane()
    #expect(lane.count == 0)
    expectSame(lane.first, nil, "empty")
  }

  @Test(arguments: Seeds.all)
  func entriesLeaveInTheOrderInWhichTheyCame(seed: UInt64) {
    var random = SeededRandom(seed)
    var lane = EntryLane()
    var next: UInt64 = 1
    var oldest: UInt64 = 1
    for phase in 0..<40 {
      // Around one chunk of 170, several of them, and down to nothing.
      let target = random.element([0, 1, 169, 170, 171, 340, 1000])!
      while Int(next - oldest) != target {
        if Int(next - oldest) < target {
          lane.append(entry(next))
          next += 1
        } else {
          expectSame(lane.removeFirst(), entry(oldest), "seed \(seed), phase \(phase)")
          oldest += 1
        }
        #expect(lane.count == Int(next - oldest))
      }
      expectSame(
        lane.first, target == 0 ? nil : entry(oldest), "seed \(seed), phase \(phase)")
    }
  }

  @Test(arguments: Seeds.all)
  func aLaneThatIsFilledAndEmptiedInTurnsKeepsItsOrder(seed: UInt64) {
    var random = SeededRandom(seed)
    var lane = EntryLane()
    var next: UInt64 = 1
    var oldest: UInt64 = 1
    for step in 0..<20_000 {
      if next == oldest || random.isOne(in: 2) {
        lane.append(entry(next))
        next += 1
      } else {
        let removed = lane.removeFirst()
        if removed.sequence != oldest { Issue.record("seed \(seed), step \(step)") }
        oldest += 1
      }
    }
    #expect(lane.count == Int(next - oldest))
  }

  @Test(arguments: [0, 1, 254, 255, 256, 510, 511, 1000], [0, 1, 254, 255, 300])
  func lookingThroughShowsEachEntryOnceUntilItIsEnough(count: Int, removed: Int) {
    var lane = EntryLane()
    for sequence in 0..<UInt64(count + removed) { lane.append(entry(sequence)) }
    for _ in 0..<removed { _ = lane.removeFirst() }
    let expected = (0..<UInt64(count)).map { $0 + UInt64(removed) }
    var seen: [UInt64] = []
    var limit = Int.max
    func note(_ entry: Entry) -> Bool {
      seen.append(entry.sequence)
      return seen.count < limit
    }
    lane.forEach(note)
    #expect(seen == expected)
    seen = []
    limit = 260
    lane.forEach(note)
    #expect(seen == Array(expected.prefix(260)))
    #expect(lane.count == count)
  }

  @Test(arguments: [0, 1, 255, 256, 600, 2000], [0, 1, 255])
  func lookingAheadShowsOneEntryOfEachChunkBehindTheFirst(count: Int, removed: Int) {
    var lane = EntryLane()
    for sequence in 0..<UInt64(count + removed) { lane.append(entry(sequence)) }
    for _ in 0..<removed { _ = lane.removeFirst() }
    var seen: [UInt64] = []
    lane.forEachAhead(atMost: 3) { seen.append($0.sequence) }
    let behind = (1..<20).map { UInt64($0 * 255) }
      .filter { $0 < UInt64(count + removed) && $0 > UInt64(removed) }
    #expect(seen == Array(behind.prefix(3)))
  }
}
