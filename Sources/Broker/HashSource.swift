import AMQP
import Base
import Filters

/// What of a message a hash is made of. A message that lacks it counts as one where it is empty.
enum HashSource {
  case key
  case header(Name)
  case property(PropertyFlags)

  /// Headers of a message that cost about as much as a look-up elsewhere.
  private static let headersPerStep = 4

  /// By arguments that were checked.
  init(_ arguments: FieldTable) {
    if let name = (arguments["hash-header"] ?? arguments["x-hash-on"])?.text {
      self = .header(Name(name))
    } else if let property = arguments["hash-property"]?.text.flatMap(Self.property) {
      self = .property(property)
    } else {
      self = .key
    }
  }

  static func property(_ name: String) -> PropertyFlags? {
    switch name {
    case "correlation_id": .correlationID
    case "message_id": .messageID
    case "timestamp": .timestamp
    default: nil
    }
  }

  func hash(_ key: Name, _ message: FilteredMessage, _ walk: inout RouteWalk) -> UInt64 {
    switch self {
    case .key: return key.bytes.withUnsafeBytes { StableHash.hash($0) }
    case .header(let name):
      return Self.form(of: name, in: message.headerTable, &walk).bytes.withUnsafeBytes {
        StableHash.hash($0)
      }
    case .property(let property):
      let place = property.place(in: message.propertyBlock) ?? 0..<0
      return message.propertyBlock.extracting(place).withUnsafeBytes { StableHash.hash($0) }
    }
  }

  /// The value of a header; an empty form if there is none, or it equals nothing. Of a name that stands
  /// twice the first counts.
  static func form(
    of wanted: Name, in headers: RawSpan, _ walk: inout RouteWalk
  ) -> HeaderForm {
    let place = place(of: wanted, in: headers, &walk)
    var form = HeaderForm()
    guard !place.isEmpty else { return form }
    do throws(MalformedInput) {
      return try form.read(headers.extracting(place)) ? form : HeaderForm()
    } catch {
      invariantFailed("headers that were read before are malformed: \(error.reason)")
    }
  }

  /// The value of a header that is an integer.
  static func integer(
    of wanted: Name, in headers: RawSpan, _ walk: inout RouteWalk
  ) -> Int64? {
    let place = place(of: wanted, in: headers, &walk)
    guard !place.isEmpty else { return nil }
    do throws(MalformedInput) {
      var reader = ByteReader(headers.extracting(place))
      return try reader.fieldValue().integer
    } catch {
      invariantFailed("headers that were read before are malformed: \(error.reason)")
    }
  }

  /// Whether a header is the boolean true.
  static func isTrue(_ wanted: Name, in headers: RawSpan, _ walk: inout RouteWalk) -> Bool {
    let place = place(of: wanted, in: headers, &walk)
    guard place.count == 2 else { return false }
    return headers.unsafeLoad(fromByteOffset: place.lowerBound, as: UInt8.self) == UInt8(ascii: "t")
      && headers.unsafeLoad(fromByteOffset: place.lowerBound + 1, as: UInt8.self) != 0
  }

  /// Where a header's value is, with its type letter; empty if there is none.
  private static func place(
    of wanted: Name, in headers: RawSpan, _ walk: inout RouteWalk
  ) -> Range<Int> {
    guard !headers.isEmpty else { return 0..<0 }
    do throws(MalformedInput) {
      var count = 0
      var cursor = try FieldTableCursor(headers)
      while try cursor.next() {
        count += 1
        guard count % headersPerStep != 0 || walk.step() else { return 0..<0 }
        let isWanted = headers.extracting(cursor.name).withUnsafeBytes {
          $0.elementsEqual(wanted.bytes)
        }
        if isWanted { return cursor.value }
      }
      return 0..<0
    } catch {
      invariantFailed("headers that were read before are malformed: \(error.reason)")
    }
  }
}
