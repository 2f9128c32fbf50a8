import Testing

@testable import martlet

@Suite struct PacerTests {
  @Test(arguments: [(1000, 1), (7, 3), (20_000, 8), (999_999, 5)])
  func messagesAreSpreadEvenlyOverPublishersAndTime(rate: Int, publishers: Int) {
    let pacer = Pacer(
      startNanoseconds: 5000, messagesPerSecond: Double(rate), publishers: publishers)
    let counts = (0..<publishers).map { pacer.due(ofPublisher: $0, now: 5000 + 999_999_999) }
    #expect(counts.reduce(0, +) == rate)
    #expect(counts.max()! - counts.min()! <= 1)
  }

  @Test func aMessageIsDueFromItsTimeOn() {
    let pacer = Pacer(startNanoseconds: 100, messagesPerSecond: 3000, publishers: 4)
    for number in 0..<50 {
      let time = pacer.time(ofPublisher: 2, message: number)
      #expect(pacer.due(ofPublisher: 2, now: time - 1) == number)
      #expect(pacer.due(ofPublisher: 2, now: time) == number + 1)
    }
  }

  @Test func theNextLookIsWhenAMessageIsDue() {
    let pacer = Pacer(startNanoseconds: 0, messagesPerSecond: 1000, publishers: 1)
    #expect(pacer.nextTime(after: 0) == 1_000_000)
    #expect(pacer.nextTime(after: 1_500_000) == 2_000_000)
    // Never so soon that only waking up would remain.
    #expect(pacer.nextTime(after: 1_999_999) == 2_019_999)
  }
}
