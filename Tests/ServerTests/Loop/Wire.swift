import AMQP
import Base

/// Frames as clients send them.
enum Wire {
  static func method(_ method: Method, on channel: UInt16 = 1) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(method, channel: channel)
    return Array(buffer.readable)
  }

  static func frame(_ type: UInt8, _ payload: [UInt8], on channel: UInt16 = 1) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(type)
    buffer.append(channel)
    buffer.appendLong(payload)
    buffer.append(Frame.end)
    return Array(buffer.readable)
  }

  /// The header frame of a body of `size` bytes.
  static func header(
    _ size: UInt64, properties: [UInt8] = [0, 0], on channel: UInt16 = 1
  ) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(Frame.basicClass)
    buffer.append(UInt16(0))
    buffer.append(size)
    buffer.append(properties)
    return frame(Frame.header, Array(buffer.readable), on: channel)
  }

  /// The frames of a message, its body in pieces of these sizes; what is left is the last.
  static func publish(
    _ publish: BasicPublish, body: [UInt8], properties: [UInt8] = [0, 0], pieces: [Int] = [],
    on channel: UInt16 = 1
  ) -> [[UInt8]] {
    var frames = [
      method(.basicPublish(publish), on: channel),
      header(UInt64(body.count), properties: properties, on: channel),
    ]
    var rest = body[...]
    for size in pieces where !rest.isEmpty {
      frames.append(frame(Frame.body, Array(rest.prefix(size)), on: channel))
      rest = rest.dropFirst(size)
    }
    if !rest.isEmpty { frames.append(frame(Frame.body, Array(rest), on: channel)) }
    return frames
  }

  static let heartbeat = frame(Frame.heartbeat, [], on: 0)

  static let startOK = ConnectionStartOk(
    clientProperties: [
      "capabilities": .table([
        "authentication_failure_close": .bool(true), "basic.nack": .bool(true),
        "connection.blocked": .bool(true), "consumer_cancel_notify": .bool(true),
      ]), "product": .string("tests"),
    ], mechanism: "PLAIN", response: Array("\0guest\0guest".utf8), locale: "en_US")

  static func tuneOK(
    channelMax: UInt16 = 0, frameMax: Int = 0, heartbeat: UInt16 = 0
  ) -> ConnectionTuneOk {
    ConnectionTuneOk(
      channelMax: channelMax, frameMax: UInt32(frameMax), heartbeat: heartbeat)
  }
}

extension BasicProperties {
  /// The properties as they are on the wire.
  var bytes: [UInt8] {
    var buffer = ByteBuffer()
    encode(into: &buffer)
    return Array(buffer.readable)
  }
}
