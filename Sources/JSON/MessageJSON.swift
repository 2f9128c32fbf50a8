import AMQP
import Base

/// A message as a line of JSON, in both directions: what `subscribe` prints `publish` takes.
package struct MessageJSON {
  /// Nil where the line does not say.
  package private(set) var exchange: Name?
  package private(set) var key: Name?
  package private(set) var properties = BasicProperties()
  package private(set) var body: [UInt8] = []

  package typealias Problem = JSONValue.Problem

  /// The name that a value has when it is not UTF-8 and therefore written in base64.
  package static let base64Suffix = "_base64"

  private static let names:
    [(
      name: String, path: WritableKeyPath<BasicProperties, Name?> & Sendable
    )] = [
      ("content_type", \.contentType), ("content_encoding", \.contentEncoding),
      ("correlation_id", \.correlationID), ("reply_to", \.replyTo), ("expiration", \.expiration),
      ("message_id", \.messageID), ("type", \.type), ("user_id", \.userID), ("app_id", \.appID),
      ("cluster_id", \.clusterID),
    ]

  // MARK: Writing

  /// The properties, under the names that AMQP gives them, and the headers beside them.
  package static func write(_ properties: BasicProperties, into json: inout JSONWriter) {
    json.key("properties")
    json.object { json in
      for (name, path) in names {
        if let value = properties[keyPath: path] { write(name, value, into: &json) }
      }
      if let mode = properties.deliveryMode { json.field("delivery_mode", mode) }
      if let priority = properties.priority { json.field("priority", priority) }
      if let timestamp = properties.timestamp { json.field("timestamp", timestamp) }
    }
    let headers = properties.headers ?? [:]
    json.key("headers")
    FieldJSON.write(headers, into: &json)
    if let types = FieldJSON.types(of: headers) {
      json.key("header_types")
      json.value(types)
    }
    if !FieldJSON.isFaithful(headers) {
      var buffer = ByteBuffer()
      buffer.append(headers)
      json.field("headers" + base64Suffix, Base64.encode(Array(buffer.readable)))
    }
  }

  package static func write(_ name: String, _ value: Name, into json: inout JSONWriter) {
    if let text = String(validating: value.bytes, as: UTF8.self) {
      json.field(name, text)
    } else {
      json.field(name + base64Suffix, Base64.encode(value.bytes))
    }
  }

  // MARK: Reading

  private static let fields = [
    "exchange", "key", "redelivered", "remaining", "properties", "headers", "header_types",
    "headers_base64", "body",
  ]

  /// The message of a line. What only describes a delivery is passed over; what is not known is
  /// refused, since it would be lost.
  package init(_ line: [UInt8]) throws(Problem) { try self.init(JSONValue(line)) }

  package init(_ json: JSONValue) throws(Problem) {
    guard case .object(let members) = json else {
      throw Problem(text: "a message is an object, as subscribe --format json prints it")
    }
    var headers: JSONValue?
    var types: JSONValue?
    var encoded: FieldTable?
    var hasBody = false
    for member in members {
      switch member.name {
      case "exchange", "exchange_base64": exchange = try Self.name(member)
      case "key", "key_base64": key = try Self.name(member)
      case "redelivered", "remaining": break
      case "properties": try readProperties(member.value)
      case "headers": headers = member.value
      case "header_types": types = member.value
      case "headers_base64": encoded = try Self.table(try Self.bytes(member))
      case "body", "body_base64":
        guard !hasBody else { throw Problem(text: "there are two bodies") }
        body = try Self.bytes(member)
        hasBody = true
      default: throw Self.unknown(member.name, among: Self.fields)
      }
    }
    guard hasBody else { throw Problem(text: #"the "body" is missing"#) }
    // Where the plain headers could not say all, they are for the eye alone.
    if let encoded {
      properties.headers = encoded
    } else if let headers {
      let table = try FieldJSON.table(headers, types: types)
      if !table.entries.isEmpty { properties.headers = table }
    }
  }

  private static func table(_ bytes: [UInt8]) throws(Problem) -> FieldTable {
    do throws(MalformedInput) {
      var reader = ByteReader(bytes.span.bytes)
      return try reader.fieldTable()
    } catch {
      throw Problem(text: #""headers_base64" is no table of headers"#)
    }
  }

  private mutating func readProperties(_ json: JSONValue) throws(Problem) {
    guard case .object(let members) = json else {
      throw Problem(text: "properties are an object, not \(json.kind)")
    }
    for member in members {
      switch member.name {
      case "delivery_mode": properties.deliveryMode = try Self.number(member)
      case "priority": properties.priority = try Self.number(member)
      case "timestamp": properties.timestamp = try Self.number(member)
      default:
        let plain =
          member.name.hasSuffix(Self.base64Suffix)
          ? String(member.name.dropLast(Self.base64Suffix.count)) : member.name
        guard let path = Self.names.first(where: { $0.name == plain })?.path else {
          let known = Self.names.map(\.name) + ["delivery_mode", "priority", "timestamp"]
          throw Self.unknown(member.name, among: known)
        }
        properties[keyPath: path] = try Self.name(member)
      }
    }
  }

  private static func unknown(_ name: String, among known: [String]) -> Problem {
    Problem(text: #"there is no field "\#(name)""# + Spelling.suggestion(for: name, among: known))
  }

  private static func bytes(_ member: JSONValue.Member) throws(Problem) -> [UInt8] {
    guard case .string(let text) = member.value else {
      throw Problem(text: #""\#(member.name)" is text, not \#(member.value.kind)"#)
    }
    guard member.name.hasSuffix(base64Suffix) else { return Array(text.utf8) }
    guard let bytes = Base64.decode(text) else {
      throw Problem(text: #""\#(member.name)" is not base64"#)
    }
    return bytes
  }

  private static func name(_ member: JSONValue.Member) throws(Problem) -> Name {
    let bytes = try bytes(member)
    guard bytes.count <= Name.sizeMax else {
      throw Problem(text: #""\#(member.name)" is longer than \#(Name.sizeMax) bytes"#)
    }
    return Name(bytes)
  }

  private static func number<Number: FixedWidthInteger>(
    _ member: JSONValue.Member
  ) throws(Problem) -> Number {
    guard case .number(let word) = member.value, let number = Number(word) else {
      throw Problem(
        text: #""\#(member.name)" is not a whole number from 0 to \#(Number.max)"#)
    }
    return number
  }
}
