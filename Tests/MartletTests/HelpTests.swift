import Testing

@testable import martlet

@Suite struct HelpTests {
  /// Every command with the words that lead to it.
  private static let commands: [(command: Command, path: [String])] = {
    var found: [(Command, [String])] = []
    func visit(_ command: Command, _ path: [String]) {
      found.append((command, path + [command.name]))
      for inner in command.commands { visit(inner, path + [command.name]) }
    }
    for command in ProgramDeclaration.martlet.commands { visit(command, ["martlet"]) }
    return found
  }()

  @Test func noLineIsTooLong() {
    for (command, path) in Self.commands {
      let examples = Set(command.examples.map { "  \($0.command)" })
      for line in Help.page(command, path: path).split(separator: "\n") {
        #expect(line.count <= Help.widthMax || examples.contains(String(line)), "\(line)")
        #expect(line.last != " ", "\(line)")
      }
    }
  }

  @Test func everyHelpIsASentence() {
    for (command, _) in Self.commands {
      #expect(command.summary.last != ".", "\(command.name)")
      for option in command.arguments + command.options {
        let help = option.parameter.help
        #expect(help.last == ".", "\(command.name) \(option.parameter.title): \(help)")
      }
      for example in command.examples { #expect(example.explanation.last == ".") }
    }
  }

  @Test func noNameStandsTwice() {
    for (command, path) in Self.commands {
      let parameters = command.options.map(\.parameter)
      let shorts = parameters.compactMap(\.short)
      #expect(Set(parameters.map(\.name)).count == parameters.count, "\(path)")
      #expect(Set(shorts).count == shorts.count, "\(path)")
    }
  }

  /// An example is what people copy: what its words say must be what the command takes.
  @Test func everyExampleIsUnderstood() throws {
    for (command, path) in Self.commands {
      for example in command.examples {
        var words = Self.words(example.command)
        let start = try #require(words.firstIndex(of: "martlet"), "\(example.command)")
        words.removeFirst(start)
        #expect(Array(words.prefix(path.count)) == path, "\(example.command)")
        words.removeFirst(path.count)
        _ = try Invocation(
          of: command, path: path, words: words.prefix { $0 != ">" }, environment: [:])
      }
    }
  }

  @Test func commandsOfABrokerHaveExamples() {
    for (command, path) in Self.commands {
      if case .asynchronous = command.action { #expect(!command.examples.isEmpty, "\(path)") }
    }
  }

  @Test func longTextIsWrappedAtBlanks() {
    let text = Help.wrapped(String(repeating: "word ", count: 40), indent: 4)
    let lines = text.split(separator: "\n")
    #expect(lines.count == 3)
    #expect(lines.allSatisfy { $0.hasPrefix("    word") && $0.count <= Help.widthMax })
  }

  /// The words of a command line as a shell splits it, without expansions.
  private static func words(_ line: String) -> [String] {
    var words: [String] = []
    var word: String?
    var isQuoted = false
    for character in line {
      switch character {
      case "'":
        isQuoted.toggle()
        word = word ?? ""
      case " " where !isQuoted:
        if let word { words.append(word) }
        word = nil
      default: word = (word ?? "") + String(character)
      }
    }
    return words + (word.map { [$0] } ?? [])
  }
}
