import Testbed
import Testing

@testable import Broker

@Suite struct SequenceSetTests {
  @Test(arguments: Seeds.all)
  func aSetOfRangesAgreesWithASetOfNumbers(seed: UInt64) {
    var random = SeededRandom(seed)
    for round in 0..<200 {
      var set = SequenceSet()
      var model = Set<UInt64>()
      var next: UInt64 = 1
      for _ in 0..<random.number(0..<12) {
        let first = next + UInt64(random.number(0..<4))
        let last = first + UInt64(random.number(0..<10))
        set.append(first...last)
        model.formUnion(first...last)
        next = last + UInt64(random.number(0..<3))
      }
      for _ in 0..<random.number(0..<20) {
        let sequence = UInt64(random.number(1..<90))
        set.insert(sequence)
        model.insert(sequence)
        check(set, model, "seed \(seed), round \(round)")
      }
      for _ in 0..<random.number(0..<8) {
        let first = UInt64(random.number(0..<80))
        let range = first...first + UInt64(random.number(0..<10))
        set.insert(range)
        model.formUnion(range)
        check(set, model, "seed \(seed), round \(round)")
      }
      for _ in 0..<12 {
        let first = UInt64(random.number(0..<80))
        let range = first...first + UInt64(random.number(0..<15))
        set.remove(range)
        model.subtract(range)
        check(set, model, "seed \(seed), round \(round)")
      }
    }
  }

  private func check(_ set: SequenceSet, _ model: Set<UInt64>, _ comment: Comment) {
    let numbers = Set(set.ranges.joined())
    #expect(numbers == model, comment)
    for (left, right) in zip(set.ranges, set.ranges.dropFirst()) {
      #expect(left.upperBound < right.lowerBound, comment)
    }
    for first in 0 as UInt64..<90 {
      if set.contains(first) != model.contains(first) { Issue.record(comment) }
    }
    for first in stride(from: 0 as UInt64, to: 90, by: 7) {
      for size in [1, 2, 5, 11] as [UInt64] {
        let inside = (first..<first + size).count { model.contains($0) }
        let expected: SequenceSet.Overlap =
          inside == 0 ? .none : inside == Int(size) ? .whole : .part
        let found = set.overlap(first...first + size - 1)
        // Neighbours that were appended one by one are one range, so that no whole is called a part.
        if found != expected { Issue.record("\(comment): \(found) of \(first), \(size)") }
        let gaps = set.gaps(in: first...first + size - 1)
        let missing = (first..<first + size).filter { !model.contains($0) }
        if Array(gaps.joined()) != missing { Issue.record("\(comment): gaps from \(first)") }
      }
    }
  }

  @Test func neighboursAreOneRange() {
    var set = SequenceSet()
    for sequence in 5...9 as ClosedRange<UInt64> { set.append(sequence...sequence) }
    set.append(9...12)
    #expect(set.ranges == [5...12])
    #expect(set.overlap(5...12) == .whole)
  }
}
