/// What help and the parser know of an option or an argument, whatever its value's type.
struct Parameter: Sendable {
  /// Without dashes for an option, in capitals for an argument.
  let name: String
  var short: Character?
  /// What the value looks like in help; nil for a flag, which needs none.
  var valueName: String?
  let help: String
  /// The value that holds when none is given, in words; nil where help shall not show one.
  var standard: String?
  /// The environment variable that stands in when the option is not given.
  var variable: String?
  var isRepeatable = false
  var isRequired = false
  /// A word without dashes.
  var isArgument = false

  /// `--key KEY`, `--quiet`, `--[no-]flag` for what holds unless it is denied, or `QUEUE`.
  var title: String {
    if isArgument { return name }
    if let valueName { return "--\(name) \(valueName)" }
    return standard == "true" ? "--[no-]\(name)" : "--\(name)"
  }
}

/// A parameter without its type, so that a command can list them.
protocol AnyOption: Sendable {
  var parameter: Parameter { get }
  /// Reads the words that were given, in their order; no words mean that the default holds.
  func value(of words: [String]) throws(UsageError) -> any Sendable
}

/// One option or argument of a command and how its words become a value. It is declared once; the
/// command lists it, and `Invocation` gives its value under the same declaration.
struct Option<Value: Sendable>: AnyOption {
  let parameter: Parameter
  private let read: @Sendable ([String]) throws(UsageError) -> Value

  init(_ parameter: Parameter, read: @escaping @Sendable ([String]) throws(UsageError) -> Value) {
    self.parameter = parameter
    self.read = read
  }

  func value(of words: [String]) throws(UsageError) -> any Sendable { try read(words) }
}

/// A mistake on the command line, in words for who made it.
struct UsageError: Error, Equatable {
  let text: String

  init(_ text: String) { self.text = text }
}

extension Option {
  /// `--name VALUE` with a default that help shows as `standard`.
  static func value(
    _ name: String, short: Character? = nil, _ valueName: String, as kind: WordKind<Value>,
    default value: Value, shown standard: String? = nil, variable: String? = nil, _ help: String
  ) -> Option {
    Option(
      Parameter(
        name: name, short: short, valueName: valueName, help: help, standard: standard,
        variable: variable)
    ) { (words) throws(UsageError) in
      guard let word = words.last else { return value }
      return try kind.read(word, of: "--\(name)")
    }
  }

  /// `--name VALUE` that is nil when it is not given.
  static func optional<Wrapped>(
    _ name: String, short: Character? = nil, _ valueName: String, as kind: WordKind<Wrapped>,
    _ help: String
  ) -> Option where Value == Wrapped? {
    Option(Parameter(name: name, short: short, valueName: valueName, help: help)) {
      (words) throws(UsageError) in
      guard let word = words.last else { return nil }
      return try kind.read(word, of: "--\(name)")
    }
  }

  /// `--name VALUE` that must be given.
  static func required(
    _ name: String, short: Character? = nil, _ valueName: String, as kind: WordKind<Value>,
    _ help: String
  ) -> Option {
    Option(
      Parameter(name: name, short: short, valueName: valueName, help: help, isRequired: true)
    ) { (words) throws(UsageError) in
      guard let word = words.last else { throw UsageError("--\(name) \(valueName) is missing") }
      return try kind.read(word, of: "--\(name)")
    }
  }

  /// `--name VALUE` as often as wanted.
  static func list<Element>(
    _ name: String, short: Character? = nil, _ valueName: String, as kind: WordKind<Element>,
    _ help: String
  ) -> Option where Value == [Element] {
    Option(
      Parameter(name: name, short: short, valueName: valueName, help: help, isRepeatable: true)
    ) { (words) throws(UsageError) in
      try words.map { (word) throws(UsageError) in try kind.read(word, of: "--\(name)") }
    }
  }
}

extension Option where Value == Bool {
  /// `--name`, without a value; `--name=false` and `--no-name` take it back.
  static func flag(_ name: String, short: Character? = nil, _ help: String) -> Option {
    Option(Parameter(name: name, short: short, help: help)) { (words) throws(UsageError) in
      guard let word = words.last else { return false }
      return try WordKind.flag.read(word, of: "--\(name)")
    }
  }
}

extension Option {
  /// A word without dashes that must be there.
  static func argument(
    _ name: String, as kind: WordKind<Value>, _ help: String
  ) -> Option {
    Option(Parameter(name: name, help: help, isRequired: true, isArgument: true)) {
      (words) throws(UsageError) in
      guard let word = words.last else { throw UsageError("\(name) is missing") }
      return try kind.read(word, of: name)
    }
  }

  /// A word without dashes that may be left out.
  static func argument(
    _ name: String, as kind: WordKind<Value>, default value: Value, _ help: String
  ) -> Option {
    Option(Parameter(name: name, help: help, isArgument: true)) { (words) throws(UsageError) in
      guard let word = words.last else { return value }
      return try kind.read(word, of: name)
    }
  }

  /// The words without dashes that are left, if there are any.
  static func arguments<Element>(
    _ name: String, as kind: WordKind<Element>, _ help: String
  ) -> Option where Value == [Element] {
    Option(Parameter(name: name, help: help, isRepeatable: true, isArgument: true)) {
      (words) throws(UsageError) in
      try words.map { (word) throws(UsageError) in try kind.read(word, of: name) }
    }
  }
}
