import Testing

@testable import Server

@Suite struct TurnTimesTests {
  @Test func nothingIsZero() {
    let times = TurnTimes()
    #expect(times.percentile(50) == 0)
    #expect(times.longest == 0)
    #expect(times.buckets.isEmpty)
  }

  @Test func percentilesAreAtMostAQuarterTooLarge() {
    var times = TurnTimes()
    for value in 1...1000 { times.record(Int64(value) * 10_000) }
    for percent in [1, 10, 50, 90, 99] as [Double] {
      let exact = Int64(percent * 10) * 10_000
      #expect((exact...exact / 4 * 5).contains(times.percentile(percent)), "\(percent)")
    }
    #expect(times.percentile(100) == 10_000_000)
    #expect(times.buckets.reduce(0) { $0 + $1.count } == 1000)
  }

  @Test(arguments: [-5, 0, 1, 1023, 1024, 5_000_000_000, .max] as [Int64])
  func anyDurationHasABucket(nanoseconds: Int64) {
    var times = TurnTimes()
    times.record(nanoseconds)
    #expect(times.buckets.map(\.count) == [1])
    #expect(times.longest == max(0, nanoseconds))
  }

  @Test func wordsAreMilliseconds() {
    var times = TurnTimes()
    times.record(12_345_678)
    times.record(50_000)
    #expect(times.description.hasPrefix("turns=2 turn-p50=0.0"))
    times.noteLongest(onProcessor: 3_000_400)
    times.noteLongest(onProcessor: 2_000_000)
    #expect(
      times.description.hasSuffix(
        "turn-p99=12.346ms longest-turn=12.346ms longest-turn-on-processor=3.000ms"))
  }
}
