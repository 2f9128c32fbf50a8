import AMQP
import Base

/// Whose message it is, and which of theirs, as two of its headers say: a stream stores it once.
struct ProducerMark {
  let producer: Name
  /// Each message of a producer has a higher one than those before.
  let sequence: UInt64

  private static let producerHeader: StaticString = "x-stream-producer"
  private static let sequenceHeader: StaticString = "x-stream-sequence"

  /// Of properties that were looked at when they came; nil if they name no producer.
  init?(in properties: RawSpan) throws(BrokerError) {
    guard let place = PropertyFlags.headers.place(in: properties) else { return nil }
    let headers = properties.extracting(place)
    guard HeaderLookup.mayHave(Self.producerHeader, in: headers),
      let producer = Self.value(of: Self.producerHeader, in: headers)
    else { return nil }
    guard case .string(let name) = producer else {
      throw Self.refused(Self.producerHeader, producer)
    }
    guard (1...255).contains(name.count) else {
      throw .refusedMessage(reason: "\"expected a producer's name of 1 to 255 bytes\"")
    }
    guard let value = Self.value(of: Self.sequenceHeader, in: headers) else {
      throw .refusedMessage(reason: "\"a message of a producer lacks \(Self.sequenceHeader)\"")
    }
    guard let number = value.integer else { throw Self.refused(Self.sequenceHeader, value) }
    guard let sequence = UInt64(exactly: number) else {
      throw .refusedMessage(reason: "{value_negative,\(number)}")
    }
    self.producer = Name(name)
    self.sequence = sequence
  }

  private static func value(of header: StaticString, in headers: RawSpan) -> FieldValue? {
    guard let place = HeaderLookup.place(of: header, in: headers) else { return nil }
    do throws(MalformedInput) {
      var reader = ByteReader(headers.extracting(place))
      return try reader.fieldValue()
    } catch {
      invariantFailed("headers that were read when they came are malformed: \(error.reason)")
    }
  }

  private static func refused(_ header: StaticString, _ value: FieldValue) -> BrokerError {
    .refusedMessage(
      reason: "{unacceptable_type_in_header,<<\"\(header)\">>,\(value.typeName)}")
  }
}
