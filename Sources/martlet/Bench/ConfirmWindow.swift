/// The messages of one channel that the broker has neither confirmed nor refused, with the time at
/// which each was published. Tags count from 1, as `confirm.select` begins them.
struct ConfirmWindow {
  let size: Int
  /// Rings by tag: when it was published; whether it is settled although an older one is not.
  private var stamps: [Int64]
  private var isSettled: [Bool]
  private let mask: Int
  /// The oldest tag that is not settled, and the tag of the next message.
  private var first = 1
  private var next = 1
  private(set) var outstanding = 0

  init(size: Int) {
    self.size = size
    var capacity = 1
    while capacity < size { capacity *= 2 }
    stamps = Array(repeating: 0, count: capacity)
    isSettled = Array(repeating: false, count: capacity)
    mask = capacity - 1
  }

  /// How many messages may be published now. Settled messages take room as long as an older one is
  /// outstanding.
  var available: Int { size - (next - first) }

  /// Notes `count` messages, the first at `stamp`, each after it `step` nanoseconds later.
  mutating func publish(count: Int, stamp: Int64, step: Int64) {
    var time = stamp
    for tag in next..<next + count {
      stamps[tag & mask] = time
      time += step
    }
    next += count
    outstanding += count
  }

  /// Settles one tag, or all up to it, and records how long they took. Returns how many that were;
  /// 0 for a tag that is not outstanding.
  mutating func settle(
    upTo tag: UInt64, isMultiple: Bool, now: Int64, into histogram: inout LatencyHistogram
  ) -> Int {
    // Tag 0 with multiple is everything.
    let last = isMultiple && tag == 0 ? next - 1 : Int(clamping: tag)
    guard last >= first, last < next else { return 0 }
    var count = 0
    if isMultiple {
      count = settleAll(upTo: last, now, &histogram)
    } else if !isSettled[last & mask] {
      isSettled[last & mask] = true
      histogram.record(now - stamps[last & mask])
      count = 1
    }
    while first < next, isSettled[first & mask] {
      isSettled[first & mask] = false
      first += 1
    }
    outstanding -= count
    return count
  }

  /// Neighbours that were published at the same time are recorded together.
  private mutating func settleAll(
    upTo last: Int, _ now: Int64, _ histogram: inout LatencyHistogram
  ) -> Int {
    var count = 0
    var stamp: Int64 = 0
    var times = 0
    for tag in first...last {
      if isSettled[tag & mask] {
        isSettled[tag & mask] = false
        continue
      }
      if stamps[tag & mask] != stamp {
        if times > 0 { histogram.record(now - stamp, times: times) }
        stamp = stamps[tag & mask]
        times = 0
      }
      times += 1
      count += 1
    }
    if times > 0 { histogram.record(now - stamp, times: times) }
    first = last + 1
    return count
  }
}
