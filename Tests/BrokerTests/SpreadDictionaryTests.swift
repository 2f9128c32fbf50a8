import Base
import Testbed
import Testing

@testable import Broker

@Suite struct SpreadDictionaryTests {
  @Test(arguments: Seeds.all)
  func anyChangesLeaveWhatADictionaryWouldHave(seed: UInt64) {
    var random = SeededRandom(seed)
    var spread = SpreadDictionary<Name, Int>()
    var plain: [Name: Int] = [:]
    // Up above the size at which it is spread, and down again.
    for step in 0..<40_000 {
      let key = Name("\(random.number(0..<12_000))")
      let isGrowing = step < 20_000
      if random.number(0..<10) < (isGrowing ? 9 : 1) {
        spread[key] = step
        plain[key] = step
      } else {
        spread[key] = nil
        plain[key] = nil
      }
      if step.isMultiple(of: 1000) { expectEqual(spread, plain, "seed \(seed), step \(step)") }
    }
    expectEqual(spread, plain, "seed \(seed)")
  }

  private func expectEqual(
    _ spread: SpreadDictionary<Name, Int>, _ plain: [Name: Int], _ comment: Comment
  ) {
    #expect(spread.count == plain.count && spread.isEmpty == plain.isEmpty, comment)
    #expect(Set(spread.keys) == Set(plain.keys), comment)
    #expect(spread.values.sorted() == plain.values.sorted(), comment)
    #expect(plain.allSatisfy { spread[$0.key] == $0.value }, comment)
  }

  @Test func takingSomeOutTakesASmallPartOfMany() {
    var spread = SpreadDictionary<Name, Int>()
    for number in 0..<100_000 { spread[Name("\(number)")] = number }
    var taken: [Int] = []
    while !spread.isEmpty {
      let some = spread.removeSome()
      #expect(!some.isEmpty && some.count < 1000)
      taken += some
      #expect(spread.count == 100_000 - taken.count)
    }
    #expect(taken.sorted() == Array(0..<100_000))
    #expect(spread.removeSome() == [])
  }
}
