import Client
import Server

import enum Base.Spelling

/// `name=value` or `name:type=value`, as headers and arguments are written.
struct FieldWord: Sendable {
  let name: Name
  let value: FieldValue

  enum TypeName: String, CaseIterable {
    case string, int, long, double, bool, timestamp, list, null
  }

  static let help =
    "as NAME=VALUE or NAME:TYPE=VALUE, where TYPE is string, int, long, double, bool, timestamp "
    + "(seconds since 1970, or 2026-11-28T12:00:00Z), list (of strings, with commas) or null. "
    + "Without TYPE, whole numbers as they are usually written are int, true and false are bool, "
    + "and all else is string, such as 00123."

  /// Throws what is wrong, and what would be right.
  init(_ word: String) throws(UsageError) {
    guard let equals = word.firstIndex(of: "=") else {
      throw UsageError(#""\#(word)" has no "="; write NAME=VALUE or NAME:TYPE=VALUE"#)
    }
    let title = word[..<equals]
    let text = String(word[word.index(after: equals)...])
    var nameText = title
    var type: TypeName?
    if let colon = title.lastIndex(of: ":") {
      let typeText = String(title[title.index(after: colon)...])
      guard let found = TypeName(rawValue: typeText) else {
        let names = TypeName.allCases.map(\.rawValue)
        let suggestion = Spelling.suggestion(for: typeText, among: names)
        throw UsageError(
          #""\#(word)": there is no type "\#(typeText)""#
            + (suggestion.isEmpty ? "; there are \(names.joined(separator: ", "))" : suggestion))
      }
      type = found
      nameText = title[..<colon]
    }
    guard !nameText.isEmpty, nameText.utf8.count <= Name.sizeMax else {
      throw UsageError(#""\#(word)": the name must have 1 to \#(Name.sizeMax) bytes"#)
    }
    name = Name(String(nameText))
    guard let value = type.map({ Self.value(text, $0) }) ?? Self.guess(text) else {
      throw UsageError(#""\#(word)": "\#(text)" is not of type \#(type?.rawValue ?? "string")"#)
    }
    self.value = value
  }

  private static func value(_ text: String, _ type: TypeName) -> FieldValue? {
    switch type {
    case .string: .string(text)
    case .int: Int32(text).map { .int32($0) } ?? Int64(text).map { .int64($0) }
    case .long: Int64(text).map { .int64($0) }
    case .double: Double(text).map { .double($0) }
    case .bool: Quantity.flag(text).map { .bool($0) }
    case .timestamp: (UInt64(text) ?? DateWord.seconds(text)).map { .timestamp($0) }
    case .list:
      .array(
        text.isEmpty
          ? []
          : text.split(separator: ",", omittingEmptySubsequences: false)
            .map { .string(String($0)) })
    case .null: text.isEmpty ? .void : nil
    }
  }

  private static func guess(_ text: String) -> FieldValue {
    switch text {
    case "true": .bool(true)
    case "false": .bool(false)
    // What does not read back as it was written is no number: zip codes, telephone numbers.
    default: Int64(text).map(String.init) == text ? value(text, .int)! : .string(text)
    }
  }
}

extension Option where Value == FieldTable {
  /// Named values, one for each time it is given.
  static func fields(_ name: String, short: Character? = nil, _ help: String) -> Option {
    Option(
      Parameter(
        name: name, short: short, valueName: "NAME=VALUE", help: "\(help) \(FieldWord.help)",
        isRepeatable: true)
    ) { (words) throws(UsageError) in
      var table = FieldTable()
      for word in words {
        let field: FieldWord
        do throws(UsageError) {
          field = try FieldWord(word)
        } catch {
          throw UsageError("--\(name): \(error.text)")
        }
        guard table[field.name] == nil else {
          throw UsageError(#"--\#(name): "\#(field.name)" is given twice"#)
        }
        table.entries.append(.init(name: field.name, value: field.value))
      }
      return table
    }
  }
}
