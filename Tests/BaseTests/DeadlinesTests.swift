import Arbitrary
import Base
import Testing

@Suite struct DeadlinesTests {
  private func due(_ deadlines: inout Deadlines, at now: Int64) -> [Int] {
    var places: [Int] = []
    while let place = deadlines.takeDue(at: now) { places.append(place) }
    return places
  }

  @Test func theEarliestComesFirstAndOnce() {
    var deadlines = Deadlines()
    for (place, time) in [(3, 30), (1, 10), (0, 40), (2, 20)] as [(Int, Int64)] {
      deadlines.arm(place, at: time)
    }
    #expect(deadlines.next == 10)
    #expect(due(&deadlines, at: 9) == [])
    #expect(due(&deadlines, at: 30) == [1, 2, 3])
    #expect(deadlines.next == 40)
    #expect(due(&deadlines, at: .max) == [0])
    #expect(deadlines.next == nil)
  }

  @Test func aPlaceHasOneTime() {
    var deadlines = Deadlines()
    deadlines.arm(5, at: 10)
    deadlines.arm(6, at: 15)
    deadlines.arm(5, at: 20)
    #expect(deadlines.time(of: 5) == 20)
    #expect(due(&deadlines, at: 15) == [6])
    deadlines.arm(5, at: 1)
    #expect(deadlines.next == 1)
    deadlines.cancel(5)
    deadlines.cancel(5)
    deadlines.cancel(1000)
    #expect(deadlines.count == 0 && deadlines.time(of: 5) == nil)
  }

  /// Against a plain table of times.
  @Test(arguments: 1...20 as ClosedRange<UInt64>)
  func itKeepsWhatATableKeeps(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var deadlines = Deadlines()
    var table: [Int: Int64] = [:]
    var now: Int64 = 0
    for _ in 0..<2000 {
      let place = random.number(0...60)
      switch random.number(0...9) {
      case 0...5:
        let time = now + Int64(random.number(0...100))
        deadlines.arm(place, at: time)
        table[place] = time
      case 6...7:
        deadlines.cancel(place)
        table[place] = nil
      default:
        now += Int64(random.number(0...20))
        var last = Int64.min
        while let place = deadlines.takeDue(at: now) {
          let time = table.removeValue(forKey: place)
          #expect(time.map { $0 <= now && $0 >= last } == true)
          last = time ?? last
        }
        #expect(table.values.allSatisfy { $0 > now })
      }
      #expect(deadlines.next == table.values.min())
      #expect(deadlines.count == table.count)
    }
    deadlines.checkInvariants()
  }
}
