import Client
import JSON

/// How messages are printed.
enum MessageFormat: String, CaseIterable, Sendable {
  /// The body, and a line end unless it has one.
  case text
  /// The body and nothing else.
  case raw
  /// A line of JSON with everything there is.
  case json

  static let option = Option.value(
    "format", short: "f", "FORMAT", as: .choice, default: MessageFormat.text, shown: "text",
    """
    text prints each body and ends its line, raw prints the body alone, json prints a line with \
    exchange, key, redelivered, properties, headers and body (body_base64 when it is not UTF-8), \
    which publish --format json takes.
    """)

  /// The bytes to print. `remaining` is how many messages the queue holds behind this one, where
  /// that is known.
  func bytes(of delivery: Delivery, remaining: Int? = nil) -> [UInt8] {
    switch self {
    case .raw: return delivery.body
    case .text:
      let newline = UInt8(ascii: "\n")
      return delivery.body.last == newline ? delivery.body : delivery.body + [newline]
    case .json:
      var json = JSONWriter()
      json.object { MessageJSON.write(delivery, remaining, into: &$0) }
      return json.bytes + [UInt8(ascii: "\n")]
    }
  }
}
