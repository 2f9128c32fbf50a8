import AMQP
import Base

/// More routing keys that a publisher named in the headers CC and BCC; BCC is not shown to
/// consumers.
struct SenderSelection {
  private(set) var keys: [Name] = []
  let hasBlind: Bool

  /// nil when there are none.
  init?(_ headers: FieldTable) throws(PeerError) {
    let open = headers["CC"]
    let blind = headers["BCC"]
    guard open != nil || blind != nil else { return nil }
    hasBlind = blind != nil
    for (name, value) in [("CC", open), ("BCC", blind)] {
      guard let value else { continue }
      guard case .array(let elements) = value else {
        throw .invalidHeader(
          reason: "{unacceptable_type_in_header,<<\"\(name)\">>,\(value.typeName)}")
      }
      for element in elements {
        guard case .string(let bytes) = element else {
          throw .invalidHeader(
            reason: "{unacceptable_type_in_header,<<\"\(name)\">>,\(element.typeName)}")
        }
        keys.append(Name(bytes))
      }
    }
  }

  /// The property block without the header BCC.
  func strippingBlind(from headers: FieldTable, properties: RawSpan) -> [UInt8] {
    var table = headers
    table.entries.removeAll { $0.name == "BCC" }
    var decoded: BasicProperties
    do throws(MalformedInput) {
      var reader = ByteReader(properties)
      decoded = try BasicProperties(from: &reader)
    } catch {
      invariantFailed("properties that were read before are malformed")
    }
    decoded.headers = table
    var buffer = ByteBuffer(capacity: properties.byteCount)
    decoded.encode(into: &buffer)
    return Array(buffer.readable)
  }
}
