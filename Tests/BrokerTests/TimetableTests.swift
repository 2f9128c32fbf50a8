import Testbed
import Testing

@testable import Broker

@Suite struct TimetableTests {
  /// Something that notes when it is called.
  private final class Sleeper: Timed {
    var timetablePlace = TimetablePlace()
    let number: Int
    /// When it is called next, by the time of a call.
    var next: (Int64) -> Int64? = { _ in nil }
    var stepsPerCall = 1
    private(set) var calls: [Int64] = []
    var diary: Diary?

    init(_ number: Int = 0) { self.number = number }

    func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
      calls.append(time)
      diary?.numbers.append(number)
      steps -= stepsPerCall
      return next(time)
    }
  }

  private final class Diary {
    var numbers: [Int] = []
  }

  private func sleepers(_ count: Int, _ diary: Diary? = nil) -> [Sleeper] {
    (0..<count).map { number in
      let sleeper = Sleeper(number)
      sleeper.diary = diary
      return sleeper
    }
  }

  @Test func whoIsDueIsCalledThenAndNotBefore() {
    let table = Timetable(stepsPerTurn: 100)
    let sleeper = Sleeper()
    table.arm(sleeper, at: 20)
    table.advance(to: 19)
    #expect(sleeper.calls == [] && table.next == 20 && table.time(of: sleeper) == 20)
    #expect(!table.hasDue(at: 19) && table.hasDue(at: 20))
    table.advance(to: 20)
    #expect(sleeper.calls == [20] && table.next == nil && !sleeper.timetablePlace.isArmed)
    table.advance(to: 1000)
    #expect(sleeper.calls == [20])
  }

  @Test func whatIsPostponedIsFoundOutWhenTheOldTimeComes() {
    let table = Timetable(stepsPerTurn: 100)
    let sleeper = Sleeper()
    table.arm(sleeper, at: 20)
    table.armEarlier(sleeper, at: 30)
    #expect(table.next == 20)
    table.armEarlier(sleeper, at: 10)
    #expect(table.next == 10)
    sleeper.next = { $0 < 30 ? 30 : nil }
    table.advance(to: 10)
    #expect(table.next == 30)
    table.advance(to: 31)
    #expect(sleeper.calls == [10, 31])
  }

  /// What it says at its call's end counts, and not what it was armed for in between.
  @Test func whoArmsItselfInItsCallIsCalledWhenItSaidLast() {
    let table = Timetable(stepsPerTurn: 100)
    let sleeper = Sleeper()
    sleeper.next = { time in
      table.arm(sleeper, at: time + 1)
      return time == 5 ? 50 : nil
    }
    table.arm(sleeper, at: 5)
    table.advance(to: 5)
    #expect(table.next == 50)
    table.advance(to: 50)
    #expect(table.next == nil && table.count == 0)
  }

  @Test func nobodyIsKeptWhoIsNotArmed() {
    let table = Timetable(stepsPerTurn: 100)
    weak var gone: Sleeper?
    do {
      let sleeper = Sleeper()
      gone = sleeper
      table.arm(sleeper, at: 5)
    }
    #expect(gone != nil)
    gone.map { table.cancel($0) }
    #expect(gone == nil && table.count == 0)
  }

  @Test func tenThousandAtOnceTakeSeveralTurns() {
    let table = Timetable(stepsPerTurn: 4096)
    let sleepers = sleepers(10_000)
    for sleeper in sleepers { table.arm(sleeper, at: 5) }
    var turns = 0
    while table.hasDue(at: 5), turns < 100 {
      table.advance(to: 5)
      turns += 1
    }
    #expect(turns == 3)
    #expect(sleepers.allSatisfy { $0.calls == [5] })
  }

  @Test func aLongTurnTakesOneOfThem() {
    let table = Timetable(stepsPerTurn: 4096)
    table.isTurnLong = { true }
    let sleepers = sleepers(10)
    for sleeper in sleepers { table.arm(sleeper, at: 5) }
    table.advance(to: 5)
    #expect(sleepers.count { $0.calls == [5] } == 1)
  }

  /// Who has work without end gets a slice, and then others are called.
  @Test func whoIsNeverDoneHoldsNobodyUp() {
    let table = Timetable(stepsPerTurn: 1000)
    let greedy = Sleeper()
    greedy.stepsPerCall = 512
    greedy.next = { $0 }
    table.arm(greedy, at: 1)
    let others = sleepers(20)
    for (index, sleeper) in others.enumerated() { table.arm(sleeper, at: Int64(2 + index)) }
    for turn in 0..<3 { table.advance(to: Int64(30 + turn)) }
    #expect(others.allSatisfy { $0.calls.count == 1 })
    #expect((3...6).contains(greedy.calls.count))
    #expect(table.hasDue(at: 33))
  }

  /// Against a plain table: who is due is called once, in the order of the times.
  @Test(arguments: 1...20 as ClosedRange<UInt64>)
  func itDoesWhatATableDoes(seed: UInt64) {
    var random = SeededRandom(seed)
    let table = Timetable(stepsPerTurn: .max)
    let diary = Diary()
    let sleepers = sleepers(50, diary)
    var model: [Int: Int64] = [:]
    var now: Int64 = 0
    for _ in 0..<1000 {
      let number = random.number(0..<50)
      let time = now + Int64(random.number(0..<100))
      switch random.number(0..<10) {
      case 0...3:
        table.arm(sleepers[number], at: time)
        model[number] = time
      case 4...5:
        table.armEarlier(sleepers[number], at: time)
        model[number] = min(model[number] ?? .max, time)
      case 6:
        table.cancel(sleepers[number])
        model[number] = nil
      default:
        now += Int64(random.number(0..<20))
        diary.numbers = []
        table.advance(to: now)
        let due = model.filter { $0.value <= now }
        #expect(Set(diary.numbers) == Set(due.keys) && diary.numbers.count == due.count)
        let times = diary.numbers.map { due[$0] ?? .max }
        #expect(times == times.sorted())
        for number in due.keys { model[number] = nil }
      }
      #expect(table.next == model.values.min() && table.count == model.count)
      #expect(table.time(of: sleepers[number]) == model[number])
    }
  }

  // MARK: In a broker

  @Test func theBrokerCallsWhoIsDue() throws {
    let broker = try TestBroker()
    _ = broker.rest(milliseconds: 10_000)
    #expect(broker.broker.nextDue == nil)
    let sleepers = sleepers(10_000)
    let start = broker.broker.time + 10_000
    for (index, sleeper) in sleepers.enumerated() {
      broker.broker.deadlines.arm(sleeper, at: start + Int64(index % 100))
    }
    #expect(broker.broker.nextDue == start)
    // A turn for each of the hundred moments, and none besides.
    #expect(broker.rest(milliseconds: 20_000) == 100)
    for (index, sleeper) in sleepers.enumerated() {
      #expect(sleeper.calls == [start + Int64(index % 100)])
    }
    #expect(broker.broker.nextDue == nil)
  }

  /// A date is told by the clock that does not jump.
  @Test(arguments: [-3_600_000, 3_600_000] as [Int64])
  func whoWaitsForADateIsCalledThoughTheClockIsSet(step: Int64) throws {
    let broker = try TestBroker()
    _ = broker.rest(milliseconds: 10_000)
    broker.turn()
    let core = broker.broker
    let begin = core.time
    let date = core.now + 60_000
    let sleeper = Sleeper()
    sleeper.next = { [unowned core] _ in core.now < date ? core.dates.time(of: date) : nil }
    core.deadlines.arm(sleeper, at: core.dates.time(of: date))
    broker.setClock(by: step)
    _ = broker.rest(milliseconds: 70_000)
    let end = try #require(sleeper.calls.last)
    #expect(sleeper.calls.count <= 4 && core.nextDue == nil)
    #expect(end - begin >= 59_000 && end - begin <= 61_000)
  }
}
