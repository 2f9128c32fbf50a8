import Testing

@testable import Server

@Suite struct PollBudgetTests {
  private static let longest: Int64 = 50_000

  /// What the loop does with a budget, while events come after the waits that `waits` says.
  private struct Course {
    var budget = PollBudget(longestNanoseconds: PollBudgetTests.longest)
    var time: Int64 = 0
    var looked: Int64 = 0
    var lookedInVain: Int64 = 0
    var found = 0

    mutating func wait(_ nanoseconds: Int64) {
      let limit = budget.nanoseconds
      let hasFound = limit > 0 && nanoseconds <= limit
      let look = min(limit, nanoseconds)
      budget.note(waited: nanoseconds, looked: look, hasFound: hasFound)
      time += nanoseconds
      looked += look
      if hasFound { found += 1 } else { lookedInVain += look }
    }
  }

  @Test func nobodyLooksBeforeAnythingCame() {
    #expect(PollBudget(longestNanoseconds: Self.longest).nanoseconds == 0)
  }

  @Test func quickEventsAreFoundByLooking() {
    var course = Course()
    for _ in 0..<200 { course.wait(30_000) }
    #expect(course.found > 150)
    #expect(course.budget.nanoseconds >= 30_000)
  }

  @Test func aLookIsAsLongAsItNeedsToBe() {
    var course = Course()
    for _ in 0..<200 { course.wait(8_000) }
    #expect(course.budget.nanoseconds < Self.longest / 2)
    #expect(course.budget.nanoseconds >= 8_000)
  }

  @Test func itIsLookedForMostEventsWhereFewComeLate() {
    var course = Course()
    for number in 0..<1000 { course.wait(number % 4 == 0 ? 300_000 : 10_000) }
    #expect(course.found > 700)
    #expect(course.budget.nanoseconds < Self.longest / 2)
  }

  @Test func nobodyLooksWhereMostComeLate() {
    var course = Course()
    for number in 0..<1000 { course.wait(number % 4 == 0 ? 10_000 : 300_000) }
    #expect(course.looked == 0)
  }

  /// A busy loop asks once, and has its answer: a look would be a second question.
  @Test func nobodyLooksWhereEventsAreThereAtOnce() {
    var course = Course()
    for _ in 0..<200 { course.wait(30_000) }
    for number in 0..<100 { course.wait(number % 4 == 0 ? 20_000 : 800) }
    course.looked = 0
    for number in 0..<1000 { course.wait(number % 4 == 0 ? 20_000 : 800) }
    #expect(course.looked == 0)
  }

  /// Even if what is about to come is always taken for something else.
  @Test func whatIsLookedInVainIsAQuarterAtMost() {
    var course = Course()
    let turns = PollBudget.round
    for number in 0..<10_000 { course.wait(number / turns % 2 == 0 ? 5_000 : 51_000) }
    #expect(course.lookedInVain > 0)
    #expect(course.lookedInVain <= course.time / PollBudget.share + 4 * Self.longest)
  }

  @Test(arguments: [60_000, 170_000, 1_000_000, 250_000_000, 3_600_000_000_000] as [Int64])
  func nobodyLooksForWhatComesTooLate(gap: Int64) {
    var course = Course()
    for _ in 0..<1000 { course.wait(gap) }
    #expect(course.looked == 0)
  }

  @Test func aPauseEndsTheLooksSoon() {
    var course = Course()
    for _ in 0..<200 { course.wait(30_000) }
    course.looked = 0
    for _ in 0..<100 { course.wait(10_000_000) }
    #expect(course.looked <= Int64(2 * PollBudget.round) * Self.longest)
    #expect(course.budget.nanoseconds == 0)
  }

  @Test func oneHiccupDoesNotEndThem() {
    var course = Course()
    for _ in 0..<200 { course.wait(30_000) }
    course.wait(5_000_000)
    #expect(course.budget.nanoseconds >= 30_000)
  }

  @Test func theyBeginAgainAfterAPause() {
    var course = Course()
    for _ in 0..<10 { course.wait(60_000_000_000) }
    var count = 0
    while course.budget.nanoseconds == 0, count < 100 {
      course.wait(30_000)
      count += 1
    }
    #expect(count <= 2 * PollBudget.round)
  }

  @Test(arguments: [true, false])
  func whoGotTheProcessorBackLateWaitsInstead(hasFound: Bool) {
    var course = Course()
    for _ in 0..<200 { course.wait(30_000) }
    let late: Int64 = 4_000_000
    course.budget.note(waited: late, looked: late, hasFound: hasFound)
    #expect(course.budget.nanoseconds == 0)
    course.time = 0
    while course.budget.nanoseconds == 0, course.time < 100 * late { course.wait(30_000) }
    // A quarter of the time is credit: of the late look itself, and of what passes since.
    #expect(course.time > 2 * late)
    #expect(course.time < 4 * late)
  }

  @Test func theDebtHasALimit() {
    var course = Course()
    for _ in 0..<200 { course.wait(30_000) }
    course.budget.note(waited: 0, looked: .max / 2, hasFound: false)
    course.time = 0
    while course.budget.nanoseconds == 0, course.time < 1_000_000_000 { course.wait(30_000) }
    #expect(course.time <= 110_000_000)
  }

  @Test func switchedOffItNeverLooks() {
    var budget = PollBudget(longestNanoseconds: 0)
    for _ in 0..<1000 { budget.note(waited: 0, looked: 0, hasFound: false) }
    #expect(budget.nanoseconds == 0)
    #expect(budget.statistics.looks == 0)
  }

  @Test func statisticsSayWhatWasLooked() {
    var budget = PollBudget(longestNanoseconds: Self.longest)
    budget.note(waited: 2_000_000, looked: 0, hasFound: false)
    budget.note(waited: 1_000_000, looked: 1_000_000, hasFound: true)
    budget.note(waited: 3_000_000, looked: 2_000_000, hasFound: false)
    #expect("\(budget.statistics)" == "looks=2 looks-in-vain=1 looked=3ms")
  }
}
