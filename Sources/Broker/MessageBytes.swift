import AMQP
import Base

/// Messages that the broker makes or makes anew, as bytes.
enum MessageBytes {
  /// Bytes of headers that fit into a frame of the usual size, with the other properties.
  static let headersMax = 120_000

  /// The table fits into a frame, and does not have more values than one may have, as small ones cannot.
  static func isReadable(_ table: FieldTable) -> Bool {
    let bytes = encoded { $0.append(table) }
    guard bytes.count <= headersMax else { return false }
    return bytes.count <= FieldTable.valuesMax || canRead(bytes)
  }

  /// A reader takes the table, with all that it has within.
  static func canRead(_ table: [UInt8]) -> Bool {
    do throws(MalformedInput) {
      var reader = ByteReader(table.span.bytes)
      _ = try reader.fieldTable()
      return true
    } catch {
      return false
    }
  }

  /// A table that was encoded before, with its length; no bytes are an empty one.
  static func table(_ encoded: [UInt8]) -> FieldTable {
    guard !encoded.isEmpty else { return [:] }
    do throws(MalformedInput) {
      var reader = ByteReader(encoded.span.bytes)
      return try reader.fieldTable()
    } catch {
      invariantFailed("a table that was just made is malformed")
    }
  }

  /// The properties of a message that was stored.
  static func decode(_ properties: RawSpan) -> BasicProperties {
    do throws(MalformedInput) {
      var reader = ByteReader(properties)
      return try BasicProperties(from: &reader)
    } catch {
      invariantFailed("properties that were read when they came are malformed")
    }
  }

  /// Where the properties of a message that was stored have what.
  static func block(_ properties: RawSpan) -> PropertyBlock {
    do throws(MalformedInput) {
      return try PropertyBlock(properties)
    } catch {
      invariantFailed("properties that were read when they came are malformed")
    }
  }

  /// Where properties that were just made have the table of headers, with its length.
  static func headers(_ properties: [UInt8]) -> Range<Int> {
    do throws(MalformedInput) {
      return try PropertyBlock(properties.span.bytes).headers
    } catch {
      invariantFailed("properties that were just made are malformed")
    }
  }

  static func encoded(_ body: (inout ByteBuffer) -> Void) -> [UInt8] {
    var buffer = ByteBuffer()
    body(&buffer)
    return Array(buffer.readable)
  }
}
