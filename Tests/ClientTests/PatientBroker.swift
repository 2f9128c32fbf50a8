import AMQP
import Base
import IO
import Synchronization

/// A broker for one client: it opens whatever is asked for, answers a heartbeat with its own while the
/// client should be heard, and tells of each. It says what a real one says, and no more; what it does
/// with time it leaves to the client.
final class PatientBroker: Sendable {
  let url: String
  /// One for each heartbeat of the client; ends with the connection.
  let heartbeats: AsyncStream<Void>
  private let beat: AsyncStream<Void>.Continuation
  private let listener: Box
  private let messages: [[UInt8]]
  private let answersHeartbeats: Bool

  /// Keeps a socket that cannot be copied.
  private final class Box: Sendable {
    let socket: Socket
    init(_ socket: consuming Socket) { self.socket = socket }
  }

  /// `messages` come to the first consumer at once, whether it takes them or not.
  init(messages: [[UInt8]] = [], answersHeartbeats: Bool = true) throws {
    let socket = try Socket.bind(SocketAddress(host: "127.0.0.1", port: 0))
    try socket.listen()
    socket.setBlocking(true)
    url = "amqp://guest:guest@127.0.0.1:\(socket.localAddress.port)/?heartbeat=1"
    listener = Box(socket)
    self.messages = messages
    self.answersHeartbeats = answersHeartbeats
    (heartbeats, beat) = AsyncStream.makeStream()
    _ = try Thread(name: "patient") { [self] in
      defer { beat.finish() }
      try? serve()
    }
  }

  private func serve() throws {
    guard let accepted = try listener.socket.accept() else { return }
    let client = accepted.take()
    client.setBlocking(true)
    var input: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    var isGreeted = false
    while case .count(let count) = buffer.withUnsafeMutableBytes({
      client.descriptor.read(into: $0)
    }) {
      input += buffer[..<count]
      if !isGreeted, input.count >= 8 {
        input.removeFirst(8)
        isGreeted = true
        write(start, on: 0, to: client)
      }
      while isGreeted, let (type, channel, payload) = Self.takeFrame(&input) {
        if type == Frame.heartbeat {
          if answersHeartbeats { write(Self.heartbeat, to: client) }
          beat.yield()
        } else if type == Frame.method {
          try answer(payload, on: channel, to: client)
        }
      }
    }
  }

  private let start = Method.connectionStart(
    ConnectionStart(
      versionMajor: 0, versionMinor: 9, serverProperties: [:], mechanisms: Array("PLAIN".utf8),
      locales: Array("en_US".utf8)))

  private func answer(_ payload: [UInt8], on channel: UInt16, to client: borrowing Socket) throws {
    let id = MethodID(
      classID: UInt16(payload[0]) << 8 | UInt16(payload[1]),
      methodID: UInt16(payload[2]) << 8 | UInt16(payload[3]))
    switch id {
    case ConnectionStartOk.id:
      write(
        .connectionTune(ConnectionTune(channelMax: 0, frameMax: 131_072, heartbeat: 1)), on: 0,
        to: client)
    case ConnectionOpen.id: write(.connectionOpenOk(ConnectionOpenOk()), on: 0, to: client)
    case ChannelOpen.id: write(.channelOpenOk(ChannelOpenOk()), on: channel, to: client)
    case BasicConsume.id:
      var reader = ByteReader(payload.span.bytes.extracting(4..<payload.count))
      guard case .basicConsume(let consume)? = try Method.decode(id, from: &reader) else { return }
      write(
        .basicConsumeOk(BasicConsumeOk(consumerTag: consume.consumerTag)), on: channel, to: client)
      var out = ByteBuffer()
      for (index, body) in messages.enumerated() {
        deliver(body, UInt64(index + 1), consume.consumerTag, on: channel, into: &out)
      }
      write(Array(out.readable), to: client)
    case ConnectionClose.id: write(.connectionCloseOk(ConnectionCloseOk()), on: 0, to: client)
    default: break
    }
  }

  private func deliver(
    _ body: [UInt8], _ tag: UInt64, _ consumer: Name, on channel: UInt16,
    into out: inout ByteBuffer
  ) {
    out.append(
      .basicDeliver(
        BasicDeliver(
          consumerTag: consumer, deliveryTag: tag, redelivered: false, exchange: "",
          routingKey: "q")), channel: channel)
    [0, 0].withUnsafeBytes { properties in
      body.withUnsafeBytes { body in
        out.appendContent(
          channel: channel, properties: UnsafeRawBufferPointer(rebasing: properties[..<2]),
          body: body, frameMax: 131_072)
      }
    }
  }

  private static let heartbeat: [UInt8] = [Frame.heartbeat, 0, 0, 0, 0, 0, 0, Frame.end]

  private func write(_ method: Method, on channel: UInt16, to client: borrowing Socket) {
    var out = ByteBuffer()
    out.append(method, channel: channel)
    write(Array(out.readable), to: client)
  }

  private func write(_ bytes: [UInt8], to client: borrowing Socket) {
    bytes.withUnsafeBytes { bytes in
      var rest = bytes[...]
      while !rest.isEmpty,
        case .count(let count) = client.descriptor.write(UnsafeRawBufferPointer(rebasing: rest))
      {
        rest = rest.dropFirst(count)
      }
    }
  }

  private static func takeFrame(_ input: inout [UInt8]) -> (UInt8, UInt16, [UInt8])? {
    guard input.count >= Frame.headerSize else { return nil }
    let size = input[3..<7].reduce(0) { $0 << 8 | Int($1) }
    guard input.count >= size + Frame.overhead else { return nil }
    let frame = (
      input[0], UInt16(input[1]) << 8 | UInt16(input[2]),
      Array(input[Frame.headerSize..<Frame.headerSize + size])
    )
    input.removeFirst(size + Frame.overhead)
    return frame
  }
}
