/// How one option is written in words and set. The declarations are generated from
/// `Specs/Tables/options.txt`; flags, environment, file and documentation derive from them.
public struct OptionDeclaration: Sendable {
  public let name: String
  /// What values look like: a type's name, or the choices with `|` between them.
  public let values: String
  public let standard: String
  /// The smallest and the largest value as people write them.
  public let bounds: String?
  public let help: String
  let set: OptionSetter

  /// The environment variable of the option: `MARTLET_FRAME_MAX` for `frame-max`.
  public var variable: String {
    Self.variablePrefix + name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
  }

  public static let variablePrefix = "MARTLET_"

  /// Present or absent, so that it needs no value on the command line.
  public var isFlag: Bool {
    if case .flag = set { true } else { false }
  }

  /// Never shown where the effective configuration is.
  public var isSecret: Bool { name.hasSuffix("password") }

  /// Reads `word` and puts the value in its place in `options`.
  func apply(_ word: String, to options: inout Options) throws(ValueProblem) {
    switch set {
    case .text(let path):
      options[keyPath: path] = word
    case .list(let path):
      options[keyPath: path] = try Self.list(word)
    case .flag(let path):
      guard let value = Quantity.flag(word) else {
        throw ValueProblem(#""\#(word)" is neither true nor false"#)
      }
      options[keyPath: path] = value
    case .integer(let path, let range):
      options[keyPath: path] = try bounded(
        Int(word), word, range, kind: "a whole number", example: standard)
    case .size(let path, let range):
      options[keyPath: path] = try bounded(
        Quantity.bytes(word), word, range, kind: "a size",
        example: "65536, 128KiB, 64MiB or 2GiB")
    case .duration(let path, let range):
      options[keyPath: path] = try bounded(
        Quantity.milliseconds(word), word, range, kind: "a duration",
        example: "500ms, 10s, 5m or 1h")
    case .interval(let path, let range):
      options[keyPath: path] = try bounded(
        Quantity.microseconds(word), word, range, kind: "a short duration",
        example: "50us or 1ms")
    case .choice(_, let take):
      guard take(&options, word) else {
        throw ValueProblem(#""\#(word)" is none of its values; write \#(choices)"#)
      }
    }
  }

  /// The value that `options` has, in words that `apply` reads back.
  func words(in options: Options) -> String {
    switch set {
    case .text(let path): options[keyPath: path]
    case .list(let path): options[keyPath: path].joined(separator: ",")
    case .flag(let path): options[keyPath: path] ? "true" : "false"
    case .integer(let path, _): String(options[keyPath: path])
    case .size(let path, _): Quantity.words(bytes: options[keyPath: path])
    case .duration(let path, _): Quantity.words(milliseconds: options[keyPath: path])
    case .interval(let path, _): Quantity.words(microseconds: options[keyPath: path])
    case .choice(let word, _): word(options)
    }
  }

  /// `synced or written`.
  private var choices: String {
    let words = values.split(separator: "|").map(String.init)
    guard let last = words.last, words.count > 1 else { return values }
    return words.dropLast().joined(separator: ", ") + " or " + last
  }

  private func bounded(
    _ value: Int?, _ word: String, _ range: ClosedRange<Int>, kind: String, example: String
  ) throws(ValueProblem) -> Int {
    guard let value else {
      throw ValueProblem(#""\#(word)" is not \#(kind); write for example \#(example)"#)
    }
    guard range.contains(value) else {
      let side = value < range.lowerBound ? "too small" : "too large"
      let limits = (bounds ?? "").split(separator: ".", omittingEmptySubsequences: true)
      let hint = limits.count == 2 ? "; it goes from \(limits[0]) to \(limits[1])" : ""
      throw ValueProblem(#""\#(word)" is \#(side)\#(hint)"#)
    }
    return value
  }

  private static func list(_ word: String) throws(ValueProblem) -> [String] {
    let items = word.split(separator: ",", omittingEmptySubsequences: false)
      .map { OptionsFile.trimmed($0) }
    guard !items.contains("") else {
      throw ValueProblem(#""\#(word)" has an empty item; write items with a comma between them"#)
    }
    return items
  }
}

/// Why a word is not a value of its option, and what would be right.
struct ValueProblem: Error {
  let text: String

  init(_ text: String) { self.text = text }
}

/// Where an option's value goes and how its words are read.
enum OptionSetter: Sendable {
  case text(WritableKeyPath<Options, String> & Sendable)
  case list(WritableKeyPath<Options, [String]> & Sendable)
  case flag(WritableKeyPath<Options, Bool> & Sendable)
  case integer(WritableKeyPath<Options, Int> & Sendable, ClosedRange<Int>)
  case size(WritableKeyPath<Options, Int> & Sendable, ClosedRange<Int>)
  case duration(WritableKeyPath<Options, Int> & Sendable, ClosedRange<Int>)
  case interval(WritableKeyPath<Options, Int> & Sendable, ClosedRange<Int>)
  /// Says which choice was taken, and takes one; false if the word is none of them.
  case choice(@Sendable (Options) -> String, @Sendable (inout Options, String) -> Bool)

  static func choice<Choice: RawRepresentable<String> & Sendable>(
    _ path: WritableKeyPath<Options, Choice> & Sendable
  ) -> OptionSetter {
    .choice(
      { $0[keyPath: path].rawValue },
      { options, word in
        guard let choice = Choice(rawValue: word) else { return false }
        options[keyPath: path] = choice
        return true
      })
  }
}
