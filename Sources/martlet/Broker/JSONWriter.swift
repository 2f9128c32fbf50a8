/// Writes JSON on one line, piece by piece.
struct JSONWriter {
  private(set) var bytes: [UInt8] = []
  /// A comma must stand before the next element.
  private var needsComma = false

  var text: String { String(decoding: bytes, as: UTF8.self) }

  mutating func object(_ fields: (inout JSONWriter) -> Void) {
    nested("{", "}", fields)
  }

  mutating func array(_ elements: (inout JSONWriter) -> Void) {
    nested("[", "]", elements)
  }

  mutating func value(_ text: some StringProtocol) {
    separate()
    appendQuoted(text)
  }

  mutating func value(_ number: some BinaryInteger) { literal(String(number)) }

  mutating func value(_ flag: Bool) { literal(flag ? "true" : "false") }

  /// JSON has no word for what is not a number: null.
  mutating func value(_ number: Double) { literal(number.isFinite ? "\(number)" : "null") }

  mutating func null() { literal("null") }

  /// A number or a word that is JSON already.
  mutating func literal(_ word: String) {
    separate()
    bytes += word.utf8
  }

  /// The name of the value that comes next.
  mutating func key(_ name: some StringProtocol) {
    value(name)
    bytes.append(UInt8(ascii: ":"))
    needsComma = false
  }

  mutating func field(_ name: String, _ text: String) {
    key(name)
    value(text)
  }

  mutating func field(_ name: String, _ number: some BinaryInteger) {
    key(name)
    value(number)
  }

  mutating func field(_ name: String, _ flag: Bool) {
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

/// Bytes as text, three in four letters.
enum Base64 {
  private static let letters = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  static func encode(_ bytes: [UInt8]) -> String {
    var result: [UInt8] = []
    result.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let taken = min(3, bytes.count - start)
      let group = (0..<3).reduce(0) { group, index in
        group << 8 | (index < taken ? Int(bytes[start + index]) : 0)
      }
      for index in 0..<4 {
        let isPadding = index > taken
        result.append(
          isPadding ? UInt8(ascii: "=") : letters[group >> (18 - 6 * index) & 63])
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}
