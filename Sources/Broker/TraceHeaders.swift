import AMQP
import Base

/// The headers of a traced message's copy, in RabbitMQ's form.
struct TraceHeaders {
  private(set) var table: FieldTable
  private var isIncomplete = false

  /// Names of a list that are longer together are left out.
  private static let namesBytesMax = 40_000

  init(_ exchange: Name, keys: [Name], _ properties: BasicProperties, on channel: Channel) {
    table = [
      "exchange_name": .string(exchange.bytes), "node": .string(channel.broker.node.bytes),
      "vhost": .string(channel.vhost.name.bytes), "connection": .string(channel.peer.name),
      "channel": .int32(Int32(channel.number)), "user": .string(channel.peer.user.bytes),
    ]
    add("routing_keys", keys)
    let limit = MessageBytes.headersMax - 2 * Self.namesBytesMax
    let all = Self.table(of: properties)
    let encoded = MessageBytes.encoded { $0.append(all) }
    // As deep as tables may be, or with as many values, they are no part of another.
    let nested = FieldTable([.init(name: "properties", value: .table(all))])
    let isWhole =
      encoded.count <= limit
      && (properties.headers == nil
        || MessageBytes.canRead(MessageBytes.encoded { $0.append(nested) }))
    var shown = all
    if !isWhole { shown.entries.removeAll { $0.name == "headers" } }
    set("properties", .table(shown))
    if !isWhole { noteIncomplete() }
  }

  mutating func add(routedTo queues: some Sequence<Name>) { add("routed_queues", queues) }

  mutating func add(isRedelivered: Bool) { set("redelivered", .int32(isRedelivered ? 1 : 0)) }

  mutating func add(bodySize: Int) { set("body_size", .int64(Int64(bodySize))) }

  private mutating func add(_ name: Name, _ names: some Sequence<Name>) {
    var bytes = 0
    var values: [FieldValue] = []
    for one in names {
      bytes += 5 + one.bytes.count
      guard bytes <= Self.namesBytesMax, values.count < Self.namesMax else {
        noteIncomplete()
        break
      }
      values.append(.string(one.bytes))
    }
    set(name, .array(values))
  }

  /// Two lists of so many, and a message's headers, are not more values than a table has.
  private static let namesMax = 2048

  private mutating func set(_ name: Name, _ value: FieldValue) {
    table.entries.append(.init(name: name, value: value))
  }

  private mutating func noteIncomplete() {
    guard !isIncomplete else { return }
    isIncomplete = true
    set("incomplete", .bool(true))
  }

  /// By the names that RabbitMQ has for them.
  private static func table(of properties: BasicProperties) -> FieldTable {
    var table = FieldTable()
    func add(_ name: Name, _ value: FieldValue?) {
      if let value { table.entries.append(.init(name: name, value: value)) }
    }
    func text(_ name: Name?) -> FieldValue? { name.map { .string($0.bytes) } }
    add("content_type", text(properties.contentType))
    add("content_encoding", text(properties.contentEncoding))
    add("headers", properties.headers.map { .table($0) })
    add("delivery_mode", properties.deliveryMode.map { .int32(Int32($0)) })
    add("priority", properties.priority.map { .int32(Int32($0)) })
    add("correlation_id", text(properties.correlationID))
    add("reply_to", text(properties.replyTo))
    add("expiration", text(properties.expiration))
    add("message_id", text(properties.messageID))
    add("timestamp", properties.timestamp.map(number))
    add("type", text(properties.type))
    add("user_id", text(properties.userID))
    add("app_id", text(properties.appID))
    add("cluster_id", text(properties.clusterID))
    return table
  }

  /// As RabbitMQ's `signedint` where that is wide enough.
  private static func number(_ value: UInt64) -> FieldValue {
    if let small = Int32(exactly: value) { return .int32(small) }
    return .int64(Int64(truncatingIfNeeded: value))
  }
}
