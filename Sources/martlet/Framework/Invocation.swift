import Base

/// A command with the words that it was given, read and checked.
struct Invocation: Sendable {
  /// `martlet declare queue`.
  let path: [String]
  private var values: [String: any Sendable] = [:]
  /// Names of the parameters that were given on the command line or by their variable.
  private var given: Set<String> = []

  /// The value of a parameter that the command lists.
  subscript<Value>(_ option: Option<Value>) -> Value {
    guard let value = values[option.parameter.name] as? Value else {
      fatalError("the command does not list \(option.parameter.title)")
    }
    return value
  }

  /// Whether the parameter was given at all.
  func has<Value>(_ option: Option<Value>) -> Bool { given.contains(option.parameter.name) }

  /// Reads `words`, which follow the command's name.
  init(
    of command: Command, path: [String], words: [String], environment: [String: String]
  ) throws(UsageError) {
    self.path = path
    var found = try Self.sorted(words, command)
    for declared in command.arguments + command.options {
      let parameter = declared.parameter
      var words = found.removeValue(forKey: parameter.name) ?? []
      if words.isEmpty, let variable = parameter.variable, let word = environment[variable] {
        guard !word.isEmpty else {
          throw UsageError("\(variable) is empty; give it a value, or unset it")
        }
        words = [word]
      }
      if !words.isEmpty { given.insert(parameter.name) }
      values[parameter.name] = try declared.value(of: words)
    }
  }

  /// The words under the names of their parameters. Where only one counts the last wins, so that an
  /// alias or a container's entry point can be overridden.
  private static func sorted(
    _ words: [String], _ command: Command
  ) throws(UsageError) -> [String: [String]] {
    var found: [String: [String]] = [:]
    var rest = words[...]
    var positions = command.arguments.map(\.parameter)[...]
    var endOfOptions = false
    while let word = rest.popFirst() {
      if word == "--", !endOfOptions {
        endOfOptions = true
      } else if word.hasPrefix("-"), word != "-", !endOfOptions {
        let (parameter, value) = try option(word, &rest, command)
        found[parameter.name, default: []].append(value)
      } else if let position = positions.first {
        if !position.isRepeatable { positions.removeFirst() }
        found[position.name, default: []].append(word)
      } else {
        throw UsageError(
          command.arguments.isEmpty && !command.options.isEmpty
            ? #"unexpected "\#(word)"; an option begins with --"# : #"unexpected "\#(word)""#)
      }
    }
    return found
  }

  private static func option(
    _ word: String, _ rest: inout ArraySlice<String>, _ command: Command
  ) throws(UsageError) -> (Parameter, String) {
    let parameters = command.options.map(\.parameter)
    let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    let title = String(parts[0])
    let attached = parts.count == 2 ? String(parts[1]) : nil
    guard let parameter = parameters.first(where: { $0.isCalled(title) }) else {
      if attached == nil, let flag = parameters.first(where: { $0.isDenied(by: title) }) {
        return (flag, "false")
      }
      let names = parameters.map { "--\($0.name)" }
      throw UsageError(
        #"there is no option "\#(title)""# + Spelling.suggestion(for: title, among: names))
    }
    if let attached { return (parameter, attached) }
    if parameter.valueName == nil { return (parameter, "true") }
    guard let next = rest.first, !parameters.contains(where: { $0.isCalled(next) }) else {
      throw UsageError("\(parameter.title): the value is missing")
    }
    rest.removeFirst()
    return (parameter, next)
  }
}

extension Parameter {
  /// Whether `word` is `--name` or `-n`.
  fileprivate func isCalled(_ word: String) -> Bool {
    word == "--\(name)" || short.map { word == "-\($0)" } ?? false
  }

  /// Whether `word` is `--no-name` of a flag.
  fileprivate func isDenied(by word: String) -> Bool {
    valueName == nil && !isArgument && word == "--no-\(name)"
  }
}
