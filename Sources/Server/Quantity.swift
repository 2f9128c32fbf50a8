/// Sizes, durations and flags as people write them.
public enum Quantity {
  /// The units of sizes, the largest first.
  private static let sizes: [(unit: String, bytes: Int)] = [
    ("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10),
    ("B", 1),
  ]

  /// The units of durations, the largest first.
  private static let durations: [(unit: String, milliseconds: Int)] = [
    ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1),
  ]

  /// The units of short durations, the largest first.
  private static let intervals: [(unit: String, microseconds: Int)] = [
    ("s", 1_000_000), ("ms", 1000), ("us", 1),
  ]

  /// Bytes in `128KiB`, `2GiB`, `512B` or `512`; nil if it is not a size.
  public static func bytes(_ word: String) -> Int? {
    scaled(word) { unit in
      unit.isEmpty ? 1 : sizes.first { $0.unit.lowercased() == unit.lowercased() }?.bytes
    }
  }

  /// Milliseconds in `500ms`, `10s`, `5m` or `1h`; nil if it is not a duration. A bare number has no
  /// meaning here, since people disagree about what it would be; only 0 needs no unit.
  public static func milliseconds(_ word: String) -> Int? {
    word == "0" ? 0 : scaled(word) { unit in durations.first { $0.unit == unit }?.milliseconds }
  }

  /// Microseconds in `50us`, `1ms` or `2s`; nil if it is not a short duration. Only 0 needs no unit.
  public static func microseconds(_ word: String) -> Int? {
    word == "0" ? 0 : scaled(word) { unit in intervals.first { $0.unit == unit }?.microseconds }
  }

  /// What `true`, `yes`, `on` and their opposites mean; nil for any other word.
  public static func flag(_ word: String) -> Bool? {
    switch word.lowercased() {
    case "true", "yes", "on", "1": true
    case "false", "no", "off", "0": false
    default: nil
    }
  }

  /// `bytes` with the largest unit that leaves a whole number.
  public static func words(bytes: Int) -> String {
    let best = sizes.first { bytes >= $0.bytes && bytes % $0.bytes == 0 }
    return best.map { "\(bytes / $0.bytes)\($0.unit)" } ?? "\(bytes)B"
  }

  /// `milliseconds` with the largest unit that leaves a whole number.
  public static func words(milliseconds: Int) -> String {
    let best = durations.first {
      milliseconds >= $0.milliseconds && milliseconds % $0.milliseconds == 0
    }
    return best.map { "\(milliseconds / $0.milliseconds)\($0.unit)" } ?? "\(milliseconds)s"
  }

  /// `microseconds` with the largest unit that leaves a whole number.
  public static func words(microseconds: Int) -> String {
    let best = intervals.first {
      microseconds >= $0.microseconds && microseconds % $0.microseconds == 0
    }
    return best.map { "\(microseconds / $0.microseconds)\($0.unit)" } ?? "\(microseconds)us"
  }

  private static func scaled(_ word: String, _ scale: (String) -> Int?) -> Int? {
    let digits = word.prefix { $0.isASCII && $0.isNumber }
    guard let number = Int(digits), let unit = scale(String(word.dropFirst(digits.count))) else {
      return nil
    }
    let (product, overflow) = number.multipliedReportingOverflow(by: unit)
    return overflow ? nil : product
  }
}
