/// Counts what is not told in full, by kind and by who caused it, in windows of time. It knows no
/// clock, and its size is bounded.
struct LogRepetition {
  static let windowMilliseconds: Int64 = 10_000
  /// Of so many addresses the shares are told; the others are counted together.
  static let addressesMax = 8

  private struct Window {
    let end: Int64
    /// How many more are told in full.
    var left: Int
    var untold = 0
    var addresses: [String: Int] = [:]
  }

  struct Summary: Equatable {
    let level: Log.Level
    let text: String
  }

  /// The open window of each kind.
  private var windows = [Window?](repeating: nil, count: LogKind.allCases.count)

  /// When the first window ends that has something to tell; nil if none has.
  private(set) var due: Int64?

  /// Whether this one is to be told in full. `name` says who caused it: `10.0.0.7:49152 -> …`.
  mutating func admits(_ kind: LogKind, of name: String, now: Int64) -> Bool {
    var window =
      windows[kind.rawValue] ?? Window(end: now + Self.windowMilliseconds, left: kind.linesMax)
    // A window in which all was told has nothing more to say, and nobody may have closed it.
    if window.untold == 0, now >= window.end {
      window = Window(end: now + Self.windowMilliseconds, left: kind.linesMax)
    }
    defer { windows[kind.rawValue] = window }
    if window.left > 0 {
      window.left -= 1
      return true
    }
    window.untold += 1
    due = min(due ?? .max, window.end)
    let address = Self.address(name)
    if window.addresses[address] != nil || window.addresses.count < Self.addressesMax {
      window.addresses[address, default: 0] += 1
    }
    return false
  }

  /// What is to be told by `now`. A kind that was summarised has one line in its next window, so that
  /// a flood that goes on costs two lines for each.
  mutating func summaries(now: Int64) -> [Summary] {
    var summaries: [Summary] = []
    due = nil
    for kind in LogKind.allCases {
      guard let window = windows[kind.rawValue], window.untold > 0 else { continue }
      if window.end > now {
        due = min(due ?? .max, window.end)
        continue
      }
      summaries.append(Summary(level: kind.level, text: Self.text(kind, window)))
      windows[kind.rawValue] = Window(end: window.end + Self.windowMilliseconds, left: 1)
    }
    return summaries
  }

  private static func text(_ kind: LogKind, _ window: Window) -> String {
    let shares = window.addresses.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
    var words = shares.filter { !$0.key.isEmpty }.map { "\(grouped($0.value)) of \($0.key)" }
    let others = window.untold - shares.reduce(0) { $0 + $1.value }
    if others > 0 { words.append("\(grouped(others)) of others") }
    return "… and \(grouped(window.untold)) more in the last \(windowMilliseconds / 1000) s:"
      + " \(kind.summary)" + (words.isEmpty ? "" : ": \(words.joined(separator: ", "))")
  }

  /// The host in `10.0.0.7:49152 -> 10.0.0.1:5672`, or in the first half of it.
  private static func address(_ name: String) -> String {
    let peer = name.firstRange(of: " -> ").map { name[..<$0.lowerBound] } ?? name[...]
    return String(peer.lastIndex(of: ":").map { peer[..<$0] } ?? peer)
  }

  /// `4,312`.
  private static func grouped(_ number: Int) -> String {
    let digits = Array(String(number))
    return digits.indices.reduce(into: "") { result, index in
      if index > 0, (digits.count - index) % 3 == 0 { result += "," }
      result.append(digits[index])
    }
  }
}
