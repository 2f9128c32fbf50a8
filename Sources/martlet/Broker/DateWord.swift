/// A moment as RFC 3339 writes it, read and written: `2026-11-28T12:00:00Z`, `2026-11-28T13:00:00.5+01:00`.
enum DateWord {
  /// Seconds since 1970, without the fraction; nil if `text` is no such moment, or an earlier one.
  static func seconds(_ text: String) -> UInt64? {
    var rest = Array(text.utf8)[...]
    guard let year = number(&rest, 4), take(&rest, "-"), let month = number(&rest, 2),
      take(&rest, "-"), let day = number(&rest, 2), take(&rest, "Tt "),
      let hour = number(&rest, 2), take(&rest, ":"), let minute = number(&rest, 2),
      take(&rest, ":"), let second = number(&rest, 2),
      (1...12).contains(month), (1...days(month, of: year)).contains(day),
      hour < 24, minute < 60, second <= 60, skipFraction(&rest),
      let offset = offset(&rest), rest.isEmpty
    else { return nil }
    let days = daysBefore(year, month) + day - 1
    return UInt64(exactly: ((days * 24 + hour) * 60 + minute - offset) * 60 + second)
  }

  /// A moment in milliseconds since 1970, as RFC 3339 writes it: `2026-11-28T12:00:00.500Z`.
  static func text(milliseconds: Int) -> String {
    let (days, rest) = milliseconds.quotientAndRemainder(dividingBy: 86_400_000)
    let (year, month, day) = date(days)
    let time = [rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60].map { digits($0, 2) }
    return "\(digits(year, 4))-\(digits(month, 2))-\(digits(day, 2))T"
      + time.joined(separator: ":") + ".\(digits(rest % 1000, 3))Z"
  }

  private static func digits(_ number: Int, _ count: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, count - text.count)) + text
  }

  /// Of so many days since 1970.
  private static func date(_ days: Int) -> (year: Int, month: Int, day: Int) {
    // A guess from above, since no year has fewer days.
    var year = 1970 + days / 365
    while daysBefore(year, 1) > days { year -= 1 }
    var month = 12
    while daysBefore(year, month) > days { month -= 1 }
    return (year, month, days - daysBefore(year, month) + 1)
  }

  /// So many digits.
  private static func number(_ rest: inout ArraySlice<UInt8>, _ count: Int) -> Int? {
    let digits = rest.prefix(count)
    guard digits.count == count, digits.allSatisfy(isDigit) else { return nil }
    rest.removeFirst(count)
    return digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }

  /// One of `letters`.
  private static func take(_ rest: inout ArraySlice<UInt8>, _ letters: String) -> Bool {
    guard let first = rest.first, letters.utf8.contains(first) else { return false }
    rest.removeFirst()
    return true
  }

  private static func skipFraction(_ rest: inout ArraySlice<UInt8>) -> Bool {
    guard take(&rest, ".") else { return true }
    let digits = rest.prefix(while: isDigit)
    rest.removeFirst(digits.count)
    return !digits.isEmpty
  }

  /// Minutes ahead of UTC.
  private static func offset(_ rest: inout ArraySlice<UInt8>) -> Int? {
    if take(&rest, "Zz") { return 0 }
    let isAhead = rest.first == UInt8(ascii: "+")
    guard take(&rest, "+-"), let hours = number(&rest, 2), take(&rest, ":"),
      let minutes = number(&rest, 2), hours < 24, minutes < 60
    else { return nil }
    return (hours * 60 + minutes) * (isAhead ? 1 : -1)
  }

  private static func isLeap(_ year: Int) -> Bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
  }

  private static func days(_ month: Int, of year: Int) -> Int {
    month == 2 && isLeap(year)
      ? 29 : [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
  }

  /// Days from 1970 to the first of the month.
  private static func daysBefore(_ year: Int, _ month: Int) -> Int {
    let past = year - 1
    let inYears = past * 365 + past / 4 - past / 100 + past / 400 - 719_162
    return (1..<month).reduce(inYears) { $0 + days($1, of: year) }
  }
}
