import Journal
import Testbed
import Testing

@testable import Broker

/// Entries that leave from the middle of a lane's memory.
@Suite struct EntryLaneEarlyTests {
  private func entry(_ sequence: UInt64) -> Entry {
    Entry(
      sequence: sequence, location: RecordLocation(block: 3, offset: UInt32(sequence)), flags: [])
  }

  @Test(arguments: Seeds.all)
  func randomUseAgreesWithAModel(seed: UInt64) {
    var random = SeededRandom(seed)
    var lane = EntryLane()
    var model: [(sequence: UInt64, date: Int64?)] = []
    var next: UInt64 = 1
    var now: Int64 = 1000
    for step in 0..<6000 {
      let isRising = (step / 700).isMultiple(of: 2)
      switch random.number(0..<10) {
      case 0...(isRising ? 6 : 2):
        for _ in 0..<random.number(1..<20) {
          if random.isOne(in: 3) {
            lane.append(entry(next))
            model.append((next, nil))
          } else {
            let date = now + Int64(random.number(0..<5000))
            lane.append(entry(next), leavingAt: date)
            model.append((next, date))
          }
          next += 1
        }
      case 7:
        for _ in 0..<random.number(1..<40) where !model.isEmpty {
          let expected = model.removeFirst().sequence
          if lane.removeFirst().sequence != expected { Issue.record("seed \(seed), step \(step)") }
        }
      default:
        now += Int64(random.number(0..<400))
        var left: [UInt64] = []
        while let gone = lane.removeEarly(at: now, keeping: 0..<0, until: now) {
          left.append(gone.sequence)
        }
        let due = model.filter { $0.date ?? .max <= now }.map(\.sequence)
        model.removeAll { $0.date ?? .max <= now }
        if left.sorted() != due { Issue.record("seed \(seed), step \(step): \(left) \(due)") }
        let nextDate = lane.nextEarly ?? .max
        if nextDate > model.compactMap(\.date).min() ?? .max {
          Issue.record("seed \(seed), step \(step): what is next is not known")
        }
      }
      if lane.count != model.count || lane.first?.sequence != model.first?.sequence {
        Issue.record("seed \(seed), step \(step): \(lane.count) of \(model.count)")
        return
      }
      if step.isMultiple(of: 50) {
        var seen: [UInt64] = []
        lane.forEach(behind: 0) {
          seen.append($0.sequence)
          return true
        }
        if seen != model.map(\.sequence) { Issue.record("seed \(seed), step \(step): order") }
        let behind = UInt64(random.number(0..<Int(next)))
        seen = []
        lane.forEach(behind: behind) {
          seen.append($0.sequence)
          return true
        }
        if seen != model.map(\.sequence).filter({ $0 > behind }) {
          Issue.record("seed \(seed), step \(step): behind \(behind)")
        }
        lane.forEachAhead(atMost: 9) { ahead in
          if !model.contains(where: { $0.sequence == ahead.sequence }) {
            Issue.record("seed \(seed), step \(step): \(ahead.sequence) is gone")
          }
        }
      }
    }
    while !model.isEmpty {
      if lane.removeFirst().sequence != model.removeFirst().sequence { Issue.record("the rest") }
    }
    lane.trim()
    #expect(lane.count == 0 && lane.byteCount == 0 && lane.earlyByteCount == 0)
  }

  @Test func placesOfWhatHasLeftAreGivenBack() {
    var lane = EntryLane()
    lane.append(entry(1))
    var most = 0
    for sequence in 2..<300_000 as Range<UInt64> {
      lane.append(entry(sequence), leavingAt: Int64(sequence))
      _ = lane.removeEarly(at: Int64(sequence) - 100, keeping: 0..<0, until: 0)
      most = max(most, lane.byteCount + lane.earlyByteCount)
    }
    #expect(lane.count == 101)
    // Some pages, whatever has passed.
    #expect(most < 40_000)
  }

  @Test func whatIsKeptIsLookedAtLater() {
    var lane = EntryLane()
    lane.append(entry(1))
    lane.append(entry(2), leavingAt: 10)
    lane.append(entry(3), leavingAt: 10)
    let first = lane.removeEarly(at: 10, keeping: 2..<3, until: 20)?.sequence
    let second = lane.removeEarly(at: 19, keeping: 0..<0, until: 0)?.sequence
    let third = lane.removeEarly(at: 20, keeping: 0..<0, until: 0)?.sequence
    #expect(first == 3 && second == nil && third == 2)
  }
}
