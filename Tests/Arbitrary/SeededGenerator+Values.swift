import AMQP
import Base

/// Values of AMQP, the small and the extreme ones more often than chance would have them.
extension SeededGenerator {
  public mutating func integer<Value: FixedWidthInteger>(_: Value.Type = Value.self) -> Value {
    switch number(0...7) {
    case 0: 0
    case 1: 1
    case 2: .max
    case 3: .min
    case 4: .max / 2
    case 5: .max - 1
    default: Value(truncatingIfNeeded: next())
    }
  }

  /// So many random bytes.
  public mutating func bytes(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + 8)
    while bytes.count < count {
      withUnsafeBytes(of: next()) { bytes.append(contentsOf: $0) }
    }
    bytes.removeLast(bytes.count - count)
    return bytes
  }

  /// Random bytes, a few mostly, none and `max` at times.
  public mutating func bytes(upTo max: Int) -> [UInt8] {
    switch number(0...9) {
    case 0: []
    case 1: bytes(max)
    case 2: bytes(number(0...max))
    default: bytes(number(0...min(max, 12)))
    }
  }

  /// At most 255 bytes, which need not be text.
  public mutating func name() -> Name {
    Name(bytes(upTo: Name.sizeMax))
  }

  /// `depth` more tables and arrays may be nested in it.
  public mutating func fieldTable(depth: Int = 3) -> FieldTable {
    FieldTable(
      (0..<number(0...4)).map { _ in
        FieldTable.Entry(name: name(), value: fieldValue(depth: depth))
      })
  }

  /// Numbers are never "not a number", which would not equal itself.
  public mutating func fieldValue(depth: Int = 3) -> FieldValue {
    switch number(0...(depth > 0 ? 17 : 15)) {
    case 0: .void
    case 1: .bool(flag())
    case 2: .int8(integer())
    case 3: .uint8(integer())
    case 4: .int16(integer())
    case 5: .uint16(integer())
    case 6: .int32(integer())
    case 7: .uint32(integer())
    case 8: .int64(integer())
    case 9: .float(Float(integer(Int32.self)) / 8)
    case 10: .double(Double(integer(Int64.self)) / 8)
    case 11: .decimal(scale: integer(), value: integer())
    case 12: .string(bytes(upTo: 300))
    case 13: .bytes(bytes(upTo: 300))
    case 14: .timestamp(integer())
    case 15: .string(name().description)
    case 16: .array((0..<number(0...4)).map { _ in fieldValue(depth: depth - 1) })
    default: .table(fieldTable(depth: depth - 1))
    }
  }

  /// Properties with exactly these flags.
  public mutating func properties(_ flags: PropertyFlags) -> BasicProperties {
    var properties = BasicProperties()
    if flags.contains(.contentType) { properties.contentType = name() }
    if flags.contains(.contentEncoding) { properties.contentEncoding = name() }
    if flags.contains(.headers) { properties.headers = fieldTable(depth: 1) }
    if flags.contains(.deliveryMode) { properties.deliveryMode = UInt8(number(0...3)) }
    if flags.contains(.priority) { properties.priority = integer() }
    if flags.contains(.correlationID) { properties.correlationID = name() }
    if flags.contains(.replyTo) { properties.replyTo = name() }
    if flags.contains(.expiration) { properties.expiration = name() }
    if flags.contains(.messageID) { properties.messageID = name() }
    if flags.contains(.timestamp) { properties.timestamp = integer() }
    if flags.contains(.type) { properties.type = name() }
    if flags.contains(.userID) { properties.userID = name() }
    if flags.contains(.appID) { properties.appID = name() }
    if flags.contains(.clusterID) { properties.clusterID = name() }
    return properties
  }

  /// Properties with any flags.
  public mutating func properties() -> BasicProperties {
    properties(PropertyFlags(rawValue: UInt16(truncatingIfNeeded: next()) & ~0b11))
  }
}
