import Base

/// Where an option's value comes from, the weakest first.
public enum OptionSource: Equatable, Sendable, CustomStringConvertible {
  case standard
  case file(path: String, line: Int)
  /// The name of the variable.
  case environment(String)
  /// The flag as it is written, with its dashes.
  case flag(String)

  public var description: String {
    switch self {
    case .standard: "default"
    case .file(let path, let line): "\(path) line \(line)"
    case .environment(let variable): "environment \(variable)"
    case .flag(let flag): flag
    }
  }
}

/// An option that cannot be taken: where it stands, what is wrong, what would be right.
public struct OptionsError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Nil when the whole configuration file is at fault.
  public let source: OptionSource?
  public let problem: String

  public init(_ source: OptionSource?, _ problem: String) {
    self.source = source
    self.problem = problem
  }

  public var description: String { source.map { "\($0): \(problem)" } ?? problem }
}

/// One flag of the command line: its name without dashes, and its value, which only flags that say
/// yes or no can leave out.
public struct OptionFlag: Equatable, Sendable {
  public let name: String
  public let value: String?

  public init(_ name: String, _ value: String?) {
    self.name = name
    self.value = value
  }
}

/// Makes `Options` of the command line, the environment and a file. The command line wins over the
/// environment, the environment over the file, the file over the defaults.
public struct OptionsParser: Sendable {
  public private(set) var options = Options()
  private var sources: [String: OptionSource] = [:]

  /// The flag and the variable that name the configuration file; not options themselves.
  public static let fileFlag = "config"
  public static let fileVariable = OptionDeclaration.variablePrefix + "CONFIG"

  /// The variable that tells commands where the broker is.
  public static let urlVariable = OptionDeclaration.variablePrefix + "URL"

  /// How those variables of the prefix begin that Kubernetes sets for a service called "martlet".
  private static let foreignVariables = ["MARTLET_SERVICE_", "MARTLET_PORT"]

  /// `readFile` is called with the path of the configuration file, if there is one.
  public init(
    flags: [OptionFlag] = [], environment: [String: String] = [:],
    readFile: (String) throws(OptionsError) -> String = Self.noFile
  ) throws(OptionsError) {
    let file = flags.last { $0.name == Self.fileFlag }?.value ?? environment[Self.fileVariable]
    try Self.check(environment)
    if let file { try take(file: OptionsFile(try readFile(file), path: file), path: file) }
    for variable in environment.keys.sorted() {
      try take(variable: variable, environment[variable] ?? "")
    }
    for flag in flags where flag.name != Self.fileFlag { try take(flag: flag) }
    try check()
  }

  /// Refuses variables that begin like ours and mean nothing, or that are empty: whoever set them
  /// meant something by it, such as a password.
  public static func check(_ environment: [String: String]) throws(OptionsError) {
    let known = Options.declarations.map(\.variable) + [fileVariable, urlVariable]
    for variable in environment.keys.sorted()
    where variable.hasPrefix(OptionDeclaration.variablePrefix) {
      let source = OptionSource.environment(variable)
      if known.contains(variable) {
        guard environment[variable] != "" else {
          throw OptionsError(source, "it is empty; give it a value, or unset it")
        }
        continue
      }
      if foreignVariables.contains(where: variable.hasPrefix) { continue }
      let suggestion = Spelling.suggestion(for: variable, among: known)
      throw OptionsError(
        source, "there is no such option" + (suggestion.isEmpty ? "; unset it" : suggestion))
    }
  }

  /// For callers without files.
  public static func noFile(_ path: String) throws(OptionsError) -> String {
    throw OptionsError(nil, "cannot read \(path)")
  }

  /// Where the value of option `name` comes from.
  public func source(of name: String) -> OptionSource { sources[name] ?? .standard }

  /// The effective values as a configuration file, each with where it comes from. Secrets are left
  /// out.
  public var report: String {
    let rows = Options.declarations.map { declaration -> (setting: String, source: String) in
      let words = OptionsFile.quoted(declaration.words(in: options))
      let setting =
        declaration.isSecret
        ? "# \(declaration.name) is not shown" : "\(declaration.name) = \(words)"
      return (setting, source(of: declaration.name).description)
    }
    let width = rows.map(\.setting.count).max() ?? 0
    return rows.map { row in
      let padding = String(repeating: " ", count: width - row.setting.count)
      return "\(row.setting)\(padding)  # \(row.source)\n"
    }.joined()
  }

  private mutating func take(file: OptionsFile, path: String) throws(OptionsError) {
    for line in file.lines {
      let source = OptionSource.file(path: path, line: line.number)
      guard let declaration = Self.declaration(line.name) else {
        throw OptionsError(source, Self.unknown(line.name))
      }
      try apply(declaration, line.value, source)
    }
  }

  private mutating func take(variable: String, _ value: String) throws(OptionsError) {
    guard let declaration = Options.declarations.first(where: { $0.variable == variable }) else {
      return
    }
    try apply(declaration, value, .environment(variable))
  }

  private mutating func take(flag: OptionFlag) throws(OptionsError) {
    let source = OptionSource.flag("--\(flag.name)")
    if let declaration = Self.declaration(flag.name) {
      guard let value = flag.value ?? (declaration.isFlag ? "true" : nil) else {
        throw OptionsError(source, "a value is missing")
      }
      return try apply(declaration, value, source)
    }
    if flag.name.hasPrefix("no-"), flag.value == nil,
      let declaration = Self.declaration(String(flag.name.dropFirst(3))), declaration.isFlag
    {
      return try apply(declaration, "false", source)
    }
    throw OptionsError(source, Self.unknown(flag.name))
  }

  private mutating func apply(
    _ declaration: OptionDeclaration, _ word: String, _ source: OptionSource
  ) throws(OptionsError) {
    do {
      try declaration.apply(word, to: &options)
    } catch {
      let name = "\(source)".contains(declaration.name) ? "" : "\(declaration.name): "
      throw OptionsError(source, name + error.text)
    }
    sources[declaration.name] = source
  }

  /// What no single word shows: values that are right in form and mean nothing.
  private func check() throws(OptionsError) {
    for text in options.listen where ListenAddress(text) == nil {
      throw OptionsError(
        source(of: "listen"),
        #""\#(text)" is not an address; write HOST:PORT, [IPv6]:PORT or *:PORT, with a"#
          + " port from 0 to 65535")
    }
    if options.data.isEmpty {
      throw OptionsError(source(of: "data"), "the directory has no name")
    }
  }

  private static func declaration(_ name: String) -> OptionDeclaration? {
    Options.declarations.first { $0.name == name }
  }

  private static func unknown(_ name: String) -> String {
    let names = Options.declarations.map(\.name)
    return #"there is no option "\#(name)""# + Spelling.suggestion(for: name, among: names)
  }
}
