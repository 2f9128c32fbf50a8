import Base

/// A frame is: type (u8), channel (u16), size of the payload (u32), payload, end marker (u8).
public enum Frame {
  public static let headerSize = 7
  /// Bytes of a frame that are not its payload.
  public static let overhead = 8
  public static let end: UInt8 = 0xCE
  /// Bytes of a content header in front of the properties.
  public static let contentHeaderSize = 12

  public static let method: UInt8 = 1
  public static let header: UInt8 = 2
  public static let body: UInt8 = 3
  public static let heartbeat: UInt8 = 8

  /// The smallest frame_max that may be negotiated.
  public static let sizeMin = 4096
  /// What a client opens a connection with, for version 0-9-1.
  public static let protocolHeader: [UInt8] = Array("AMQP".utf8) + [0, 0, 9, 1]
  /// The class of all content.
  public static let basicClass: UInt16 = 60

  public static func typeName(_ type: UInt8) -> String {
    switch type {
    case method: "method"
    case header: "content header"
    case body: "content body"
    case heartbeat: "heartbeat"
    default: "type \(type)"
    }
  }
}

extension ByteBuffer {
  /// Appends a whole method frame.
  public mutating func append(_ method: Method, channel: UInt16) {
    append(Frame.method)
    append(channel)
    append(UInt32(0))
    let start = count
    append(method.id.classID)
    append(method.id.methodID)
    method.encodeArguments(into: &self)
    patch(UInt32(count - start), fromEnd: count - start + 4)
    append(Frame.end)
  }

  public mutating func appendHeartbeat() {
    append(Frame.heartbeat)
    append(UInt16(0))
    append(UInt32(0))
    append(Frame.end)
  }

  /// Appends a content header frame; `properties` as in `appendContent`.
  public mutating func appendContentHeader(
    channel: UInt16, properties: UnsafeRawBufferPointer, bodySize: Int
  ) {
    append(Frame.header)
    append(channel)
    append(UInt32(Frame.contentHeaderSize + properties.count))
    append(Frame.basicClass)
    append(UInt16(0))
    append(UInt64(bodySize))
    append(properties)
    append(Frame.end)
  }

  /// Appends a message's content: its header frame and as many body frames as `frameMax` asks for.
  /// `properties` are the flags and the values behind them, as they came.
  public mutating func appendContent(
    channel: UInt16, properties: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer, frameMax: Int
  ) {
    appendContentHeader(channel: channel, properties: properties, bodySize: body.count)
    let payloadMax = frameMax - Frame.overhead
    var offset = 0
    while offset < body.count {
      let size = min(payloadMax, body.count - offset)
      append(Frame.body)
      append(channel)
      append(UInt32(size))
      append(UnsafeRawBufferPointer(rebasing: body[offset..<offset + size]))
      append(Frame.end)
      offset += size
    }
  }
}
