import AMQP
import Base

/// Values of headers as bytes that are the same exactly when the values are equal.
struct HeaderForm {
  private(set) var bytes: [UInt8] = []

  var hash: UInt64 { bytes.withUnsafeBytes { SeededHash.hash($0) } }

  init() {}

  /// nil if the value equals nothing, not even itself.
  init?(_ value: FieldValue) {
    guard append(value) else { return nil }
  }

  /// Becomes the form of a value in the bytes of a table, with its type letter; false if it equals
  /// nothing. The bytes were found well-formed.
  mutating func read(_ value: RawSpan) throws(MalformedInput) -> Bool {
    bytes.removeAll(keepingCapacity: true)
    var reader = ByteReader(value)
    let letter = try reader.u8()
    switch letter {
    case UInt8(ascii: "b"): append(Int64(Int8(bitPattern: try reader.u8())))
    case UInt8(ascii: "B"): append(Int64(try reader.u8()))
    case UInt8(ascii: "s"), UInt8(ascii: "U"): append(Int64(Int16(bitPattern: try reader.u16())))
    case UInt8(ascii: "u"): append(Int64(try reader.u16()))
    case UInt8(ascii: "I"): append(Int64(Int32(bitPattern: try reader.u32())))
    case UInt8(ascii: "i"): append(Int64(try reader.u32()))
    case UInt8(ascii: "l"), UInt8(ascii: "L"): append(Int64(bitPattern: try reader.u64()))
    case UInt8(ascii: "f"): return append(Double(Float(bitPattern: try reader.u32())))
    case UInt8(ascii: "d"): return append(Double(bitPattern: try reader.u64()))
    case UInt8(ascii: "S"), UInt8(ascii: "x"):
      bytes.append(letter)
      value.extracting(5..<value.byteCount).withUnsafeBytes { bytes.append(contentsOf: $0) }
    default:
      reader = ByteReader(value)
      return append(try reader.fieldValue())
    }
    return true
  }

  private mutating func append(_ value: FieldValue) -> Bool {
    if let integer = value.integer {
      append(integer)
      return true
    }
    switch value {
    case .float(let number): return append(Double(number))
    case .double(let number): return append(number)
    case .string(let text): bytes = [UInt8(ascii: "S")] + text
    case .bytes(let binary): bytes = [UInt8(ascii: "x")] + binary
    default:
      // Within arrays and tables, values are equal only if they have the same type.
      guard let value = Self.normalised(value) else { return false }
      var buffer = ByteBuffer()
      buffer.append(FieldTable([.init(name: "", value: value)]))
      bytes = [UInt8(ascii: "F")] + Array(buffer.readable)
    }
    return true
  }

  private mutating func append(_ integer: Int64) {
    bytes.append(UInt8(ascii: "l"))
    withUnsafeBytes(of: integer.bigEndian) { bytes.append(contentsOf: $0) }
  }

  private mutating func append(_ real: Double) -> Bool {
    guard !real.isNaN else { return false }
    if let integer = Int64(exactly: real) {
      append(integer)
    } else {
      bytes.append(UInt8(ascii: "d"))
      withUnsafeBytes(of: real.bitPattern.bigEndian) { bytes.append(contentsOf: $0) }
    }
    return true
  }

  /// Zeros without their sign; nil if there is a number that is none.
  private static func normalised(_ value: FieldValue) -> FieldValue? {
    switch value {
    case .float(let number):
      return number.isNaN ? nil : .float(number == 0 ? 0 : number)
    case .double(let number):
      return number.isNaN ? nil : .double(number == 0 ? 0 : number)
    case .array(let values):
      let all = values.compactMap(normalised)
      return all.count == values.count ? .array(all) : nil
    case .table(let table):
      let all = table.entries.compactMap { entry in
        normalised(entry.value).map { FieldTable.Entry(name: entry.name, value: $0) }
      }
      return all.count == table.entries.count ? .table(FieldTable(all)) : nil
    default: return value
    }
  }
}
