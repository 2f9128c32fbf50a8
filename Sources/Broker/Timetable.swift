import Base

/// Something of the broker that has work when a time has come, such as a queue whose messages expire. It
/// has one deadline at most, which is the earliest of all that it has to do.
package protocol Timed: AnyObject {
  /// The timetable alone uses it.
  var timetablePlace: TimetablePlace { get set }

  /// Its deadline has come, or passed a while ago. It has none now. Does what is due at `time`, and takes
  /// about a step off `steps` for each few hundred nanoseconds that it spends, until none is left.
  ///
  /// Returns when it is to be called next, in monotonic milliseconds, whatever it was armed for in between;
  /// nil for never. What is not behind `time` says that more is due: it is called again when those have
  /// been who have waited longer, in this turn or in the next, which then comes without waiting.
  func becameDue(at time: Int64, _ steps: inout Int) -> Int64?
}

/// Where something stands in the timetable.
package struct TimetablePlace: BitwiseCopyable {
  fileprivate var index: Int32 = -1

  package init() {}

  /// It has a deadline.
  package var isArmed: Bool { index >= 0 }
}

/// Who of the broker is called when, though nobody asks for anything. The loop's wait ends when the first
/// is due (`Broker.nextDue`); at the end of each turn those are called whose time has come, as far as the
/// turn's steps and time reach.
///
/// Times are monotonic milliseconds, as `Broker.time`. A date has its time from `Broker.dates`.
package final class Timetable {
  private var deadlines = Deadlines()
  /// By their places; nil where a place is free.
  private var owners: [(any Timed)?] = []
  private var freePlaces: [Int32] = []
  private let stepsPerTurn: Int
  /// Steps of one before it is the next one's turn.
  private static let stepsPerSlice = 512
  /// See `Broker.isTurnLong`.
  var isTurnLong: () -> Bool = { false }

  init(stepsPerTurn: Int) {
    self.stepsPerTurn = stepsPerTurn
  }

  /// How many have a deadline.
  package var count: Int { deadlines.count }

  /// The earliest deadline; nil when there is none.
  package var next: Int64? { deadlines.next }

  /// Somebody's time has come.
  package func hasDue(at time: Int64) -> Bool {
    guard let next = deadlines.next else { return false }
    return next <= time
  }

  /// When it is due; nil if it has no deadline.
  package func time(of owner: any Timed) -> Int64? {
    owner.timetablePlace.isArmed ? deadlines.time(of: Int(owner.timetablePlace.index)) : nil
  }

  /// It is due at this time, and at no other. It is kept until then, or until `cancel`.
  package func arm(_ owner: any Timed, at time: Int64) {
    if !owner.timetablePlace.isArmed { owner.timetablePlace.index = takePlace(for: owner) }
    deadlines.arm(Int(owner.timetablePlace.index), at: time)
  }

  /// It is due at this time, or before if it was to be called earlier anyhow. That is for what changes often:
  /// what was postponed is found out when the old time comes, and costs nothing until then.
  package func armEarlier(_ owner: any Timed, at time: Int64) {
    if let known = self.time(of: owner), known <= time { return }
    arm(owner, at: time)
  }

  /// It has no deadline any more.
  package func cancel(_ owner: any Timed) {
    guard owner.timetablePlace.isArmed else { return }
    deadlines.cancel(Int(owner.timetablePlace.index))
    leavePlace(of: owner)
  }

  /// Calls those whose time has come, who has waited longest first, as far as the turn's steps and time
  /// reach: one at least.
  func advance(to time: Int64) {
    var stepsLeft = stepsPerTurn
    while stepsLeft > 0, let place = deadlines.takeDue(at: time) {
      guard let owner = owners[place] else {
        invariantFailed("a deadline is due at a place that is free")
      }
      leavePlace(of: owner)
      let given = min(stepsLeft, Self.stepsPerSlice)
      var steps = given
      if let next = owner.becameDue(at: time, &steps) {
        arm(owner, at: max(next, time))
      } else {
        cancel(owner)
      }
      // Every call costs something, so that this ends.
      stepsLeft -= max(1, given - steps)
      if isTurnLong() { return }
    }
  }

  private func takePlace(for owner: any Timed) -> Int32 {
    if let place = freePlaces.popLast() {
      owners[Int(place)] = owner
      return place
    }
    owners.append(owner)
    return Int32(owners.count - 1)
  }

  private func leavePlace(of owner: any Timed) {
    let place = owner.timetablePlace.index
    owner.timetablePlace.index = -1
    owners[Int(place)] = nil
    freePlaces.append(place)
  }
}
