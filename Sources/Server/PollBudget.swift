/// How long the loop looks for events again and again before it waits for them. To be woken costs a
/// thread more than the work of a message, on a virtual machine many times more; to look costs
/// processor time, and gains nothing when no event comes meanwhile.
///
/// The longest look is also what a wake-up is worth. From the last waits it follows what looks of
/// each length would have cost: all the time until the event where it came within the look, the
/// whole look and a wake-up where it did not. The loop looks for as long as was cheapest; where that
/// saves next to nothing, since events come late or seldom, it does not look at all.
///
/// What it looks in vain is at most a quarter of the time between its turns: that is paid out of a
/// credit. Who gave way to others while it looked, and got the processor back late, has taken long,
/// and does not look for as long as that takes to be earned again: where processors are short, a
/// thread that waits is served sooner than one that is always ready.
///
/// Where events mostly are there at once it does not look either: nobody is put to sleep then.
///
/// All times are nanoseconds; it reads no clock.
struct PollBudget {
  /// The longest look; 0 never looks.
  private let longest: Int64
  /// The last waits, by the part of the longest look in which they ended; those that lasted longer
  /// are in the last place. At the end of a round all are halved, so that older ones count less.
  private var counts = [Int](repeating: 0, count: parts + 1)
  /// Those of them that ended at once.
  private var immediate = 0
  /// Waits of this round.
  private var noted = 0
  /// What the last waits make the cheapest look.
  private var cheapest: Int64 = 0
  /// What may be spent in vain; below 0 after looks that took longer than they should.
  private var credit: Int64 = 0
  private(set) var statistics = Statistics()

  struct Statistics {
    /// Looks that took time, those that found nothing, and how long all took.
    var looks = 0
    var looksInVain = 0
    var nanoseconds: Int64 = 0
  }

  /// Looks in vain take one part in so many of the time between turns.
  static let share: Int64 = 4
  /// So many waits make a round, after which it is decided anew.
  static let round = 16
  /// Whoever finds something within this has not slept.
  static let immediately: Int64 = 3_000
  /// Lengths that a look can have.
  private static let parts = 8
  /// The credit and the debt are at most so many of the longest looks: a burst, and a tenth of a
  /// second without any look where the longest takes 50 µs.
  private static let creditMax: Int64 = 4
  private static let debtMax: Int64 = 500

  init(longestNanoseconds: Int64) {
    longest = longestNanoseconds
  }

  /// How long to look before the next wait.
  var nanoseconds: Int64 { max(0, min(cheapest, credit)) }

  /// An event came, or the time was up, so long after the turn's end; of that the loop was looking
  /// for `looked`, and has found it so or not.
  mutating func note(waited: Int64, looked: Int64, hasFound: Bool) {
    guard longest > 0 else { return }
    counts[waited < longest ? Int(waited * Int64(Self.parts) / longest) : Self.parts] += 1
    if waited < Self.immediately { immediate += 1 }
    noted += 1
    if noted == Self.round { endRound() }
    credit += waited / Self.share
    if looked > 0 {
      statistics.looks += 1
      statistics.nanoseconds += looked
      if !hasFound { statistics.looksInVain += 1 }
      if !hasFound || looked > longest { credit -= looked }
    }
    credit = max(-Self.debtMax * longest, min(credit, Self.creditMax * longest))
  }

  private mutating func endRound() {
    let isBusy = 2 * immediate >= counts.reduce(0, +)
    let parts = isBusy ? 0 : cheapestParts()
    cheapest = longest * Int64(parts) / Int64(Self.parts)
    for index in counts.indices { counts[index] /= 2 }
    immediate /= 2
    noted = 0
  }

  /// The look that would have cost least for the last waits, in parts of the longest one; 0 if none
  /// would have saved an eighth of what wake-ups alone cost. A wait
  /// that ended within a part is taken to have ended in its middle, so costs are in half parts.
  private func cheapestParts() -> Int {
    let wakeUp = 2 * Self.parts
    var missed = counts.reduce(0, +)
    var costOfFound = 0
    var (best, leastCost) = (0, missed * wakeUp * 7 / 8)
    for part in 0..<Self.parts {
      missed -= counts[part]
      costOfFound += counts[part] * (2 * part + 1)
      let cost = costOfFound + missed * (2 * (part + 1) + wakeUp)
      if cost < leastCost { (best, leastCost) = (part + 1, cost) }
    }
    return best
  }
}

extension PollBudget.Statistics: CustomStringConvertible {
  /// As the log has them.
  var description: String {
    "looks=\(looks) looks-in-vain=\(looksInVain) looked=\(nanoseconds / 1_000_000)ms"
  }
}
