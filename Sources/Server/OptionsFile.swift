/// A configuration file: lines of `name = value`, blank lines, and comments from a `#` at the start
/// of a line or behind a blank. A value in double quotes is taken as it stands, with `\"` and `\\`
/// for a quote and a backslash.
struct OptionsFile {
  struct Line: Equatable {
    /// Counted from 1.
    let number: Int
    let name: String
    let value: String
  }

  let lines: [Line]

  init(_ text: String, path: String) throws(OptionsError) {
    var lines: [Line] = []
    let raw = text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
    for (index, rawLine) in raw.enumerated() {
      let source = OptionSource.file(path: path, line: index + 1)
      let line = Self.trimmed(rawLine)
      if line.isEmpty || line.hasPrefix("#") { continue }
      guard let equals = line.firstIndex(of: "=") else {
        throw OptionsError(source, #"expected "name = value", found "\#(line)""#)
      }
      let name = Self.trimmed(line[..<equals])
      let value = try Self.value(line[line.index(after: equals)...], source)
      if let earlier = lines.first(where: { $0.name == name }) {
        throw OptionsError(source, "\(name) was set on line \(earlier.number) already")
      }
      lines.append(Line(number: index + 1, name: name, value: value))
    }
    self.lines = lines
  }

  static func trimmed(_ text: some StringProtocol) -> String {
    let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" }
    guard let start = text.firstIndex(where: { !isBlank($0) }),
      let end = text.lastIndex(where: { !isBlank($0) })
    else { return "" }
    return String(text[start...end])
  }

  /// `words` as a value that reads back as they are.
  static func quoted(_ words: String) -> String {
    let isPlain =
      !words.isEmpty && words == trimmed(words) && !words.hasPrefix("\"") && !words.contains("#")
    if isPlain { return words }
    let escaped = words.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) }
    return "\"\(escaped.joined())\""
  }

  private static func value(
    _ text: Substring, _ source: OptionSource
  ) throws(OptionsError) -> String {
    let text = trimmed(text)
    if text.hasPrefix("\"") { return try unquoted(text, source) }
    var previous: Character = " "
    for index in text.indices {
      if text[index] == "#", previous == " " || previous == "\t" {
        return trimmed(text[..<index])
      }
      previous = text[index]
    }
    return text
  }

  private static func unquoted(
    _ text: String, _ source: OptionSource
  ) throws(OptionsError) -> String {
    var value = ""
    var index = text.index(after: text.startIndex)
    while index < text.endIndex, text[index] != "\"" {
      if text[index] == "\\" {
        index = text.index(after: index)
        guard index < text.endIndex else { break }
      }
      value.append(text[index])
      index = text.index(after: index)
    }
    guard index < text.endIndex else {
      throw OptionsError(source, "the value has no closing quote")
    }
    let rest = trimmed(text[text.index(after: index)...])
    guard rest.isEmpty || rest.hasPrefix("#") else {
      throw OptionsError(source, #"unexpected "\#(rest)" behind the closing quote"#)
    }
    return value
  }
}
