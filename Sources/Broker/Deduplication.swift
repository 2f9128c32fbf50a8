import AMQP
import Base
import Filters

/// What an exchange or a queue asks for with the argument `x-message-deduplication`: messages of which one with
/// the same value of a header came lately are dropped.
struct Deduplication {
  /// The header whose value tells messages apart.
  let header: Name
  /// Values that are remembered at most; the oldest are forgotten.
  let sizeMax: Int
  /// How long a value is remembered, in milliseconds; nil for as long as there is room.
  let ttl: Int64?

  static let sizeDefault = 128
  private static let ttlHeader: Name = "x-cache-ttl"

  /// Of arguments that were checked; nil if they do not ask for it.
  init?(_ arguments: FieldTable, isAskedFor: Bool = false) {
    guard isAskedFor || arguments["x-message-deduplication"] == .bool(true) else { return nil }
    header = Name(arguments["x-deduplication-header"]?.text ?? "x-deduplication-header")
    sizeMax = Self.number(arguments["x-cache-size"]).map { Int($0) } ?? Self.sizeDefault
    ttl = Self.number(arguments["x-cache-ttl"])
  }

  /// A number, which some clients write as text.
  static func number(_ value: FieldValue?) -> Int64? {
    value.flatMap { $0.integer ?? $0.text.flatMap { Int64($0) } }
  }

  /// The mistake in an argument, if there is one.
  static func problem(_ value: FieldValue, _ rule: QueueArguments.Rule) -> String? {
    guard let number = number(value) else { return "{unacceptable_type,\(value.typeName)}" }
    if number < 1 { return "{value_zero_or_less,\(number)}" }
    let limit =
      rule == .rememberedCount
      ? Int64(BrokerLimits.rememberedValuesMax) : QueueSettings.lifeMax
    return number > limit ? "{value_too_big,\(number)}" : nil
  }

  /// The value of a message, in a form that is the same exactly when the values are equal; nil if it has
  /// none. Long ones are represented by hashes of them. `headers` is a well-formed table or nothing.
  func value(in headers: RawSpan, _ walk: inout RouteWalk) -> [UInt8]? {
    let form = HashSource.form(of: header, in: headers, &walk).bytes
    guard form.count > Self.valueBytesMax else {
      return form.isEmpty || form == Self.void ? nil : form
    }
    return form.withUnsafeBytes { bytes in
      var short = [UInt8(ascii: "h")]
      for seed in [1, 2] as [UInt64] {
        withUnsafeBytes(of: StableHash.hash(bytes, seed: seed).littleEndian) { short += $0 }
      }
      return short
    }
  }

  /// Bytes of values that are remembered as they are.
  private static let valueBytesMax = 128
  private static let void = HeaderForm(.void)?.bytes

  /// Until when the value of such a message is remembered, as a date; 0 for as long as there is room. The
  /// message may say for how long itself.
  func until(_ headers: RawSpan, now: Int64, _ walk: inout RouteWalk) -> Int64 {
    let own = HashSource.integer(of: Self.ttlHeader, in: headers, &walk)
    guard let ttl = own.flatMap({ $0 > 0 ? $0 : nil }) ?? ttl else { return 0 }
    return now + min(ttl, QueueSettings.lifeMax)
  }
}

/// A value that is to be remembered once its message is stored.
struct Remembrance {
  let values: SeenValues
  let value: [UInt8]
  /// A date, or 0.
  let until: Int64
}
