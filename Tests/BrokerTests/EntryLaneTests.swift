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
}
