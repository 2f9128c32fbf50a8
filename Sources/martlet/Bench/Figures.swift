/// Measured quantities as people read them, and columns of them.
enum Figures {
  /// `text` at the end of a column of `width`.
  static func right(_ text: String, _ width: Int, fill: Character = " ") -> String {
    String(repeating: fill, count: max(0, width - text.count)) + text
  }

  /// `text` at the beginning of a column of `width`.
  static func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }

  /// A number with so many decimals.
  static func fixed(_ number: Double, _ decimals: Int) -> String {
    guard number.isFinite, number.magnitude < 1e15 else { return "?" }
    var scale = 1.0
    for _ in 0..<decimals { scale *= 10 }
    let scaled = Int((number * scale).rounded())
    let padded = right(String(scaled.magnitude), decimals + 1, fill: "0")
    let sign = scaled < 0 ? "-" : ""
    return decimals == 0
      ? sign + padded : sign + padded.dropLast(decimals) + "." + padded.suffix(decimals)
  }

  static func duration(nanoseconds: Int64) -> String {
    let value = Double(nanoseconds)
    switch value {
    case ..<100_000: return fixed(value / 1000, 1) + " us"
    case ..<1_000_000: return fixed(value / 1000, 0) + " us"
    case ..<100_000_000: return fixed(value / 1_000_000, 2) + " ms"
    case ..<1_000_000_000: return fixed(value / 1_000_000, 0) + " ms"
    default: return fixed(value / 1_000_000_000, 2) + " s"
    }
  }

  static func bytes(_ count: Int) -> String {
    let value = Double(count)
    switch value {
    case ..<1024: return "\(count) B"
    case ..<1_048_576: return fixed(value / 1024, 1) + " KiB"
    case ..<1_073_741_824: return fixed(value / 1_048_576, 1) + " MiB"
    default: return fixed(value / 1_073_741_824, 2) + " GiB"
    }
  }
}
