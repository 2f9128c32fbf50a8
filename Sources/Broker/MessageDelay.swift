import AMQP
import Base

/// The header `x-delay`: how long an exchange that delays keeps a message back, in milliseconds. A message that
/// was kept has it negated, as consumers of RabbitMQ's plug-in know it, and is not kept again.
enum MessageDelay {
  private static let name: StaticString = "x-delay"

  /// How long the message is to be kept back; 0 if it is not. Negative delays are those of messages that were
  /// kept already.
  static func milliseconds(in headers: RawSpan) throws(BrokerError) -> Int64 {
    guard let found = find(headers) else { return 0 }
    guard let delay = found.value.integer else {
      throw .refusedDelay(reason: "expected an integer, got \(found.value.typeName)")
    }
    guard delay <= QueueSettings.lifeMax else {
      throw .refusedDelay(reason: "\(delay) is more than \(QueueSettings.lifeMax), ten years")
    }
    return max(0, delay)
  }

  /// When a message that is kept back is due, as a date.
  static func due(_ view: MessageView) -> Int64 {
    let properties = view.properties(behind: view.names)
    return view.storedAt &+ milliseconds(in: properties.bytes, or: 0)
  }

  /// As `milliseconds`, of a message that was looked at when it came.
  private static func milliseconds(in properties: RawSpan, or other: Int64) -> Int64 {
    do throws(MalformedInput) {
      let headers = try PropertyBlock(properties).headers
      return find(properties.extracting(headers))?.value.integer ?? other
    } catch {
      return other
    }
  }

  /// The properties with the delay negated. `headers` is where they have the table.
  static func negated(_ properties: RawSpan, headers: Range<Int>) -> [UInt8] {
    guard let found = find(properties.extracting(headers)), let delay = found.value.integer else {
      return properties.withUnsafeBytes { Array($0) }
    }
    let value = headers.lowerBound + found.range.lowerBound + 1
    let end = headers.lowerBound + found.range.upperBound
    guard delay <= Int64.max >> Int64(64 - 8 * (end - value)) else {
      return negatedWidely(properties, -delay)
    }
    var bytes = properties.withUnsafeBytes { Array($0) }
    let negative = UInt64(bitPattern: -delay)
    for index in value..<end {
      bytes[index] = UInt8(truncatingIfNeeded: negative >> UInt64(8 * (end - 1 - index)))
    }
    if let signed = signed(bytes[value - 1]) { bytes[value - 1] = signed }
    return bytes
  }

  /// The signed type of the same size; nil for a type that is signed.
  private static func signed(_ letter: UInt8) -> UInt8? {
    switch letter {
    case UInt8(ascii: "B"): UInt8(ascii: "b")
    case UInt8(ascii: "u"): UInt8(ascii: "s")
    case UInt8(ascii: "i"): UInt8(ascii: "I")
    default: nil
    }
  }

  /// The same for an unsigned value whose negative needs more bytes than it has.
  private static func negatedWidely(_ properties: RawSpan, _ negative: Int64) -> [UInt8] {
    var decoded: BasicProperties
    do throws(MalformedInput) {
      var reader = ByteReader(properties)
      decoded = try BasicProperties(from: &reader)
    } catch {
      invariantFailed("properties that were read before are malformed")
    }
    let key: Name = "x-delay"
    if let index = decoded.headers?.entries.firstIndex(where: { $0.name == key }) {
      decoded.headers?.entries[index] = FieldTable.Entry(name: key, value: .int64(negative))
    }
    var buffer = ByteBuffer(capacity: properties.byteCount + 8)
    decoded.encode(into: &buffer)
    return Array(buffer.readable)
  }

  /// The header's value, and where it is with its type letter in the table's bytes.
  private static func find(_ headers: RawSpan) -> (value: FieldValue, range: Range<Int>)? {
    guard let place = HeaderLookup.place(of: name, in: headers) else { return nil }
    do throws(MalformedInput) {
      var reader = ByteReader(headers.extracting(place))
      return (try reader.fieldValue(), place)
    } catch {
      // Whoever publishes has the whole table looked at.
      return nil
    }
  }
}
