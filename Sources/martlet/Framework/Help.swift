/// The help texts, made of the declarations alone.
enum Help {
  static let widthMax = 80

  /// The list of all commands.
  static func overview(_ program: ProgramDeclaration) -> String {
    var text = "\(program.headline)\n\nUsage: martlet COMMAND [options]\n"
    for section in program.sections {
      text += "\n\(section.title):\n"
      text += table(section.commands.map { ($0.name, $0.summary) })
    }
    text += "\n"
    text += program.closing.map { wrapped($0, indent: 0) }.joined(separator: "\n")
    return text
  }

  /// The help of the command that `path` leads to, from `martlet` on.
  static func page(_ command: Command, path: [String]) -> String {
    let name = path.joined(separator: " ")
    var text = "\(name): \(command.summary)\n\nUsage: \(usage(command, path: path))\n"
    for paragraph in command.details { text += "\n" + wrapped(paragraph, indent: 0) }
    if !command.commands.isEmpty {
      text += "\nCommands:\n" + table(command.commands.map { ($0.name, $0.summary) })
    }
    if !command.arguments.isEmpty {
      text += "\nArguments:\n" + table(command.arguments.map { ($0.parameter.name, help($0)) })
    }
    if !command.options.isEmpty {
      text += "\nOptions:\n" + table(command.options.map { (titles($0), help($0)) })
    }
    if !command.examples.isEmpty {
      text += "\nExamples:\n"
      for example in command.examples {
        text += "  \(example.command)\n" + wrapped(example.explanation, indent: 6)
      }
    }
    if !command.exitCodes.isEmpty {
      text += "\nExit codes:\n"
      let codes = [.success, .failure, .usage] + command.exitCodes
      text += table(codes.map { (String($0.rawValue), $0.help) })
    }
    return text
  }

  /// `martlet bind SOURCE DESTINATION [options]`.
  static func usage(_ command: Command, path: [String]) -> String {
    var words = path
    if !command.commands.isEmpty { words.append("COMMAND") }
    for argument in command.arguments {
      let name = argument.parameter.name + (argument.parameter.isRepeatable ? "..." : "")
      words.append(argument.parameter.isRequired ? name : "[\(name)]")
    }
    for option in command.options where option.parameter.isRequired {
      words.append(option.parameter.title)
    }
    if command.options.contains(where: { !$0.parameter.isRequired }) { words.append("[options]") }
    return words.joined(separator: " ")
  }

  /// `text` in lines of at most `widthMax`, each behind `indent` blanks.
  static func wrapped(_ text: String, indent: Int) -> String {
    let margin = String(repeating: " ", count: indent)
    var result = ""
    var line = margin
    for word in text.split(separator: " ") {
      if line.count > indent, line.count + 1 + word.count > widthMax {
        result += line + "\n"
        line = margin
      }
      line += line.count == indent ? word : " \(word)"
    }
    return result + line + "\n"
  }

  private static func titles(_ option: any AnyOption) -> String {
    let parameter = option.parameter
    return (parameter.short.map { "-\($0), " } ?? "    ") + parameter.title
  }

  private static func help(_ option: any AnyOption) -> String {
    let parameter = option.parameter
    var sentences = [parameter.help]
    if let standard = parameter.standard { sentences.append("Default: \(standard).") }
    if let variable = parameter.variable { sentences.append("Environment: \(variable).") }
    if parameter.isRepeatable { sentences.append("Can be repeated.") }
    return sentences.joined(separator: " ")
  }

  /// Two columns; a title too long for its column has a line of its own.
  private static func table(_ rows: [(title: String, text: String)]) -> String {
    let longest = rows.map(\.title.count).max() ?? 0
    let column = min(longest, 26) + 4
    return rows.map { row in
      let body = wrapped(row.text, indent: column)
      let title = "  " + row.title
      if title.count + 2 > column { return title + "\n" + body }
      return title + String(body.dropFirst(title.count))
    }.joined()
  }
}
