import Base

/// The properties of a message. The broker keeps the bytes as they came and looks only at what it
/// needs (`PropertyBlock`); this is the whole of them, for clients and tools.
public struct BasicProperties: Equatable, Sendable {
  public var contentType: Name?
  public var contentEncoding: Name?
  public var headers: FieldTable?
  /// 1 transient, 2 persistent.
  public var deliveryMode: UInt8?
  public var priority: UInt8?
  public var correlationID: Name?
  public var replyTo: Name?
  /// Milliseconds to live, as decimal digits.
  public var expiration: Name?
  public var messageID: Name?
  /// Seconds since 1970.
  public var timestamp: UInt64?
  public var type: Name?
  public var userID: Name?
  public var appID: Name?
  public var clusterID: Name?

  public init() {}

  public init(from reader: inout ByteReader) throws(MalformedInput) {
    let flags = try PropertyFlags(from: &reader)
    if flags.contains(.contentType) { contentType = try reader.name() }
    if flags.contains(.contentEncoding) { contentEncoding = try reader.name() }
    if flags.contains(.headers) { headers = try reader.fieldTable() }
    if flags.contains(.deliveryMode) { deliveryMode = try reader.u8() }
    if flags.contains(.priority) { priority = try reader.u8() }
    if flags.contains(.correlationID) { correlationID = try reader.name() }
    if flags.contains(.replyTo) { replyTo = try reader.name() }
    if flags.contains(.expiration) { expiration = try reader.name() }
    if flags.contains(.messageID) { messageID = try reader.name() }
    if flags.contains(.timestamp) { timestamp = try reader.u64() }
    if flags.contains(.type) { type = try reader.name() }
    if flags.contains(.userID) { userID = try reader.name() }
    if flags.contains(.appID) { appID = try reader.name() }
    if flags.contains(.clusterID) { clusterID = try reader.name() }
  }

  /// Writes the flags and the values behind them.
  public func encode(into buffer: inout ByteBuffer) {
    buffer.append(flags.rawValue)
    if let contentType { buffer.append(contentType) }
    if let contentEncoding { buffer.append(contentEncoding) }
    if let headers { buffer.append(headers) }
    if let deliveryMode { buffer.append(deliveryMode) }
    if let priority { buffer.append(priority) }
    if let correlationID { buffer.append(correlationID) }
    if let replyTo { buffer.append(replyTo) }
    if let expiration { buffer.append(expiration) }
    if let messageID { buffer.append(messageID) }
    if let timestamp { buffer.append(timestamp) }
    if let type { buffer.append(type) }
    if let userID { buffer.append(userID) }
    if let appID { buffer.append(appID) }
    if let clusterID { buffer.append(clusterID) }
  }

  private var flags: PropertyFlags {
    var flags: PropertyFlags = []
    if contentType != nil { flags.insert(.contentType) }
    if contentEncoding != nil { flags.insert(.contentEncoding) }
    if headers != nil { flags.insert(.headers) }
    if deliveryMode != nil { flags.insert(.deliveryMode) }
    if priority != nil { flags.insert(.priority) }
    if correlationID != nil { flags.insert(.correlationID) }
    if replyTo != nil { flags.insert(.replyTo) }
    if expiration != nil { flags.insert(.expiration) }
    if messageID != nil { flags.insert(.messageID) }
    if timestamp != nil { flags.insert(.timestamp) }
    if type != nil { flags.insert(.type) }
    if userID != nil { flags.insert(.userID) }
    if appID != nil { flags.insert(.appID) }
    if clusterID != nil { flags.insert(.clusterID) }
    return flags
  }
}

/// Which properties follow, the first in the highest bit. The lowest bit would say that another
/// sixteen flags follow; no property has them.
public struct PropertyFlags: OptionSet, Sendable {
  public let rawValue: UInt16

  public init(rawValue: UInt16) { self.rawValue = rawValue }

  @_lifetime(reader: copy reader)
  init(from reader: inout ByteReader) throws(MalformedInput) {
    rawValue = try reader.u16()
    guard rawValue & 0b11 == 0 else { throw .invalid("unknown property flags") }
  }

  public static let contentType = PropertyFlags(rawValue: 1 << 15)
  public static let contentEncoding = PropertyFlags(rawValue: 1 << 14)
  public static let headers = PropertyFlags(rawValue: 1 << 13)
  public static let deliveryMode = PropertyFlags(rawValue: 1 << 12)
  public static let priority = PropertyFlags(rawValue: 1 << 11)
  public static let correlationID = PropertyFlags(rawValue: 1 << 10)
  public static let replyTo = PropertyFlags(rawValue: 1 << 9)
  public static let expiration = PropertyFlags(rawValue: 1 << 8)
  public static let messageID = PropertyFlags(rawValue: 1 << 7)
  public static let timestamp = PropertyFlags(rawValue: 1 << 6)
  public static let type = PropertyFlags(rawValue: 1 << 5)
  public static let userID = PropertyFlags(rawValue: 1 << 4)
  public static let appID = PropertyFlags(rawValue: 1 << 3)
  public static let clusterID = PropertyFlags(rawValue: 1 << 2)
}
