/// Numbers as people read them.
enum HumanWords {
  /// `1 message`, `1,234 messages`.
  static func count(_ number: Int, _ noun: String) -> String {
    "\(grouped(number)) \(noun)\(number == 1 ? "" : "s")"
  }

  /// `1,234,567`.
  static func grouped(_ number: Int) -> String {
    var result = ""
    let digits = String(number.magnitude)
    for (index, digit) in digits.enumerated() {
      if index > 0, (digits.count - index) % 3 == 0 { result += "," }
      result.append(digit)
    }
    return number < 0 ? "-" + result : result
  }

  /// `0.12 s`, `3.4 s`, `85 s`.
  static func seconds(_ duration: Duration) -> String {
    let milliseconds = Int(duration / .milliseconds(1))
    if milliseconds >= 10_000 { return "\(grouped(milliseconds / 1000)) s" }
    let digits = milliseconds >= 1000 ? 1 : 2
    let unit = digits == 1 ? 100 : 10
    let scaled = milliseconds / unit
    let fraction = String(scaled % (1000 / unit))
    let padding = String(repeating: "0", count: digits - fraction.count)
    return "\(scaled * unit / 1000).\(padding)\(fraction) s"
  }

  /// `12,300/s`; nil when the time is too short to say.
  static func rate(_ count: Int, in duration: Duration) -> String? {
    let seconds = duration / .seconds(1)
    guard seconds >= 0.01 else { return nil }
    return "\(grouped(Int(Double(count) / seconds)))/s"
  }
}
