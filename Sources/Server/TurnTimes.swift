/// How long turns of the loop took, without the waits between them: counts by duration, four to a
/// doubling, so that what comes out is at most a quarter above what went in.
package struct TurnTimes {
  /// Durations below this count as it, longer ones than the last bucket's as that: 1 µs to 70 minutes.
  private static let shortest: Int64 = 1 << 10
  private static let doublings = 32
  private static let steps = 4

  private var counts = [Int](repeating: 0, count: doublings * steps)
  package private(set) var count = 0
  /// Nanoseconds.
  package private(set) var longest: Int64 = 0
  /// The most nanoseconds for which a turn had the processor: what it did itself, whatever else the machine
  /// did meanwhile.
  package private(set) var longestOnProcessor: Int64 = 0

  mutating func record(_ nanoseconds: Int64) {
    count += 1
    longest = max(longest, nanoseconds)
    counts[Self.bucket(nanoseconds)] += 1
  }

  mutating func noteLongest(onProcessor nanoseconds: Int64) {
    longestOnProcessor = max(longestOnProcessor, nanoseconds)
  }

  /// Nanoseconds that the given share of all turns did not exceed; 0 before the first.
  package func percentile(_ percent: Double) -> Int64 {
    let rank = max(1, Int((percent / 100 * Double(count)).rounded(.up)))
    var seen = 0
    for (bucket, number) in counts.enumerated() {
      seen += number
      if seen >= rank { return min(Self.upperBound(of: bucket), longest) }
    }
    return longest
  }

  /// The turns of each duration that came up, with the nanoseconds that they did not exceed.
  package var buckets: [(upTo: Int64, count: Int)] {
    counts.enumerated().filter { $1 > 0 }.map { (Self.upperBound(of: $0), $1) }
  }

  private static func bucket(_ nanoseconds: Int64) -> Int {
    let value = max(nanoseconds, shortest)
    let exponent = 63 - value.leadingZeroBitCount
    let step = Int(value >> (exponent - 2)) & (steps - 1)
    return min((exponent - 10) * steps + step, doublings * steps - 1)
  }

  private static func upperBound(of bucket: Int) -> Int64 {
    let (exponent, step) = (bucket / steps + 10, bucket % steps)
    return Int64(steps + step + 1) << (exponent - 2) - 1
  }
}

extension TurnTimes: CustomStringConvertible {
  /// As the log has them.
  package var description: String {
    "turns=\(count) turn-p50=\(Self.words(percentile(50))) turn-p99=\(Self.words(percentile(99)))"
      + " longest-turn=\(Self.words(longest))"
      + " longest-turn-on-processor=\(Self.words(longestOnProcessor))"
  }

  /// Milliseconds with three decimals.
  static func words(_ nanoseconds: Int64) -> String {
    let thousandths = String((nanoseconds + 500) / 1000 % 1000)
    let zeros = String(repeating: "0", count: 3 - thousandths.count)
    return "\((nanoseconds + 500) / 1_000_000).\(zeros)\(thousandths)ms"
  }
}

/// What a turn did: what a line about a slow one can say of it.
struct TurnWork {
  /// Batches that clients sent, and their bytes.
  var reads = 0
  var readBytes = 0
  /// What the journal's threads have done was taken.
  var hasJournalNews = false
  /// Heartbeats, deadlines and the log's tending had their time.
  var isSweep = false
  /// Work that began in an earlier turn went on.
  var hasChores = false
  /// A checkpoint, or a round of moving messages, was begun.
  var hasCheckpoint = false
  var hasRound = false
}

extension TurnWork: CustomStringConvertible {
  var description: String {
    var parts: [String] = []
    if reads > 0 { parts.append("\(readBytes) bytes from clients in \(reads) batches") }
    if hasChores { parts.append("work left from before") }
    if hasJournalNews { parts.append("news of the journal") }
    if hasCheckpoint { parts.append("a checkpoint") }
    if hasRound { parts.append("a round of moving messages") }
    if isSweep { parts.append("a sweep") }
    return parts.isEmpty ? "nothing to be named" : parts.joined(separator: ", ")
  }
}

/// Turns that took too long, told once in a while.
struct SlowTurns {
  /// No turn is to take longer.
  static let limit: Int64 = 10_000_000
  static let logMilliseconds: Int64 = 5000

  private var count = 0
  private var longest: Int64 = 0
  private var onProcessor: Int64 = 0
  private var work = TurnWork()
  private var nextLine: Int64 = 0

  mutating func note(_ nanoseconds: Int64, _ onProcessor: Int64, _ work: TurnWork) {
    count += 1
    guard nanoseconds > longest else { return }
    longest = nanoseconds
    self.onProcessor = onProcessor
    self.work = work
  }

  /// A line about those that were not told yet, at most one in a while.
  mutating func takeLine(now: Int64) -> String? {
    guard count > 0, now >= nextLine else { return nil }
    defer {
      count = 0
      longest = 0
      nextLine = now + Self.logMilliseconds
    }
    let turns = count == 1 ? "a turn of the loop" : "\(count) turns of the loop, the longest"
    return
      "\(turns) took \(TurnTimes.words(longest)), \(TurnTimes.words(onProcessor)) of them on the"
      + " processor: \(work)"
  }
}
