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
}

/// Where an option's value goes and how its words are read.
enum OptionSetter: Sendable {
  case text(WritableKeyPath<Options, String> & Sendable)
  case list(WritableKeyPath<Options, [String]> & Sendable)
  case flag(WritableKeyPath<Options, Bool> & Sendable)
  case integer(WritableKeyPath<Options, Int> & Sendable, ClosedRange<Int>)
  case size(WritableKeyPath<Options, Int> & Sendable, ClosedRange<Int>)
  case duration(WritableKeyPath<Options, Int> & Sendable, ClosedRange<Int>)
  /// Takes one of the choices; false if the word is none of them.
  case apply(@Sendable (inout Options, String) -> Bool)

  static func choice<Choice: RawRepresentable<String> & Sendable>(
    _ path: WritableKeyPath<Options, Choice> & Sendable
  ) -> OptionSetter {
    .apply { options, word in
      guard let choice = Choice(rawValue: word) else { return false }
      options[keyPath: path] = choice
      return true
    }
  }
}
