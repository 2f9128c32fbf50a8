import AMQP
import Base

/// More routing keys that a publisher named in the headers CC and BCC; BCC is not shown to
/// consumers.
struct SenderSelection {
  private var keys: [Name] = []
  private(set) var hasBlind = false

  /// Looks at all headers, a table with its length or nothing; nil when neither of the two is there.
  init?(in headers: RawSpan, keysMax: Int) throws(BrokerError) {
    guard !headers.isEmpty else { return nil }
    let found: (open: FieldValue?, blind: FieldValue?)
    do throws(MalformedInput) {
      found = try Self.find(headers)
    } catch {
      throw .malformedProperties(reason: error.reason)
    }
    guard found.open != nil || found.blind != nil else { return nil }
    hasBlind = found.blind != nil
    try add(found.open, named: "CC", keysMax)
    try add(found.blind, named: "BCC", keysMax)
  }

  /// The key of the message and these, each once.
  func keys(with key: Name) -> [Name] {
    var seen: Set<Name> = [key]
    return [key] + keys.filter { seen.insert($0).inserted }
  }

  /// The values of the two headers; of one that stands twice the first counts.
  private static func find(
    _ headers: RawSpan
  ) throws(MalformedInput) -> (open: FieldValue?, blind: FieldValue?) {
    var open: FieldValue?
    var blind: FieldValue?
    var cursor = try FieldTableCursor(headers)
    while try cursor.next() {
      guard cursor.name.count == 2 || cursor.name.count == 3 else { continue }
      let name = headers.extracting(cursor.name)
      let isOpen = open == nil && HeaderLookup.equals(name, "CC")
      guard isOpen || blind == nil && HeaderLookup.equals(name, "BCC") else { continue }
      var reader = ByteReader(headers.extracting(cursor.value))
      let value = try reader.fieldValue()
      if isOpen { open = value } else { blind = value }
    }
    return (open, blind)
  }

  private mutating func add(
    _ value: FieldValue?, named name: String, _ keysMax: Int
  ) throws(BrokerError) {
    guard let value else { return }
    guard case .array(let elements) = value else {
      throw .refusedMessage(
        reason: "{unacceptable_type_in_header,<<\"\(name)\">>,\(value.typeName)}")
    }
    guard keys.count + elements.count <= keysMax else {
      throw .limitReached(.routingKeys(count: keys.count + elements.count, max: keysMax))
    }
    for element in elements {
      guard case .string(let bytes) = element else {
        throw .refusedMessage(
          reason: "{unacceptable_type_in_header,<<\"\(name)\">>,\(element.typeName)}")
      }
      keys.append(Name(bytes))
    }
  }

  /// The property block without the header BCC.
  static func strippingBlind(from properties: RawSpan) -> [UInt8] {
    var decoded: BasicProperties
    do throws(MalformedInput) {
      var reader = ByteReader(properties)
      decoded = try BasicProperties(from: &reader)
    } catch {
      invariantFailed("properties that were read before are malformed")
    }
    decoded.headers?.entries.removeAll { $0.name == "BCC" }
    var buffer = ByteBuffer(capacity: properties.byteCount)
    decoded.encode(into: &buffer)
    return Array(buffer.readable)
  }
}
