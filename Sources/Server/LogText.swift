/// Words of clients and files made fit to be shown: nothing in them forges a line, moves a terminal's
/// cursor or turns the writing direction, and nothing goes on for ever.
public enum LogText {
  /// Names that clients choose are cut here.
  static let nameLengthMax = 128
  static let lineBytesMax = 4096

  /// `text` with controls, format characters and line separators as `\u{…}`.
  public static func printable(_ text: String) -> String {
    var isPlain = true
    for byte in text.utf8 where byte < 0x20 || byte >= 0x7F {
      isPlain = false
      break
    }
    if isPlain { return text }
    return text.unicodeScalars.reduce(into: "") { result, scalar in
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator:
        result += "\\u{\(String(scalar.value, radix: 16))}"
      default: result.unicodeScalars.append(scalar)
      }
    }
  }

  /// A printable line, cut with the number of bytes that are left out.
  static func line(_ text: String) -> String {
    let text = printable(text)
    guard text.utf8.count > lineBytesMax else { return text }
    var end = text.utf8.index(text.startIndex, offsetBy: lineBytesMax)
    while end.samePosition(in: text.unicodeScalars) == nil { end = text.utf8.index(before: end) }
    return "\(text[..<end])… (\(text[end...].utf8.count) more bytes)"
  }

  /// A name that a client chose, of a length that suits a line.
  static func name(_ text: String) -> String {
    let scalars = text.unicodeScalars
    guard
      let end = scalars.index(
        scalars.startIndex, offsetBy: nameLengthMax, limitedBy: scalars.endIndex),
      end < scalars.endIndex
    else { return text }
    return String(scalars[..<end]) + "…"
  }
}
