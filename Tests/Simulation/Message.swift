import AMQP
import Arbitrary
import Base
import Glibc

/// A message that a client publishes. Its body says which it is, or a property if that is too short;
/// all other bytes follow from its number, so that it is known again to the last byte.
final class Message {
  let id: Int
  let exchange: String
  let key: String
  let isPersistent: Bool
  let isMandatory: Bool
  let size: Int
  /// The message has a message-id and a header, so that the broker has to walk its properties.
  let isVerbose: Bool
  let headers: [Header]
  /// Queues that it was routed to when the broker took it; nil before that.
  var destinations: [QueueModel]?

  static let idBytes = 8

  init(
    id: Int, exchange: String, key: String, isPersistent: Bool, isMandatory: Bool, size: Int,
    isVerbose: Bool, headers: [Header] = []
  ) {
    self.id = id
    self.exchange = exchange
    self.key = key
    self.isPersistent = isPersistent
    self.isMandatory = isMandatory
    self.size = size
    self.isVerbose = isVerbose || size < Self.idBytes
    self.headers = headers
  }

  var properties: [UInt8] { properties(count: nil) }

  /// As the broker delivers it when it came back so often.
  private func properties(count: Int64?) -> [UInt8] {
    var properties = BasicProperties()
    if isPersistent { properties.deliveryMode = 2 }
    if isVerbose || !headers.isEmpty {
      var entries = headers.enumerated().map { $0.element.entry(width: id + $0.offset) }
      if isVerbose {
        properties.messageID = Name(String(id))
        entries.append(
          FieldTable.Entry(name: "n", value: .int32(Int32(truncatingIfNeeded: id))))
      }
      properties.headers = FieldTable(entries)
    }
    if let count {
      var table = properties.headers ?? FieldTable()
      table.entries.append(.init(name: Content.countHeader, value: .int64(count)))
      properties.headers = table
    }
    var buffer = ByteBuffer()
    properties.encode(into: &buffer)
    return Array(buffer.readable)
  }

  var body: [UInt8] {
    guard size >= Self.idBytes else { return Array(filling(0..<size)) }
    return withUnsafeBytes(of: UInt64(id)) { Array($0) } + filling(Self.idBytes..<size)
  }

  private func filling(_ range: Range<Int>) -> ArraySlice<UInt8> {
    let start = id &* 61 % 4096
    return Self.pattern[start + range.lowerBound..<start + range.upperBound]
  }

  static let sizeMax = 400 << 10
  private static let pattern: [UInt8] = {
    var random = SeededGenerator(seed: 7)
    let words = (0..<(sizeMax + 4096 + 8) / 8).map { _ in random.next() }
    return words.withUnsafeBytes { Array($0) }
  }()

  /// The number of the message that a client got; nil if it says none.
  static func id(properties: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer) -> Int? {
    if body.count >= idBytes { return Int(truncatingIfNeeded: body.loadUnaligned(as: UInt64.self)) }
    var reader = ByteReader(properties.bytes)
    do throws(MalformedInput) {
      return Int(try BasicProperties(from: &reader).messageID?.description ?? "")
    } catch {
      return nil
    }
  }

  /// Whether what a client got is this message to the last byte, but for the count.
  func equals(_ content: Content) -> Bool {
    content.exchange == exchange && content.key == key && content.body.count == size
      && properties(count: content.count) == content.properties && content.body == body
  }

  /// The frames of its publish.
  func frames(on channel: UInt16, frameMax: Int) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(
      .basicPublish(
        BasicPublish(
          exchange: Name(exchange), routingKey: Name(key), mandatory: isMandatory)),
      channel: channel)
    properties.withUnsafeBytes { properties in
      body.withUnsafeBytes { body in
        buffer.appendContent(
          channel: channel, properties: properties, body: body, frameMax: frameMax)
      }
    }
    return Array(buffer.readable)
  }
}

/// A message as a client gets it.
struct Content {
  enum Kind {
    case delivery(tag: UInt64, isRedelivered: Bool, consumer: String)
    case got(tag: UInt64, isRedelivered: Bool, remaining: Int)
    case returned(code: UInt16)
  }

  let kind: Kind
  let channel: UInt16
  let exchange: String
  let key: String
  let properties: [UInt8]
  let body: [UInt8]
  let id: Int?

  static let countHeader: Name = "x-delivery-count"

  /// How often the broker says that the message came back; nil if it does not say it.
  var count: Int64? {
    var reader = ByteReader(properties.span.bytes)
    do throws(MalformedInput) {
      let headers = try BasicProperties(from: &reader).headers
      guard case .int64(let count)? = headers?[Self.countHeader] else { return nil }
      return count
    } catch {
      return nil
    }
  }

  var isDelivery: Bool {
    if case .delivery = kind { true } else { false }
  }
}
