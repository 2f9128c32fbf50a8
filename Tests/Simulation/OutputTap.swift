import AMQP
import Base

/// What a client hears.
enum ClientEvent {
  case method(Method, channel: UInt16)
  case content(Content)
}

/// Reads the frames that a session writes, as they are written. A session writes a message's frames
/// at once, so that what is new always ends with a whole message.
struct OutputTap {
  /// Takes the events out of whole frames; throws when they are no AMQP.
  static func parse(
    _ bytes: UnsafeRawBufferPointer, _ body: (ClientEvent, _ end: Int) throws(BrokenPromise) -> Void
  ) throws(BrokenPromise) {
    var offset = 0
    while offset < bytes.count {
      if offset == 0, bytes.count >= 4, bytes.prefix(4).elementsEqual("AMQP".utf8) {
        throw BrokenPromise(wellFormed, "the session sent a protocol header")
      }
      let (method, channel) = try method(bytes, &offset)
      if let content = try content(of: method, channel, bytes, &offset) {
        try body(.content(content), offset)
      } else {
        try body(.method(method, channel: channel), offset)
      }
    }
  }

  private static let wellFormed = "what the broker sends is AMQP"

  private static func frame(
    _ bytes: UnsafeRawBufferPointer, _ offset: inout Int
  ) throws(BrokenPromise) -> (type: UInt8, channel: UInt16, payload: UnsafeRawBufferPointer) {
    let rest = bytes.count - offset
    let size =
      rest >= Frame.headerSize
      ? Int(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 3, as: UInt32.self)))
      : .max / 2
    guard rest >= size + Frame.overhead, bytes[offset + Frame.headerSize + size] == Frame.end else {
      throw BrokenPromise(wellFormed, "a frame is not whole")
    }
    let channel = UInt16(
      bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 1, as: UInt16.self))
    let start = offset + Frame.headerSize
    defer { offset += size + Frame.overhead }
    return (
      bytes[offset], channel, UnsafeRawBufferPointer(rebasing: bytes[start..<start + size])
    )
  }

  private static func method(
    _ bytes: UnsafeRawBufferPointer, _ offset: inout Int
  ) throws(BrokenPromise) -> (Method, UInt16) {
    let (type, channel, payload) = try frame(bytes, &offset)
    guard type == Frame.method, payload.count >= 4 else {
      throw BrokenPromise(wellFormed, "a frame of type \(type) where a method was expected")
    }
    let id = MethodID(
      classID: UInt16(bigEndian: payload.loadUnaligned(as: UInt16.self)),
      methodID: UInt16(bigEndian: payload.loadUnaligned(fromByteOffset: 2, as: UInt16.self)))
    let decoded: Method?
    do throws(MalformedInput) {
      var reader = ByteReader(payload.bytes.extracting(4..<payload.count))
      decoded = try Method.decode(id, from: &reader)
    } catch {
      throw BrokenPromise(wellFormed, "method \(id): \(error)")
    }
    guard let method = decoded else { throw BrokenPromise(wellFormed, "method \(id)") }
    return (method, channel)
  }

  private static func content(
    of method: Method, _ channel: UInt16, _ bytes: UnsafeRawBufferPointer, _ offset: inout Int
  ) throws(BrokenPromise) -> Content? {
    let kind: Content.Kind
    let exchange: Name
    let key: Name
    switch method {
    case .basicDeliver(let deliver):
      kind = .delivery(
        tag: deliver.deliveryTag, isRedelivered: deliver.redelivered,
        consumer: deliver.consumerTag.description)
      (exchange, key) = (deliver.exchange, deliver.routingKey)
    case .basicGetOk(let got):
      kind = .got(
        tag: got.deliveryTag, isRedelivered: got.redelivered, remaining: Int(got.messageCount))
      (exchange, key) = (got.exchange, got.routingKey)
    case .basicReturn(let returned):
      kind = .returned(code: returned.replyCode)
      (exchange, key) = (returned.exchange, returned.routingKey)
    default: return nil
    }
    let header = try frame(bytes, &offset)
    guard header.type == Frame.header, header.channel == channel, header.payload.count >= 14 else {
      throw BrokenPromise(wellFormed, "a message without a header")
    }
    let size = Int(
      UInt64(bigEndian: header.payload.loadUnaligned(fromByteOffset: 4, as: UInt64.self)))
    var body: [UInt8] = []
    body.reserveCapacity(size)
    while body.count < size {
      let piece = try frame(bytes, &offset)
      guard piece.type == Frame.body, piece.channel == channel else {
        throw BrokenPromise(wellFormed, "a message of \(size) bytes ends after \(body.count)")
      }
      body += piece.payload
    }
    let properties = UnsafeRawBufferPointer(rebasing: header.payload[12...])
    let id = body.withUnsafeBytes { Message.id(properties: properties, body: $0) }
    return Content(
      kind: kind, channel: channel, exchange: exchange.description, key: key.description,
      properties: Array(properties), body: body, id: id)
  }
}
