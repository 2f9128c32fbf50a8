import AMQP
import Base

/// What a stream's arguments come to.
struct StreamSettings {
  /// What of a message tells its partition.
  enum Key: Equatable, Sendable {
    case routingKey
    case header(Name)
    case property(PropertyFlags)
  }

  let partitionCount: Int
  let key: Key
  /// How long records are kept, in milliseconds; nil for ever.
  let ageMax: Int64?
  /// Bytes of segments that each partition keeps.
  let bytesMax: Int
  let segmentBytesMax: Int

  static let partitionsMax = 1024
  static let segmentBytes = 4096...3_000_000_000
  private static let segmentBytesUsual = 500_000_000

  /// Of arguments that were checked.
  init(_ arguments: FieldTable) {
    partitionCount = Int(arguments["x-stream-partitions"]?.integer ?? 1)
    key = arguments["x-stream-partition-key"]?.text.flatMap(Self.key) ?? .routingKey
    ageMax = arguments["x-max-age"]?.text.flatMap(Self.age)
    bytesMax = arguments["x-max-length-bytes"]?.integer.map { Int(clamping: $0) } ?? .max
    segmentBytesMax =
      arguments["x-stream-max-segment-size-bytes"]?.integer.map { Int(clamping: $0) }
      ?? Self.segmentBytesUsual
  }

  /// The mistake in a value of one of a stream's own arguments; nil if there is none.
  static func problem(_ name: Name, _ value: FieldValue) -> String? {
    switch name {
    case "x-stream-partitions":
      guard let number = value.integer else { return QueueArguments.noInteger(value) }
      let isPossible = (1...Int64(partitionsMax)).contains(number)
      return isPossible ? nil : "\"a stream has 1 to \(partitionsMax) partitions, not \(number)\""
    case "x-stream-max-segment-size-bytes":
      guard let number = value.integer else { return QueueArguments.noInteger(value) }
      if segmentBytes.contains(Int(clamping: number)) { return nil }
      return "\"expected \(segmentBytes.lowerBound) to \(segmentBytes.upperBound), got \(number)\""
    case "x-stream-partition-key":
      guard let text = value.text else { return "{unacceptable_type,\(value.typeName)}" }
      return key(text) == nil
        ? "\"expected 'routing-key', 'header:NAME' or a property, got '\(text)'\"" : nil
    case "x-max-age":
      guard let text = value.text else { return "{unacceptable_type,\(value.typeName)}" }
      return age(text) == nil ? "{error,invalid_max_age}" : nil
    default: return nil
    }
  }

  private static func key(_ text: String) -> Key? {
    if let name = text.split(separator: ":", maxSplits: 1).last, text.hasPrefix("header:") {
      return name.utf8.count <= 255 && text != "header:" ? .header(Name(String(name))) : nil
    }
    return switch text {
    case "routing-key": .routingKey
    case "message-id": .property(.messageID)
    case "correlation-id": .property(.correlationID)
    case "type": .property(.type)
    case "app-id": .property(.appID)
    case "user-id": .property(.userID)
    case "reply-to": .property(.replyTo)
    default: nil
    }
  }

  /// Milliseconds of a number with a unit, as in `7D`; nil if it is none, or more than ten thousand years.
  static func age(_ text: String) -> Int64? {
    let seconds: [Character: Int64] = [
      "Y": 31_536_000, "M": 2_592_000, "D": 86_400, "h": 3600, "m": 60, "s": 1,
    ]
    guard let last = text.last, let unit = seconds[last], let count = Int64(text.dropLast()),
      text.dropLast().allSatisfy(\.isASCII), text.first != "+", count >= 0
    else { return nil }
    let (sum, isTooMuch) = count.multipliedReportingOverflow(by: unit * 1000)
    return isTooMuch || sum > 315_360_000_000_000 ? nil : sum
  }
}

extension StreamSettings.Key {
  /// Shows the bytes that tell a message's partition; nothing if it has none.
  func withBytes<Result>(
    names: RawSpan, properties: RawSpan, _ body: (RawSpan) -> Result
  ) -> Result? {
    switch self {
    case .routingKey:
      let exchange = Int(names.unsafeLoad(fromByteOffset: 0, as: UInt8.self))
      let key = names.extracting(exchange + 2..<names.byteCount)
      return key.isEmpty ? nil : body(key)
    case .property(let flag):
      guard let place = flag.place(in: properties) else { return nil }
      return place.isEmpty ? nil : body(properties.extracting(place))
    case .header(let name):
      guard let place = PropertyFlags.headers.place(in: properties) else { return nil }
      let headers = properties.extracting(place)
      guard let value = HeaderLookup.place(of: name, in: headers), value.count > 1 else {
        return nil
      }
      // Of strings the text, of others the bytes of the value.
      let letter = headers.unsafeLoad(fromByteOffset: value.lowerBound, as: UInt8.self)
      let isText = letter == UInt8(ascii: "S") || letter == UInt8(ascii: "x")
      let content = value.dropFirst(isText ? 5 : 1)
      return content.isEmpty ? nil : body(headers.extracting(content))
    }
  }
}
