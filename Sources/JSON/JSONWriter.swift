/// Writes JSON on one line, piece by piece.
package struct JSONWriter {
  package private(set) var bytes: [UInt8] = []
  /// A comma must stand before the next element.
  private var needsComma = false

  package init() {}

  package var text: String { String(decoding: bytes, as: UTF8.self) }

  package mutating func object(_ fields: (inout JSONWriter) -> Void) {
    nested("{", "}", fields)
  }

  package mutating func array(_ elements: (inout JSONWriter) -> Void) {
    nested("[", "]", elements)
  }

  package mutating func value(_ text: some StringProtocol) {
    separate()
    appendQuoted(text)
  }

  package mutating func value(_ number: some BinaryInteger) { literal(String(number)) }

  package mutating func value(_ flag: Bool) { literal(flag ? "true" : "false") }

  /// JSON has no number that is none: `"inf"`, `"-inf"` and `"nan"` are text.
  package mutating func value(_ number: Double) {
    if number.isFinite { literal("\(number)") } else { value("\(number)") }
  }

  package mutating func null() { literal("null") }

  /// A number or a word that is JSON already.
  package mutating func literal(_ word: String) {
    separate()
    bytes += word.utf8
  }

  package mutating func value(_ json: JSONValue) {
    switch json {
    case .null: null()
    case .bool(let flag): value(flag)
    case .number(let word): literal(word)
    case .string(let text): value(text)
    case .array(let elements):
      array { json in
        for element in elements { json.value(element) }
      }
    case .object(let members):
      object { json in
        for member in members {
          json.key(member.name)
          json.value(member.value)
        }
      }
    }
  }

  /// The name of the value that comes next.
  package mutating func key(_ name: some StringProtocol) {
    value(name)
    bytes.append(UInt8(ascii: ":"))
    needsComma = false
  }

  package mutating func field(_ name: String, _ text: String) {
    key(name)
    value(text)
  }

  package mutating func field(_ name: String, _ number: some BinaryInteger) {
    key(name)
    value(number)
  }

  package mutating func field(_ name: String, _ flag: Bool) {
    key(name)
    value(flag)
  }

  private mutating func nested(
    _ opening: Unicode.Scalar, _ closing: Unicode.Scalar, _ body: (inout JSONWriter) -> Void
  ) {
    separate()
    bytes.append(UInt8(ascii: opening))
    needsComma = false
    body(&self)
    bytes.append(UInt8(ascii: closing))
    needsComma = true
  }

  private mutating func separate() {
    if needsComma { bytes.append(UInt8(ascii: ",")) }
    needsComma = true
  }

  private mutating func appendQuoted(_ text: some StringProtocol) {
    bytes.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""): bytes += #"\""#.utf8
      case UInt8(ascii: "\\"): bytes += #"\\"#.utf8
      case UInt8(ascii: "\n"): bytes += #"\n"#.utf8
      case UInt8(ascii: "\r"): bytes += #"\r"#.utf8
      case UInt8(ascii: "\t"): bytes += #"\t"#.utf8
      case 0..<0x20, 0x7F:
        bytes += (byte < 16 ? #"\u000"# : #"\u00"#).utf8
        bytes += String(byte, radix: 16).utf8
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }
}
