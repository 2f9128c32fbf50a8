import Base

/// A value in a field table. The type letters are those that RabbitMQ and its clients use
/// (the 0-9-1 errata), not the specification's.
public indirect enum FieldValue: Equatable, Sendable {
  case void
  case bool(Bool)
  case int8(Int8)
  case uint8(UInt8)
  case int16(Int16)
  case uint16(UInt16)
  case int32(Int32)
  case uint32(UInt32)
  case int64(Int64)
  case float(Float)
  case double(Double)
  /// A decimal: `value` divided by ten to the power of `scale`.
  case decimal(scale: UInt8, value: UInt32)
  /// UTF-8 by custom, any bytes in fact.
  case string([UInt8])
  case bytes([UInt8])
  /// Seconds since 1970.
  case timestamp(UInt64)
  case array([FieldValue])
  case table(FieldTable)

  public static func string(_ text: String) -> FieldValue { .string(Array(text.utf8)) }

  /// The value as an integer, whatever its width; nil for anything else.
  public var integer: Int64? {
    switch self {
    case .int8(let value): Int64(value)
    case .uint8(let value): Int64(value)
    case .int16(let value): Int64(value)
    case .uint16(let value): Int64(value)
    case .int32(let value): Int64(value)
    case .uint32(let value): Int64(value)
    case .int64(let value): value
    case .void, .bool, .float, .double, .decimal, .string, .bytes, .timestamp, .array, .table: nil
    }
  }

  /// The value as text; nil if it is not a string.
  public var text: String? {
    if case .string(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
  }

  /// The name that RabbitMQ's error texts have for the type.
  public var typeName: String {
    switch self {
    case .void: "void"
    case .bool: "bool"
    case .int8: "byte"
    case .uint8: "unsignedbyte"
    case .int16: "short"
    case .uint16: "unsignedshort"
    case .int32: "signedint"
    case .uint32: "unsignedint"
    case .int64: "long"
    case .float: "float"
    case .double: "double"
    case .decimal: "decimal"
    case .string: "longstr"
    case .bytes: "binary"
    case .timestamp: "timestamp"
    case .array: "array"
    case .table: "table"
    }
  }
}

/// Named values in the order in which they were sent. A name that stands twice counts once: the
/// first wins.
public struct FieldTable: Equatable, Sendable, ExpressibleByDictionaryLiteral {
  public struct Entry: Equatable, Sendable {
    public let name: Name
    public let value: FieldValue

    public init(name: Name, value: FieldValue) {
      self.name = name
      self.value = value
    }
  }

  public var entries: [Entry]

  /// Tables and arrays within tables, at most.
  public static let depthMax = 64
  /// Values of a table, with those of the tables and arrays within, at most.
  public static let valuesMax = 16_384

  static let tooDeep = MalformedInput.invalid("tables are nested deeper than \(depthMax)")
  static let tooManyValues = MalformedInput.invalid("a table has more than \(valuesMax) values")

  public init(_ entries: [Entry] = []) {
    self.entries = entries
  }

  public init(dictionaryLiteral elements: (Name, FieldValue)...) {
    entries = elements.map { Entry(name: $0.0, value: $0.1) }
  }

  public var isEmpty: Bool { entries.isEmpty }

  public subscript(name: Name) -> FieldValue? {
    entries.first { $0.name == name }?.value
  }
}
