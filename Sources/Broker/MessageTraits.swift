import AMQP
import Base

/// What queues want to know of a message's properties, which were looked at when it came. Each is found without
/// reading all of them, and a message that has none of these costs the test of a bit.
extension MessageView {
  /// How long a message lives by its properties, in milliseconds; nil for ever.
  static func life(in properties: RawSpan) -> Int64? {
    guard hasExpiration(properties), let place = PropertyFlags.expiration.place(in: properties)
    else { return nil }
    return milliseconds(properties.extracting(place))
  }

  /// Whether there is an expiration among the properties.
  static func hasExpiration(_ properties: RawSpan) -> Bool {
    properties.byteCount >= 2
      && properties.unsafeLoad(fromByteOffset: 0, as: UInt8.self) & 1 != 0
  }

  /// Whether entries of the message say something of it: that it expires, or names where it goes as a dead letter.
  static func isMarked(_ properties: RawSpan) -> Bool {
    hasExpiration(properties) || DeadLetterTarget.isNamed(in: properties)
  }

  /// Whether the properties ask for a message that survives a restart.
  static func isPersistent(_ properties: RawSpan) -> Bool {
    guard let place = PropertyFlags.deliveryMode.place(in: properties) else { return false }
    return properties.unsafeLoad(fromByteOffset: place.lowerBound, as: UInt8.self) == 2
  }

  /// The priority among the properties; 0 if there is none.
  static func priority(in properties: RawSpan) -> UInt8 {
    guard let place = PropertyFlags.priority.place(in: properties) else { return 0 }
    return properties.unsafeLoad(fromByteOffset: place.lowerBound, as: UInt8.self)
  }

  /// It says itself where it goes as a dead letter.
  var namesDeadLetterTarget: Bool {
    DeadLetterTarget.isNamed(in: properties(behind: names).bytes)
  }

  /// The value of an expiration: milliseconds in decimal digits. Nil if it is something else, or more than fits.
  static func milliseconds(_ digits: RawSpan) -> Int64? {
    guard digits.byteCount > 0 else { return nil }
    var value: Int64 = 0
    for index in 0..<digits.byteCount {
      let digit = digits.unsafeLoad(fromByteOffset: index, as: UInt8.self) &- UInt8(ascii: "0")
      guard digit < 10 else { return nil }
      let (product, isTooLarge) = value.multipliedReportingOverflow(by: 10)
      let (sum, isOver) = product.addingReportingOverflow(Int64(digit))
      guard !isTooLarge, !isOver else { return nil }
      value = sum
    }
    return value
  }
}
