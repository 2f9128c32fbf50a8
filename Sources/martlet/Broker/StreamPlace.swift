import JSON

/// A place in each partition of a stream, as `martlet stream reset --to` takes it.
enum StreamPlace: Equatable, Sendable {
  /// `first`, `last`, `next` or an interval such as `90m`: as the broker reads it.
  case word(String)
  /// Below zero so many records before the end.
  case offset(Int64)
  /// Seconds since 1970.
  case time(UInt64)

  /// Nil if the word names no place.
  init?(_ word: String) {
    let digits = word.utf8.first == UInt8(ascii: "-") ? word.dropFirst() : word[...]
    let isNumber = !digits.isEmpty && digits.utf8.allSatisfy(Self.isDigit)
    if isNumber, let offset = Int64(word) {
      self = .offset(offset)
    } else if ["first", "last", "next"].contains(word) || Self.isInterval(word) {
      self = .word(word)
    } else if let seconds = DateWord.seconds(word) {
      self = .time(seconds)
    } else {
      return nil
    }
  }

  private static func isInterval(_ word: String) -> Bool {
    let count = word.utf8.dropLast()
    return word.last.map { "YMDhms".contains($0) } == true && !count.isEmpty
      && count.allSatisfy(isDigit)
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }

  /// Writes what `stream-reset` asks for.
  func write(into json: inout JSONWriter) {
    switch self {
    case .word(let word): json.field("to", word)
    case .offset(let offset): json.field("to", offset)
    case .time(let seconds): json.field("time", seconds)
    }
  }
}

extension WordKind where Value == StreamPlace {
  static let streamPlace = WordKind(
    parse: { StreamPlace($0) },
    expected: "a place; write first, last, next, an offset, -10, 90m or 2026-11-28T12:00:00Z")
}
