import Base
import Server

/// How one word becomes a value, and what would have been right when it does not.
struct WordKind<Value: Sendable>: Sendable {
  /// Nil if the word is no such value.
  let parse: @Sendable (String) -> Value?
  /// What would be right, such as `a whole number from 1 to 65535`.
  let expected: String

  func read(_ word: String, of title: String) throws(UsageError) -> Value {
    guard let value = parse(word) else {
      throw UsageError(#"\#(title): "\#(word)" is not \#(expected)"#)
    }
    return value
  }
}

extension WordKind where Value == String {
  static let text = WordKind(parse: { $0 }, expected: "text")
}

extension WordKind where Value == Name {
  /// A name or a routing key.
  static let name = WordKind(
    parse: { $0.utf8.count <= Name.sizeMax ? Name($0) : nil },
    expected: "short enough: names have at most \(Name.sizeMax) bytes")
}

extension WordKind where Value == Bool {
  static let flag = WordKind(parse: { Quantity.flag($0) }, expected: "true or false")
}

extension WordKind where Value == Int {
  static func integer(_ range: ClosedRange<Int>) -> WordKind {
    WordKind(
      parse: { Int($0).flatMap { range.contains($0) ? $0 : nil } },
      expected: range.upperBound == .max
        ? "a whole number of at least \(range.lowerBound)"
        : "a whole number from \(range.lowerBound) to \(range.upperBound)")
  }

  /// Milliseconds.
  static let duration = WordKind(
    parse: { Quantity.milliseconds($0) },
    expected: "a duration; write for example 500ms, 5s, 1m or 1h")

  /// Milliseconds, which need no unit here: AMQP counts a message's life in them.
  static let lifetime = WordKind(
    parse: { Int($0).flatMap { $0 >= 0 ? $0 : nil } ?? Quantity.milliseconds($0) },
    expected: "a duration; write for example 500ms, 5s, 1m, or 5000 for milliseconds")

  /// Bytes.
  static let size = WordKind(
    parse: { Quantity.bytes($0) },
    expected: "a size; write for example 65536, 128KiB or 2GiB")
}

extension WordKind where Value: RawRepresentable<String> & CaseIterable {
  /// One of the cases by its name.
  static var choice: WordKind {
    let words = Value.allCases.map(\.rawValue)
    let last = words.last ?? ""
    return WordKind(
      parse: { Value(rawValue: $0) },
      expected: words.dropLast().joined(separator: ", ") + " or " + last)
  }
}
