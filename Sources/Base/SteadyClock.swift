/// Dates for what is due at a date, such as the end of a message's life, which has to hold over a restart:
/// the wall clock without its jumps. It begins with the wall clock, goes on as the monotonic clock does,
/// and where somebody has set the wall clock it follows by one part in a hundred of the time that passes.
///
/// So it never goes back and never stands still. An hour that was set ahead does not end at once all that
/// lives for an hour, nor does one that was set back keep it: what lives for a minute is off by 0.6 seconds
/// at most, whatever becomes of the wall clock meanwhile.
///
/// Whoever compares a date of a file with the present uses this, and nobody else converts between the
/// two clocks.
public struct SteadyClock: Sendable {
  /// What its dates are ahead of the monotonic clock, in milliseconds.
  private var lead: Int64
  /// The wall clock was followed for what has passed until then, in monotonic milliseconds.
  private var followedUntil: Int64

  /// It follows by one millisecond in so many.
  public static let share: Int64 = 100

  public init(at moment: Moment) {
    lead = moment.wall - moment.monotonic
    followedUntil = moment.monotonic
  }

  /// Time has passed.
  public mutating func follow(_ moment: Moment) {
    let allowance = (moment.monotonic - followedUntil) / Self.share
    guard allowance > 0 else { return }
    followedUntil += allowance * Self.share
    let difference = moment.wall - moment.monotonic - lead
    lead += max(-allowance, min(difference, allowance))
  }

  /// The date at a monotonic time, in milliseconds since 1970.
  public func date(at time: Int64) -> Int64 { time + lead }

  /// When a date comes, in monotonic milliseconds, as far as can be told now; `.max` if it never does.
  /// While the wall clock is being followed it is up to a hundredth of what is left off: who finds that
  /// the date has not come asks again.
  public func time(of date: Int64) -> Int64 {
    let (time, overflow) = date.subtractingReportingOverflow(lead)
    return overflow ? .max : time
  }
}
