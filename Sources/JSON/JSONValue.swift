/// JSON as it was read. Numbers stay words, so that none loses a digit.
package enum JSONValue: Equatable, Sendable {
  case null
  case bool(Bool)
  case number(String)
  case string(String)
  case array([JSONValue])
  /// In the order in which they stand.
  case object([Member])

  package struct Member: Equatable, Sendable {
    package let name: String
    package let value: JSONValue

    package init(name: String, value: JSONValue) {
      self.name = name
      self.value = value
    }
  }

  /// What is wrong with a text, and at which byte.
  package struct Problem: Error, Equatable {
    package let text: String

    package init(text: String) { self.text = text }
  }

  /// Reads a whole text.
  package init(_ bytes: [UInt8]) throws(Problem) {
    var reader = JSONReader(bytes)
    self = try reader.whole()
  }

  /// What a person calls it.
  package var kind: String {
    switch self {
    case .null: "null"
    case .bool: "true or false"
    case .number: "a number"
    case .string: "text"
    case .array: "an array"
    case .object: "an object"
    }
  }
}

/// Reads JSON by RFC 8259.
private struct JSONReader {
  private let bytes: [UInt8]
  private var offset = 0
  private static let depthMax = 100

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
  }

  mutating func whole() throws(JSONValue.Problem) -> JSONValue {
    let value = try value(depth: 0)
    skipBlanks()
    guard offset == bytes.count else { throw problem("something stands behind the value") }
    return value
  }

  private func problem(_ text: String) -> JSONValue.Problem {
    JSONValue.Problem(text: "\(text) at byte \(offset + 1)")
  }

  private mutating func skipBlanks() {
    while let byte = next, [0x20, 0x09, 0x0A, 0x0D].contains(byte) { offset += 1 }
  }

  private var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard next == UInt8(ascii: character) else { return false }
    offset += 1
    return true
  }

  private mutating func value(depth: Int) throws(JSONValue.Problem) -> JSONValue {
    guard depth < Self.depthMax else { throw problem("it is nested too deeply") }
    skipBlanks()
    switch next {
    case UInt8(ascii: "{"): return try object(depth)
    case UInt8(ascii: "["): return try array(depth)
    case UInt8(ascii: "\""): return .string(try string())
    case let byte? where byte == UInt8(ascii: "-") || (0x30...0x39).contains(byte):
      return .number(try number())
    case nil: throw problem("a value is missing")
    default:
      for (word, value) in [
        ("null", JSONValue.null), ("true", .bool(true)), ("false", .bool(false)),
      ]
      where bytes[offset...].starts(with: word.utf8) {
        offset += word.utf8.count
        return value
      }
      throw problem("this is no value")
    }
  }

  private mutating func object(_ depth: Int) throws(JSONValue.Problem) -> JSONValue {
    var members: [JSONValue.Member] = []
    _ = take("{")
    skipBlanks()
    if take("}") { return .object(members) }
    while true {
      skipBlanks()
      guard next == UInt8(ascii: "\"") else { throw problem("a name is missing") }
      let name = try string()
      skipBlanks()
      guard take(":") else { throw problem("a colon is missing") }
      members.append(.init(name: name, value: try value(depth: depth + 1)))
      skipBlanks()
      if take("}") { return .object(members) }
      guard take(",") else { throw problem("a comma or a brace is missing") }
    }
  }

  private mutating func array(_ depth: Int) throws(JSONValue.Problem) -> JSONValue {
    var elements: [JSONValue] = []
    _ = take("[")
    skipBlanks()
    if take("]") { return .array(elements) }
    while true {
      elements.append(try value(depth: depth + 1))
      skipBlanks()
      if take("]") { return .array(elements) }
      guard take(",") else { throw problem("a comma or a bracket is missing") }
    }
  }

  private mutating func number() throws(JSONValue.Problem) -> String {
    let start = offset
    _ = take("-")
    if !take("0") { try digits() }
    if take(".") { try digits() }
    if take("e") || take("E") {
      _ = take("+") || take("-")
      try digits()
    }
    return String(decoding: bytes[start..<offset], as: UTF8.self)
  }

  private mutating func digits() throws(JSONValue.Problem) {
    let start = offset
    while let byte = next, (0x30...0x39).contains(byte) { offset += 1 }
    guard offset > start else { throw problem("a digit is missing") }
  }

  private mutating func string() throws(JSONValue.Problem) -> String {
    var text: [UInt8] = []
    _ = take("\"")
    while let byte = next {
      switch byte {
      case UInt8(ascii: "\""):
        offset += 1
        guard let text = String(validating: text, as: UTF8.self) else {
          throw problem("the text before is not UTF-8")
        }
        return text
      case UInt8(ascii: "\\"):
        offset += 1
        try escape(into: &text)
      case 0..<0x20: throw problem("a control character stands in a text")
      default:
        text.append(byte)
        offset += 1
      }
    }
    throw problem("a text has no end")
  }

  private static let escapes: [UInt8: UInt8] = [
    UInt8(ascii: "\""): 0x22, UInt8(ascii: "\\"): 0x5C, UInt8(ascii: "/"): 0x2F,
    UInt8(ascii: "b"): 8, UInt8(ascii: "f"): 12, UInt8(ascii: "n"): 10, UInt8(ascii: "r"): 13,
    UInt8(ascii: "t"): 9,
  ]

  private mutating func escape(into text: inout [UInt8]) throws(JSONValue.Problem) {
    guard let letter = next else { throw problem("a text has no end") }
    if let byte = Self.escapes[letter] {
      offset += 1
      return text.append(byte)
    }
    guard take("u") else { throw problem("there is no such escape") }
    var code = try hexadecimal()
    // The half of a character beyond 16 bits: the other one follows.
    if (0xD800..<0xDC00).contains(code), take("\\"), take("u") {
      let low = try hexadecimal()
      guard (0xDC00..<0xE000).contains(low) else { throw problem("half a character") }
      code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
    }
    guard let scalar = Unicode.Scalar(code) else { throw problem("half a character") }
    text += String(scalar).utf8
  }

  private mutating func hexadecimal() throws(JSONValue.Problem) -> UInt32 {
    guard offset + 4 <= bytes.count,
      bytes[offset..<offset + 4].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
      let code = UInt32(String(decoding: bytes[offset..<offset + 4], as: UTF8.self), radix: 16)
    else { throw problem("four hexadecimal digits are missing") }
    offset += 4
    return code
  }
}
