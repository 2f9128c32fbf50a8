import Base
import JSON

/// The fields of a request besides its `command`. What is not known is refused, since it would be lost.
struct RequestFields {
  private let members: [JSONValue.Member]

  init(_ json: JSONValue, known: [String]) throws(RequestProblem) {
    guard case .object(let members) = json else {
      throw RequestProblem(text: "a request is an object")
    }
    for member in members where member.name != "command" && !known.contains(member.name) {
      throw RequestProblem(
        text: #"there is no field "\#(member.name)""#
          + Spelling.suggestion(for: member.name, among: known))
    }
    self.members = members
  }

  func value(_ name: String) -> JSONValue? {
    members.first { $0.name == name }?.value
  }

  func text(_ name: String) throws(RequestProblem) -> String? {
    switch value(name) {
    case nil: return nil
    case .string(let text)?: return text
    case let other?: throw RequestProblem(text: #""\#(name)" is text, not \#(other.kind)"#)
    }
  }

  /// Where a page begins, as the one before it said.
  func cursor<Cursor>(
    reading read: (String) -> Cursor?
  ) throws(RequestProblem) -> Cursor? {
    guard let text = try text("cursor") else { return nil }
    guard let cursor = read(text) else {
      throw RequestProblem(text: #"the "cursor" is none that an answer had as its "next""#)
    }
    return cursor
  }

  func name(_ name: String) throws(RequestProblem) -> Name? {
    guard let text = try text(name) else { return nil }
    guard text.utf8.count <= Name.sizeMax else {
      throw RequestProblem(text: #""\#(name)" is longer than \#(Name.sizeMax) bytes"#)
    }
    return Name(text)
  }

  func texts(_ name: String) throws(RequestProblem) -> [String]? {
    switch value(name) {
    case nil: return nil
    case .array(let elements)?:
      return try elements.map { (element) throws(RequestProblem) in
        guard case .string(let text) = element else {
          throw RequestProblem(text: #""\#(name)" is an array of texts"#)
        }
        return text
      }
    case let other?:
      throw RequestProblem(text: #""\#(name)" is an array of texts, not \#(other.kind)"#)
    }
  }

  /// A whole number from 1 to the limit.
  func count(_ name: String, max: Int) throws(RequestProblem) -> Int? {
    try number(name, in: 1...max)
  }

  func number(_ name: String, in range: ClosedRange<Int>) throws(RequestProblem) -> Int? {
    switch value(name) {
    case nil: return nil
    case .number(let word)?:
      guard let number = Int(word), range ~= number else { break }
      return number
    default: break
    }
    let words =
      range.upperBound == .max
      ? "of at least \(range.lowerBound)" : "from \(range.lowerBound) to \(range.upperBound)"
    throw RequestProblem(text: #""\#(name)" is a whole number \#(words)"#)
  }

  /// False where nothing is said.
  func flag(_ name: String) throws(RequestProblem) -> Bool {
    switch value(name) {
    case nil: return false
    case .bool(let flag)?: return flag
    case let other?:
      throw RequestProblem(text: #""\#(name)" is true or false, not \#(other.kind)"#)
    }
  }
}
