import AMQP
import Base

/// The property `expiration`: milliseconds in decimal digits, at most ten years.
enum Expiration {
  /// What is wrong with one that a publisher sends, in the words that clients know from RabbitMQ; nil if it
  /// is right.
  static func problem(_ value: RawSpan) -> String? {
    if let milliseconds = MessageView.milliseconds(value) {
      guard milliseconds > QueueSettings.lifeMax else { return nil }
      return "{value_too_large,\(milliseconds)}"
    }
    let text = Name(copying: value).description
    let isNegative = text.hasPrefix("-")
    let behind = text.dropFirst(isNegative ? 1 : 0)
    let digits = behind.prefix { $0.isASCII && $0.isWholeNumber }
    guard !digits.isEmpty else { return "no_integer" }
    let left = behind.dropFirst(digits.count)
    guard left.isEmpty else { return "{leftover_string,\"\(left)\"}" }
    return isNegative ? "{value_negative,\(text)}" : "{value_too_large,\(text)}"
  }
}
