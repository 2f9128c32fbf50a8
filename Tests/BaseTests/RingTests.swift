import Arbitrary
import Base
import Testing

@Suite struct RingTests {
  @Test func whatIsAppendedComesOutInOrder() {
    var ring = Ring<Int>()
    for number in 0..<1000 { ring.append(number) }
    let (first, last) = (ring.first, ring.last)
    #expect(first == 0)
    #expect(last == 999)
    for number in 0..<1000 {
      let removed = ring.removeFirst()
      #expect(removed == number)
    }
    let (isEmpty, none) = (ring.isEmpty, ring.first)
    #expect(isEmpty)
    #expect(none == nil)
  }

  /// Long phases of growth and of shrinking, so that the memory is doubled and halved.
  @Test(arguments: Seed.some(20))
  func anySequenceOfChangesAgreesWithAnArray(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var ring = Ring<UInt64>()
    var model: [UInt64] = []
    for phase in 0..<20 {
      let appends = random.number(0...10)
      for step in 0..<random.number(1...2000) {
        change(&ring, &model, appendsInTen: appends, &random)
        let (count, first, last) = (ring.count, ring.first, ring.last)
        try #require(
          count == model.count && first == model.first && last == model.last,
          "phase \(phase), step \(step)")
      }
      let all = (0..<ring.count).map { ring[$0] }
      try #require(all == model, "phase \(phase)")
      if random.oneIn(10) {
        ring.removeAll()
        model = []
      }
    }
  }

  private func change(
    _ ring: inout Ring<UInt64>, _ model: inout [UInt64], appendsInTen: Int,
    _ random: inout SeededGenerator
  ) {
    if random.number(1...10) <= appendsInTen {
      let element = random.next()
      ring.append(element)
      model.append(element)
    } else if model.isEmpty {
      return
    } else if random.oneIn(5) {
      let index = random.number(0...model.count - 1)
      ring[index] = random.next()
      model[index] = ring[index]
    } else {
      let removed = ring.removeFirst()
      #expect(removed == model.removeFirst())
    }
  }

  @Test func removingFromAnEmptyRingStopsTheProcess() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var ring = Ring<Int>()
      ring.append(1)
      _ = ring.removeFirst()
      _ = ring.removeFirst()
    }
    #expect(result?.says("invariant broken: removed from an empty ring") == true)
  }

  @Test func readingBehindTheEndStopsTheProcess() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var ring = Ring<Int>()
      ring.append(1)
      _ = ring[1]
    }
    #expect(result?.says("invariant broken: ring index out of range") == true)
  }

  @Test func writingBeforeTheStartStopsTheProcess() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      var ring = Ring<Int>()
      ring.append(1)
      ring[-1] = 2
    }
    #expect(result?.says("invariant broken: ring index out of range") == true)
  }
}
