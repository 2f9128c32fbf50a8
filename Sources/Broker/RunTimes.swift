import Base

/// When messages of a lane expire that are on disk: by their blocks, of which each has its next time. A block is
/// opened where it lies when that has come.
struct RunTimes {
  /// Dates, by places.
  private var deadlines = Deadlines()
  /// By places, the last sequences of the blocks' runs, which they are found by.
  private var lasts: [UInt64] = []
  private var free: [Int32] = []
  /// The last sequences of runs whose time has come and whose blocks are being read, in the order of their
  /// times; some may be gone.
  var awaited: [UInt64] = []

  /// When a message of some block may be over; nil for never.
  var next: Int64? { deadlines.next }

  var byteCount: Int { lasts.count * 28 }

  /// The last sequence of the run whose time has come first; nil if there is none. It is armed no more.
  mutating func takeDue(at now: Int64) -> UInt64? {
    deadlines.takeDue(at: now).map { lasts[$0] }
  }

  /// The run is looked at, at this date and at no other. Its place changes when it had none.
  mutating func arm(_ run: inout LaneRun, at date: Int64) {
    if run.place < 0 {
      run.place = free.popLast() ?? Int32(lasts.count)
      if Int(run.place) == lasts.count { lasts.append(0) }
      lasts[Int(run.place)] = run.last
    }
    deadlines.arm(Int(run.place), at: date)
  }

  /// The run is gone, or opened.
  mutating func forget(_ run: LaneRun) {
    guard run.place >= 0 else { return }
    deadlines.cancel(Int(run.place))
    free.append(run.place)
  }
}
