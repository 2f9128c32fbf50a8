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
      // Around the ends of the first chunks, several large ones, and down to nothing.
      let target = random.element([0, 1, 5, 6, 7, 36, 37, 162, 163, 416, 417, 1000])!
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

  @Test(arguments: [0, 1, 253, 254, 255, 508, 509, 1000], [0, 1, 253, 254, 300])
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

  @Test func anEmptyLaneKeepsLittleAndNothingWhenItIsTrimmed() {
    var lane = EntryLane()
    lane.append(entry(1))
    #expect(lane.byteCount == 128)
    for sequence in 2...100_000 { lane.append(entry(UInt64(sequence))) }
    #expect(lane.byteCount < 100_000 * 17)
    while lane.count > 0 { _ = lane.removeFirst() }
    #expect(lane.byteCount == 4096)
    lane.trim()
    #expect(lane.byteCount == 0)
    lane.append(entry(7))
    expectSame(lane.first, entry(7), "after trimming")
    #expect(lane.byteCount == 128)
  }

  @Test(arguments: [0, 1, 254, 255, 600, 2000], [0, 1, 254])
  func lookingAheadShowsOneEntryOfEachChunkBehindTheFirst(count: Int, removed: Int) {
    var lane = EntryLane()
    for sequence in 0..<UInt64(count + removed) { lane.append(entry(sequence)) }
    for _ in 0..<removed { _ = lane.removeFirst() }
    var seen: [UInt64] = []
    lane.forEachAhead(atMost: 3) { seen.append($0.sequence) }
    // They have 6, 30, 126, 254 and 254 entries, and so on.
    let firsts: [Int] = [6, 36, 162, 416, 670, 924, 1178]
    let behind = firsts.filter { $0 < count + removed && $0 > removed }.map { UInt64($0) }
    #expect(seen == Array(behind.prefix(3)))
  }

  /// What is taken out of the middle is gone, and all else stays in its order, whatever comes and goes.
  @Test(arguments: Seeds.all)
  func entriesLeaveFromTheMiddle(seed: UInt64) {
    var random = SeededRandom(seed)
    var lane = EntryLane()
    var model: [UInt64] = []
    var next: UInt64 = 1
    for step in 0..<2000 {
      switch random.number(0..<4) {
      case 0:
        for _ in 0..<random.element([1, 7, 40, 600])! {
          lane.append(entry(next))
          model.append(next)
          next += 1 + UInt64(random.number(0..<2))
        }
      case 1:
        for _ in 0..<min(model.count, random.element([1, 7, 300])!) {
          #expect(lane.removeFirst().sequence == model.removeFirst())
        }
      default:
        // A few anywhere, some neighbours, or a part of all; and some that are not there.
        let first = random.number(0..<max(1, model.count))
        let some = model[min(first, model.count)...].prefix(random.element([1, 3, 300, 2000])!)
        let every = random.element([1, 1, 2, 10])!
        var wanted = some.filter { _ in random.isOne(in: every) }
        if random.isOne(in: 4) { wanted.append(next + 5) }
        var gone: [UInt64] = []
        lane.remove(wanted[...]) { gone.append($0.sequence) }
        #expect(gone == wanted.filter { $0 < next }, "seed \(seed), step \(step)")
        let set = Set(gone)
        model.removeAll { set.contains($0) }
      }
      var all: [UInt64] = []
      lane.forEach(behind: 0) {
        all.append($0.sequence)
        return true
      }
      #expect(all == model && lane.count == model.count, "seed \(seed), step \(step)")
      expectSame(lane.first, model.first.map(entry), "seed \(seed), step \(step)")
    }
    while !model.isEmpty { #expect(lane.removeFirst().sequence == model.removeFirst()) }
    lane.trim()
    #expect(lane.byteCount == 0, "seed \(seed)")
  }
}
