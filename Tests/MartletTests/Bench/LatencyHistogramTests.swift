import Testing

@testable import martlet

@Suite struct LatencyHistogramTests {
  @Test func anEmptyOneKnowsNothing() {
    let histogram = LatencyHistogram()
    #expect(histogram.count == 0)
    #expect(histogram.percentile(50) == 0)
    #expect(histogram.mean == 0)
  }

  @Test func smallDurationsAreExact() {
    var histogram = LatencyHistogram()
    for value in 1...100 { histogram.record(Int64(value)) }
    #expect(histogram.percentile(0) == 1)
    #expect(histogram.percentile(50) == 50)
    #expect(histogram.percentile(99) == 99)
    #expect(histogram.percentile(99.9) == 100)
    #expect(histogram.percentile(100) == 100)
    #expect(histogram.mean == 50.5)
  }

  @Test(arguments: [
    0, 1, 127, 128, 129, 255, 256, 257, 1000, 65_535, 65_536, 1_000_000, 123_456_789,
    60_000_000_000, 1_800_000_000_000,
  ])
  func whatComesOutIsAtMostOnePercentMoreThanWhatWentIn(value: Int64) {
    var histogram = LatencyHistogram()
    histogram.record(value)
    histogram.record(.max / 4)
    let found = histogram.percentile(50)
    #expect(found >= value)
    #expect(Double(found) <= Double(value) * 1.01)
    #expect(histogram.min == value)
  }

  @Test func nothingIsBelowZeroAndNothingTooLong() {
    var histogram = LatencyHistogram()
    histogram.record(-5)
    histogram.record(.max)
    #expect(histogram.min == 0)
    #expect(histogram.max == .max)
    #expect(histogram.count == 2)
  }

  @Test func percentilesOfManyMatchSortedValues() {
    var generator = SystemRandomNumberGenerator()
    var histogram = LatencyHistogram()
    var values: [Int64] = []
    for _ in 0..<10_000 {
      let value = Int64.random(in: 0...(1 << Int64.random(in: 1...35)), using: &generator)
      values.append(value)
      histogram.record(value)
    }
    values.sort()
    for percent in [1.0, 10, 50, 90, 99, 99.9] {
      let exact = values[Int((percent / 100 * 10_000).rounded(.up)) - 1]
      let found = histogram.percentile(percent)
      #expect(found >= exact && Double(found) <= Double(exact) * 1.01)
    }
  }

  @Test func addingIsRecordingBoth() {
    var left = LatencyHistogram()
    var right = LatencyHistogram()
    var both = LatencyHistogram()
    for value in stride(from: Int64(1), to: 1_000_000, by: 777) {
      left.record(value)
      right.record(value * 3, times: 2)
      both.record(value)
      both.record(value * 3, times: 2)
    }
    left.add(right)
    #expect(left == both)
  }
}
