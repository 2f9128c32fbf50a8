import Arbitrary
import Broker
import Server

/// Something in the broker that is to be called by itself, as a queue is whose messages expire. It notes
/// when it is called too early.
final class Appointment: Timed {
  var timetablePlace = TimetablePlace()
  /// When it is to be called next; nil for never.
  private(set) var due: Int64?
  private(set) var isCalledEarly = false
  private var random: SeededGenerator
  private let coverage: CoverageCounter

  init(_ random: SeededGenerator, _ coverage: CoverageCounter) {
    self.random = random
    self.coverage = coverage
  }

  /// It is to be called at another time, or not at all.
  func change(at time: Int64, in table: Timetable) {
    due = random.oneIn(5) ? nil : time + Int64(random.number(0...20_000))
    if let due { table.arm(self, at: due) } else { table.cancel(self) }
  }

  func becameDue(at time: Int64, _ steps: inout Int) -> Int64? {
    coverage.note(.deadlines)
    if due.map({ $0 > time }) ?? true { isCalledEarly = true }
    steps -= random.choose([1, 1, 100, 3000])
    // Some have more to do than one slice.
    if random.oneIn(4) { return time }
    due = random.flag() ? nil : time + Int64(random.number(0...20_000))
    return due
  }
}

/// What is due by itself is done in time.
extension Life {
  static let appointmentCount = 4

  func makeAppointments() -> [Appointment] {
    (0..<Self.appointmentCount).map { _ in
      Appointment(SeededGenerator(seed: world.random.next()), world.coverage)
    }
  }

  func changeAppointments(at time: Int64) {
    for appointment in appointments where world.random.oneIn(30) {
      appointment.change(at: time, in: broker.deadlines)
    }
  }

  /// A turn has ended. Who is due was called, or the next turn comes without waiting; the loop sleeps no
  /// longer than until the next is due.
  func expectPunctuality(at time: Int64) throws(Interruption) {
    for appointment in appointments {
      guard !appointment.isCalledEarly else {
        throw .broken(BrokenPromise("nobody is called before it is due", "\(time)"))
      }
      guard let due = appointment.due else { continue }
      guard let wait = loop.waitMilliseconds, wait == 0 || time + wait <= max(due, time + 1) else {
        throw .broken(
          BrokenPromise(
            "the loop wakes when something is due",
            "it waits for \(loop.waitMilliseconds.map(String.init) ?? "ever"), and something is due in"
              + " \(due - time) ms"))
      }
      guard due > time || wait == 0 else {
        throw .broken(BrokenPromise("what is due is done", "at \(time), since \(due)"))
      }
    }
  }
}
