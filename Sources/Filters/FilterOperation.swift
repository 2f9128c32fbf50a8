import AMQP
import Base

/// A step of a compiled filter, in postfix: it takes values from a stack and leaves one there.
enum FilterOperation: BitwiseCopyable {
  // Leaves a value.
  case exact(Int64)
  case approximate(Double)
  /// A literal in the pool.
  case text(TextPlace)
  case boolean(Bool)
  /// One of the headers that the filter names.
  case header(UInt8)
  case property(FilterProperty)
  case exchange, routingKey, body
  // Of one value.
  case negate
  case mustBeNumber
  case not
  case isNull(isNegated: Bool)
  /// One of the literals from `first` on.
  case isIn(first: UInt16, count: UInt16, isNegated: Bool)
  case like(pattern: UInt16, isNegated: Bool)
  // Of two.
  case arithmetic(Arithmetic)
  case compare(Comparison)
  case and, or
  // Of three.
  case between(isNegated: Bool)
  /// Leaves false, or true, where it is, and goes on behind the operation that has its other side.
  case skipIfFalse(to: UInt16)
  case skipIfTrue(to: UInt16)
}

/// A property that filters can name.
enum FilterProperty: String, CaseIterable, BitwiseCopyable {
  case contentType = "content_type"
  case contentEncoding = "content_encoding"
  case deliveryMode = "delivery_mode"
  case priority
  case correlationID = "correlation_id"
  case replyTo = "reply_to"
  case expiration
  case messageID = "message_id"
  case timestamp, type
  case userID = "user_id"
  case appID = "app_id"
  case clusterID = "cluster_id"

  var flag: PropertyFlags {
    switch self {
    case .contentType: .contentType
    case .contentEncoding: .contentEncoding
    case .deliveryMode: .deliveryMode
    case .priority: .priority
    case .correlationID: .correlationID
    case .replyTo: .replyTo
    case .expiration: .expiration
    case .messageID: .messageID
    case .timestamp: .timestamp
    case .type: .type
    case .userID: .userID
    case .appID: .appID
    case .clusterID: .clusterID
    }
  }

  var isNumber: Bool {
    switch self {
    case .deliveryMode, .priority, .expiration, .timestamp: true
    case .contentType, .contentEncoding, .correlationID, .replyTo, .messageID, .type, .userID,
      .appID, .clusterID:
      false
    }
  }
}
