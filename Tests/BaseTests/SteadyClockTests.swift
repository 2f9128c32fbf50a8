import Base
import Testing

@Suite struct SteadyClockTests {
  private static let start: Int64 = 1_800_000_000_000
  private static let hour: Int64 = 3_600_000

  private var clock = SteadyClock(at: Moment(monotonic: 5000, wall: Self.start))

  /// The wall clock shows `lead` more than the time that has passed since the start.
  private mutating func pass(until time: Int64, lead: Int64) {
    clock.follow(Moment(monotonic: 5000 + time, wall: Self.start + time + lead))
  }

  private func date(_ time: Int64) -> Int64 { clock.date(at: 5000 + time) - Self.start }

  @Test mutating func itShowsWhatTheWallClockShows() {
    #expect(date(0) == 0)
    for time in [1, 100, 7000, Self.hour] as [Int64] {
      pass(until: time, lead: 0)
      #expect(date(time) == time)
    }
  }

  @Test mutating func itFollowsWhatIsSetByOnePartInAHundred() {
    pass(until: 1000, lead: 0)
    pass(until: 1000, lead: Self.hour)
    #expect(date(1000) == 1000)
    pass(until: 61_000, lead: Self.hour)
    #expect(date(61_000) == 61_600)
    pass(until: 101 * Self.hour, lead: Self.hour)
    #expect(date(101 * Self.hour) == 102 * Self.hour)
  }

  /// Also in turns that are shorter than what a millisecond of following takes.
  @Test(arguments: [-hour, hour] as [Int64])
  mutating func itNeverGoesBackNorStandsStillNorJumps(step: Int64) {
    var last = date(0)
    for time in 1...20_000 as ClosedRange<Int64> {
      pass(until: time, lead: time < 5000 ? 0 : step)
      let date = date(time)
      #expect(date - last >= 0 && date - last <= 2)
      last = date
    }
    #expect(150...151 ~= abs(last - 20_000) && (last > 20_000) == (step > 0))
  }

  /// Whoever finds that a date has not come asks again, a few times and not for ever.
  @Test mutating func aDateComesThoughTheClockWasSetBack() {
    let date = Self.start + 600_000
    var time = clock.time(of: date) - 5000
    #expect(time == 600_000)
    var count = 0
    while count < 100 {
      pass(until: time, lead: -Self.hour)
      guard clock.date(at: 5000 + time) < date else { break }
      time = clock.time(of: date) - 5000
      count += 1
    }
    #expect(count <= 4)
    #expect(time >= 600_000 && time <= 607_000)
  }

  @Test func whatNeverComesHasNoTime() {
    #expect(clock.time(of: .max) > 1 << 60)
    #expect(SteadyClock(at: Moment(monotonic: 5000, wall: 0)).time(of: .max) == .max)
  }
}
