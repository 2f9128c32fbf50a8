/// One command: what it is called, what it takes, what help says of it, and what it does. Parsing,
/// help and error messages all derive from this declaration.
///
///     enum Count {
///       private static let file = Option.argument("FILE", as: .text, "File to look at.")
///       private static let words = Option.flag("words", short: "w", "Count words, not lines.")
///
///       static let command = Command(
///         name: "count", summary: "count the lines of a file", arguments: [file], options: [words],
///         examples: [.init("martlet count notes.txt", "Prints the number of lines.")],
///         action: .blocking { invocation throws(Failure) in
///           Console.show("\(try count(invocation[file], words: invocation[words]))\n")
///           return .success
///         })
///     }
///
/// It is listed in `CommandTable.swift`, or in the `.group` of the command that it belongs under.
struct Command: Sendable {
  let name: String
  /// Half a line for the list of commands, without a full stop.
  let summary: String
  /// Paragraphs for the command's own help.
  let details: [String]
  /// In the order in which they are given.
  let arguments: [any AnyOption]
  let options: [any AnyOption]
  let examples: [Example]
  /// The exit codes the command can end with beside success, failure and usage.
  let exitCodes: [ExitCode]
  let action: Action

  struct Example: Sendable {
    let command: String
    let explanation: String

    init(_ command: String, _ explanation: String) {
      self.command = command
      self.explanation = explanation
    }
  }

  enum Action: Sendable {
    /// Runs on the main thread, with the signals as the process inherited them.
    case blocking(@Sendable (Invocation) throws(Failure) -> ExitCode)
    /// Runs as a task that SIGINT and SIGTERM cancel.
    case asynchronous(@Sendable (Invocation) async throws(Failure) -> ExitCode)
    /// Gets the words behind the command's name as they stand; has its own help.
    case raw(@Sendable ([String]) -> Int32)
    /// Does nothing of its own.
    case group([Command])
  }

  init(
    name: String, summary: String, details: [String] = [], arguments: [any AnyOption] = [],
    options: [any AnyOption] = [], examples: [Example] = [], exitCodes: [ExitCode] = [],
    action: Action
  ) {
    self.name = name
    self.summary = summary
    self.details = details
    self.arguments = arguments
    self.options = options
    self.examples = examples
    self.exitCodes = exitCodes
    self.action = action
  }

  var commands: [Command] {
    if case .group(let commands) = action { commands } else { [] }
  }
}

/// Why a command could not do its work, in words for its user.
struct Failure: Error {
  let text: String
  let code: ExitCode

  init(_ text: String, code: ExitCode = .failure) {
    self.text = text
    self.code = code
  }
}
