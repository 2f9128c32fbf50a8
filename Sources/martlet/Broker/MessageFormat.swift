import Client

/// How messages are printed.
enum MessageFormat: String, CaseIterable, Sendable {
  /// The body, and a line end unless it has one.
  case text
  /// The body and nothing else.
  case raw
  /// A line of JSON with everything there is.
  case json

  static let option = Option.value(
    "format", short: "f", "FORMAT", as: .choice, default: MessageFormat.text, shown: "text",
    """
    text prints each body and ends its line, raw prints the body alone, json prints a line with \
    exchange, key, redelivered, properties, headers and body (body_base64 when it is not UTF-8).
    """)

  /// The bytes to print. `remaining` is how many messages the queue holds behind this one, where
  /// that is known.
  func bytes(of delivery: Delivery, remaining: Int? = nil) -> [UInt8] {
    switch self {
    case .raw: return delivery.body
    case .text:
      let newline = UInt8(ascii: "\n")
      return delivery.body.last == newline ? delivery.body : delivery.body + [newline]
    case .json:
      var json = JSONWriter()
      json.object { Self.write(delivery, remaining, into: &$0) }
      return json.bytes + [UInt8(ascii: "\n")]
    }
  }

  private static func write(
    _ delivery: Delivery, _ remaining: Int?, into json: inout JSONWriter
  ) {
    let message = delivery.message
    json.field("exchange", message.exchange.description)
    json.field("key", message.routingKey.description)
    json.field("redelivered", delivery.isRedelivered)
    if let remaining { json.field("remaining", remaining) }
    json.key("properties")
    json.object { write(message.properties, into: &$0) }
    json.key("headers")
    write(message.properties.headers ?? [:], into: &json)
    if let text = message.text {
      json.field("body", text)
    } else {
      json.field("body_base64", Base64.encode(message.body))
    }
  }

  /// All properties but the headers, under the names that AMQP gives them.
  private static func write(_ properties: BasicProperties, into json: inout JSONWriter) {
    func field(_ name: String, _ value: Name?) {
      if let value { json.field(name, value.description) }
    }
    field("content_type", properties.contentType)
    field("content_encoding", properties.contentEncoding)
    if let mode = properties.deliveryMode { json.field("delivery_mode", mode) }
    if let priority = properties.priority { json.field("priority", priority) }
    field("correlation_id", properties.correlationID)
    field("reply_to", properties.replyTo)
    field("expiration", properties.expiration)
    field("message_id", properties.messageID)
    if let timestamp = properties.timestamp { json.field("timestamp", timestamp) }
    field("type", properties.type)
    field("user_id", properties.userID)
    field("app_id", properties.appID)
    field("cluster_id", properties.clusterID)
  }

  private static func write(_ table: FieldTable, into json: inout JSONWriter) {
    json.object { json in
      for entry in table.entries {
        json.key(entry.name.description)
        write(entry.value, into: &json)
      }
    }
  }

  private static func write(_ value: FieldValue, into json: inout JSONWriter) {
    switch value {
    case .void: json.null()
    case .bool(let flag): json.value(flag)
    case .int8, .uint8, .int16, .uint16, .int32, .uint32, .int64: json.value(value.integer ?? 0)
    case .float(let number): json.value(Double(number))
    case .double(let number): json.value(number)
    case .decimal(let scale, let number): json.literal("\(number)e-\(scale)")
    case .string(let bytes), .bytes(let bytes):
      json.value(String(validating: bytes, as: UTF8.self) ?? Base64.encode(bytes))
    case .timestamp(let seconds): json.value(seconds)
    case .array(let values):
      json.array { json in
        for value in values { write(value, into: &json) }
      }
    case .table(let table): write(table, into: &json)
    }
  }
}
