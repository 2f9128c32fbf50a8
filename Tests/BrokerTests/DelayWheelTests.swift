import Base
import Testbed
import Testing

@testable import Broker

/// Places by due times, and when each of them comes.
@Suite struct DelayWheelTests {
  /// Takes all from a wheel as its owner does: what a place of the lowest level has is due, and what others
  /// have moves.
  private struct Owner {
    var wheel: DelayWheel
    var places: [DelayWheel.Place: [Int64]] = [:]
    var moves = 0

    init(at time: Int64) { wheel = DelayWheel(at: time) }

    mutating func add(_ date: Int64) {
      let place = wheel.place(for: date)
      wheel.fill(place)
      places[place, default: []].append(date)
    }

    /// What is due up to `now`, in the order in which it comes, with the wheel's time then.
    mutating func take(upTo now: Int64) -> [(date: Int64, at: Int64)] {
      var taken: [(Int64, Int64)] = []
      while let next = wheel.next(), next.at <= now {
        wheel.advance(to: next.at)
        let dates = places.removeValue(forKey: next.place) ?? []
        wheel.empty(next.place)
        guard next.place.level > 0 else {
          taken += dates.map { ($0, next.at) }
          continue
        }
        moves += dates.count
        for date in dates { add(date) }
      }
      wheel.advance(to: now)
      return taken
    }
  }

  @Test(arguments: 0..<40)
  func whatIsDueComesOnTimeAndInOrder(seed: UInt64) {
    var random = SeededRandom(seed)
    let start: Int64 = 1_700_000_000_000 + Int64.random(in: 0..<10_000_000, using: &random)
    var owner = Owner(at: start)
    var now = start
    var waiting: [Int64] = []
    for _ in 0..<200 {
      for _ in 0..<Int.random(in: 0..<8, using: &random) {
        let range: Int64 = [1, 200, 50_000, 10_000_000, 3_000_000_000, 315_360_000_000]
          .randomElement(using: &random)!
        let date = now + Int64.random(in: 0..<range, using: &random)
        owner.add(date)
        waiting.append(date)
      }
      let step: Int64 = [0, 1, 90, 20_000, 4_000_000, 2_000_000_000].randomElement(using: &random)!
      now += Int64.random(in: 0...step, using: &random)
      let taken = owner.take(upTo: now)
      #expect(taken.map(\.date) == waiting.filter { $0 <= now }.sorted())
      #expect(taken.allSatisfy { $0.date == $0.at })
      waiting.removeAll { $0 <= now }
    }
    let rest = owner.take(upTo: .max >> 1)
    #expect(rest.map(\.date) == waiting.sorted())
  }

  @Test func aMessageMovesOnceForEachLevel() {
    var owner = Owner(at: 1_700_000_000_123)
    owner.add(1_700_000_000_123 + 315_360_000_000)
    _ = owner.take(upTo: .max >> 1)
    #expect(owner.moves == DelayWheel.levelCount - 1)
    owner.add(owner.wheel.time + 255)
    #expect(owner.wheel.next()?.place.level == 0)
  }

  /// After a restart the wheel's time is that of the place that comes first, and all others have the messages
  /// that they had.
  @Test(arguments: 0..<40)
  func theTimeIsFoundAgain(seed: UInt64) {
    var random = SeededRandom(seed)
    let start: Int64 = 1_700_000_000_000
    var owner = Owner(at: start)
    for _ in 0..<50 {
      let range: Int64 = [200, 50_000, 10_000_000, 3_000_000_000].randomElement(using: &random)!
      owner.add(owner.wheel.time + Int64.random(in: 0..<range, using: &random))
      if Bool.random(using: &random) {
        _ = owner.take(
          upTo: owner.wheel.time + Int64.random(in: 0..<range / 4, using: &random))
      }
    }
    let all = owner.places.values.flatMap { $0 }.sorted()
    let first = owner.places.map { DelayWheel.trigger($0.key, of: $0.value[0]) }.min()
    var again = Owner(at: first ?? start)
    for (place, dates) in owner.places {
      #expect(dates.allSatisfy { place.isOf($0) })
      again.wheel.fill(place)
      again.places[place] = dates
    }
    #expect(again.take(upTo: .max >> 1).map(\.date) == all)
  }

  @Test func whatIsOverdueIsDueAtOnce() {
    var wheel = DelayWheel(at: 1000)
    let place = wheel.place(for: 5)
    wheel.fill(place)
    #expect(wheel.next()?.at == 1000 && place.level == 0)
  }
}
