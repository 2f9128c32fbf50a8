import Journal
import Testbed
import Testing

@testable import Broker

@Suite struct ReturnedTests {
  private func entry(_ sequence: UInt64) -> Entry {
    Entry(sequence: sequence, location: RecordLocation(block: 0, offset: 0), flags: [])
  }

  private func drained(_ returned: inout Returned) -> [UInt64] {
    var sequences: [UInt64] = []
    while !returned.isEmpty { sequences.append(returned.removeFirst().sequence) }
    return sequences
  }

  enum Order: CaseIterable { case ascending, descending, shuffled, halves }

  @Test(arguments: Order.allCases)
  func entriesLeaveInTheOrderOfTheirSequences(order: Order) {
    var random = SeededRandom(7)
    let all: [UInt64] = Array(1...10_000)
    let given: [UInt64] =
      switch order {
      case .ascending: all
      case .descending: all.reversed()
      case .shuffled: all.shuffled(using: &random)
      case .halves: Array(all[5000...]) + all[..<5000]
      }
    var returned = Returned()
    for sequence in given { returned.insert(entry(sequence)) }
    let (count, bytes) = (returned.count, returned.byteCount)
    #expect(count == 10_000)
    #expect(bytes < 10_000 * 40)
    let left = drained(&returned)
    #expect(left == all)
  }

  @Test(arguments: Seeds.all)
  func randomUseAgreesWithAModel(seed: UInt64) {
    var random = SeededRandom(seed)
    var returned = Returned()
    var model: Set<UInt64> = []
    for step in 0..<20_000 {
      let isRising = (step / 2500).isMultiple(of: 2)
      if model.isEmpty || random.number(0..<10) < (isRising ? 8 : 2) {
        let sequence = UInt64(random.number(1..<100_000))
        if model.insert(sequence).inserted { returned.insert(entry(sequence)) }
      } else if step.isMultiple(of: 20) {
        let least = model.min()!
        model.remove(least)
        if returned.removeFirst().sequence != least { Issue.record("seed \(seed), step \(step)") }
      } else if let first = returned.first?.sequence {
        model.remove(first)
        if returned.removeFirst().sequence != first { Issue.record("seed \(seed), step \(step)") }
      }
      if returned.count != model.count { Issue.record("seed \(seed), step \(step)") }
    }
    let left = drained(&returned)
    #expect(left == model.sorted())
  }

  @Test func walkingShowsEachEntryOnceInSlicesFromTheHighest() {
    var returned = Returned()
    for sequence in 1...3000 as ClosedRange<UInt64> where sequence % 3 != 0 {
      returned.insert(entry(sequence))
    }
    for _ in 0..<100 { _ = returned.removeFirst() }
    var seen: [UInt64] = []
    var bound: UInt64? = .max
    while let below = bound {
      bound = returned.walk(below: below, atMost: 41) { seen.append($0.sequence) }
    }
    let left = drained(&returned)
    #expect(seen == left.reversed())
  }
}
