/// Counts durations in nanoseconds by size: exact below 128 ns, above it 128 steps to every
/// doubling, so that what comes out is less than 1 % above what went in.
struct LatencyHistogram: Sendable, Equatable {
  private static let stepBits = 7
  private static let steps = 1 << stepBits
  /// Longer durations, beyond half an hour, count as this.
  private static let longest: Int64 = 1 << 41 - 1
  private static let slots = (41 - stepBits + 1) * steps

  private var counts = [Int](repeating: 0, count: slots)
  private(set) var count = 0
  private(set) var min: Int64 = .max
  private(set) var max: Int64 = 0
  private var sum: Int64 = 0

  /// Adds `times` durations; one below 0 counts as 0.
  mutating func record(_ nanoseconds: Int64, times: Int = 1) {
    let value = Swift.max(0, nanoseconds)
    counts[Self.slot(Swift.min(value, Self.longest))] += times
    count += times
    sum += value * Int64(times)
    if value < min { min = value }
    if value > max { max = value }
  }

  mutating func removeAll() {
    self = LatencyHistogram()
  }

  mutating func add(_ other: LatencyHistogram) {
    for index in counts.indices { counts[index] += other.counts[index] }
    count += other.count
    sum += other.sum
    min = Swift.min(min, other.min)
    max = Swift.max(max, other.max)
  }

  var mean: Double { count == 0 ? 0 : Double(sum) / Double(count) }

  /// The duration that the given share of all durations does not exceed; 0 if there are none.
  func percentile(_ percent: Double) -> Int64 {
    guard count > 0 else { return 0 }
    let rank = Swift.max(1, Int((percent / 100 * Double(count)).rounded(.up)))
    var seen = 0
    for (slot, number) in counts.enumerated() where number > 0 {
      seen += number
      if seen >= rank { return Swift.min(Self.upperBound(of: slot), max) }
    }
    return max
  }

  /// Row r > 0 holds the values whose highest bit is bit `stepBits` + r - 1.
  private static func slot(_ value: Int64) -> Int {
    let row = Swift.max(0, 64 - value.leadingZeroBitCount - stepBits)
    return row == 0
      ? Int(value) : row << stepBits + Int(value >> (row - 1)) - steps
  }

  /// The largest value that falls into `slot`.
  private static func upperBound(of slot: Int) -> Int64 {
    let row = slot >> stepBits
    if row == 0 { return Int64(slot) }
    let base = Int64(slot & (steps - 1) + steps)
    return (base + 1) << (row - 1) - 1
  }
}
