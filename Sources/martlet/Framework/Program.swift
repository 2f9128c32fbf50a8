import Base
import IO
import Server

/// Finds the command that the words ask for and runs it.
struct Program {
  let declaration: ProgramDeclaration
  let environment: [String: String]

  /// Runs `words`, which follow the program's name; the result is the process's exit code.
  func run(_ words: [String]) -> Int32 {
    do {
      return try dispatch(words)
    } catch {
      Console.complain(error.text, path: error.path)
      if error.code == .usage {
        let usage = error.usage.map { "Usage: \($0)\n" } ?? ""
        let help = (error.path + ["--help"]).joined(separator: " ")
        Console.say(#"\#(usage)See "\#(help)"."#)
      }
      return error.code.rawValue
    }
  }

  /// What went wrong in the command that `path` leads to.
  private struct Ending: Error {
    let text: String
    let code: ExitCode
    let path: [String]
    /// How the command is used, if it is known which.
    var usage: String?
  }

  private static let name = "martlet"
  private static let helpWords: Set<String> = ["--help", "-h"]

  private func dispatch(_ words: [String]) throws(Ending) -> Int32 {
    switch words.first {
    case nil:
      Console.say(Help.overview(declaration), terminator: "")
      return ExitCode.usage.rawValue
    case "--version", "-V", "version":
      Console.show("\(Self.name) \(declaration.version)\n")
    case "--help", "-h", "help":
      try help(Array(words.dropFirst()))
    case let first?:
      guard !first.hasPrefix("-") else {
        throw Ending(
          text: #"there is no option "\#(first)"; a command comes first"#, code: .usage,
          path: [Self.name])
      }
      let (command, path, rest) = try find(words)
      return try run(command, path, rest)
    }
    return ExitCode.success.rawValue
  }

  private func help(_ words: [String]) throws(Ending) {
    guard !words.isEmpty else { return Console.show(Help.overview(declaration)) }
    let (command, path, rest) = try find(words)
    if case .raw(let action) = command.action {
      _ = action(["--help"])
      return
    }
    guard rest.isEmpty || rest.allSatisfy(Self.helpWords.contains) else {
      throw Ending(text: #"there is no help for "\#(rest[0])""#, code: .usage, path: path)
    }
    Console.show(Help.page(command, path: path))
  }

  /// The command that the first words name, the words that name it, and the others.
  private func find(
    _ words: [String]
  ) throws(Ending) -> (command: Command, path: [String], rest: [String]) {
    var path = [Self.name]
    var candidates = declaration.commands
    var found: Command?
    var rest = words[...]
    while let word = rest.first, !candidates.isEmpty, !Self.helpWords.contains(word) {
      guard let next = candidates.first(where: { $0.name == word }) else {
        let names = candidates.map(\.name)
        let hint = Spelling.suggestion(for: word, among: names)
        let list = hint.isEmpty ? "; there are \(names.joined(separator: ", "))" : hint
        throw Ending(
          text: #"there is no command "\#(word)"\#(list)"#, code: .usage, path: path)
      }
      rest.removeFirst()
      path.append(word)
      found = next
      candidates = next.commands
    }
    guard let found else { fatalError("a command was looked for without a word") }
    return (found, path, Array(rest))
  }

  private func run(
    _ command: Command, _ path: [String], _ words: [String]
  ) throws(Ending) -> Int32 {
    if case .raw(let action) = command.action { return action(words) }
    if words.prefix(while: { $0 != "--" }).contains(where: Self.helpWords.contains) {
      Console.show(Help.page(command, path: path))
      return ExitCode.success.rawValue
    }
    switch command.action {
    case .group(let commands):
      let names = commands.map(\.name).joined(separator: ", ")
      throw Ending(
        text: "a command is missing; there are \(names)", code: .usage, path: path,
        usage: Help.usage(command, path: path))
    case .blocking(let action):
      let invocation = try read(command, path, words)
      return try ending(command, path) { () throws(Failure) in try action(invocation) }
    case .asynchronous(let action):
      let invocation = try read(command, path, words)
      return try ending(command, path) { () throws(Failure) in
        try InterruptibleTask.run { () async throws(Failure) in try await action(invocation) }
      }
    case .raw: fatalError("raw commands are run before")
    }
  }

  private func ending(
    _ command: Command, _ path: [String], _ action: () throws(Failure) -> ExitCode
  ) throws(Ending) -> Int32 {
    do {
      return try action().rawValue
    } catch {
      throw Ending(
        text: error.text, code: error.code, path: path, usage: Help.usage(command, path: path))
    }
  }

  private func read(
    _ command: Command, _ path: [String], _ words: [String]
  ) throws(Ending) -> Invocation {
    do throws(UsageError) {
      let invocation = try Invocation(
        of: command, path: path, words: words, environment: environment)
      do throws(OptionsError) {
        try OptionsParser.check(environment)
      } catch {
        throw UsageError(error.description)
      }
      return invocation
    } catch {
      throw Ending(
        text: error.text, code: .usage, path: path, usage: Help.usage(command, path: path))
    }
  }
}
