import AMQP
import Base
import Testbed

@testable import Client
@testable import Server

/// A connection and the client at its other end.
final class TestClient {
  let connection: Server.Connection
  private let socket: SimulatedSocket
  private unowned let loop: TestLoop
  /// Read by the client, as it came, since it was last asked for.
  private var received: [UInt8] = []
  /// A client that does not read leaves everything in the session.
  var isReading = true {
    didSet { socket.roomBytes = isReading ? .max : 0 }
  }
  /// So many bytes fit between broker and client.
  var roomBytes: Int {
    get { socket.roomBytes }
    set { socket.roomBytes = newValue }
  }
  /// Nothing is taken out of what there is room for.
  var isWaiting = false
  /// So many bytes are taken from the loop at once.
  var takesAtMost = Int.max
  /// Bytes that the client has read; it may forget them.
  private(set) var readBytes = 0
  var keepsNothing = false
  /// The most that the session ever had to say at once.
  private(set) var outputPeak = 0

  init(_ connection: Server.Connection, _ socket: SimulatedSocket, of loop: TestLoop) {
    self.connection = connection
    self.socket = socket
    self.loop = loop
    socket.onWrite = { [unowned self] bytes, room in
      outputPeak = max(outputPeak, bytes.count)
      return min(room, takesAtMost)
    }
  }

  var session: Session {
    guard let session = connection.conversation as? Session else {
      invariantFailed("the conversation of a test's client is no session")
    }
    return session
  }

  // MARK: Sending

  /// Sends bytes, which arrive in one piece unless they are very many.
  func send(_ bytes: [UInt8]) {
    socket.send(bytes)
    while socket.readiness?.reads == true { goOn() }
  }

  /// Tells the loop what can be read or written. Returns whether there was something.
  @discardableResult
  func goOn() -> Bool {
    guard let (reads, writes) = socket.readiness else { return false }
    loop.loop.ready(connection.token, reads: reads, writes: writes, isBroken: false)
    outputPeak = max(outputPeak, connection.unsentCount)
    return true
  }

  /// Reads what the loop has sent. Returns whether there was something.
  @discardableResult
  func read() -> Bool {
    outputPeak = max(outputPeak, connection.unsentCount)
    let bytes = socket.receive(isWaiting ? 0 : .max)
    readBytes += bytes.count
    if !keepsNothing { received += bytes }
    return !bytes.isEmpty
  }

  // MARK: The connection

  /// Sends nothing more, and may still read.
  func endStream() {
    socket.isEnded = true
    while goOn() {}
  }

  /// The broker sends nothing more.
  var isStreamEnded: Bool { socket.isWriteEnded }
  /// The broker has given the connection up.
  var isClosed: Bool { socket.isClosed }

  // MARK: Reading

  /// What the client has read since it was last asked.
  func takeBytes() -> [UInt8] {
    loop.loop.flushDirty()
    read()
    defer { received = [] }
    return received
  }

  /// The same as events; throws when it is no AMQP.
  func takeEvents() throws(ClientError) -> [ClientEvent] {
    try ClientEvent.parse(takeBytes())
  }

  /// Sends, waits until the broker has nothing left to do, and returns what it answered.
  func exchange(_ bytes: [UInt8]) throws(ClientError) -> [ClientEvent] {
    send(bytes)
    loop.settle()
    return try takeEvents()
  }

  func call(_ method: Method, on channel: UInt16 = 1) throws(ClientError) -> [ClientEvent] {
    try exchange(Wire.method(method, on: channel))
  }

  /// Says hello as `guest` and opens channel 1.
  func open(frameMax: Int = 0, capabilities: FieldTable? = nil) throws(ClientError) {
    var startOK = Wire.startOK
    if let capabilities { startOK.clientProperties = ["capabilities": .table(capabilities)] }
    _ = try exchange(Frame.protocolHeader)
    _ = try exchange(
      Wire.method(.connectionStartOk(startOK), on: 0)
        + Wire.method(.connectionTuneOk(Wire.tuneOK(frameMax: frameMax)), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)
        + Wire.method(.channelOpen(ChannelOpen()), on: 1))
  }
}

/// What a client hears, channel by channel.
enum ClientEvent: Equatable {
  case method(Method, channel: UInt16)
  /// A delivery, the answer to a get, or what was returned.
  case message(ClientMessage)
  case confirm(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16)

  /// The events in whole frames; throws when they are no valid AMQP, or end in the middle.
  static func parse(_ bytes: [UInt8]) throws(ClientError) -> [ClientEvent] {
    let collector = EventCollector()
    var parser = FrameParser()
    parser.payloadMax = 16 << 20
    var offset = 0
    let all = bytes.span.bytes
    while offset < bytes.count {
      switch try parser.step(all.extracting(offset..<bytes.count), into: collector) {
      case .incomplete: throw .protocolViolation("\(bytes.count - offset) bytes are no frame")
      case .handled(let size): offset += size
      case .method(let method, let channel, let size):
        collector.events.append(.method(method, channel: channel))
        offset += size
      }
    }
    return collector.events
  }
}

/// A message as a client has it.
struct ClientMessage: Equatable {
  let kind: WireMessage.Kind
  let channel: UInt16
  let deliveryTag: UInt64
  let isRedelivered: Bool
  let exchange: Name
  let routingKey: Name
  let properties: [UInt8]
  let body: [UInt8]
}

private final class EventCollector: WireSink {
  var events: [ClientEvent] = []

  func received(_ message: borrowing WireMessage) {
    events.append(
      .message(
        ClientMessage(
          kind: message.kind, channel: message.channel, deliveryTag: message.deliveryTag,
          isRedelivered: message.isRedelivered, exchange: Name(copying: message.exchange),
          routingKey: Name(copying: message.routingKey),
          properties: message.properties.withUnsafeBytes { Array($0) },
          body: message.body.withUnsafeBytes { Array($0) })))
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {
    events.append(
      .confirm(tag: tag, isMultiple: isMultiple, isAccepted: isAccepted, channel: channel))
  }

  func received(_ method: Method, channel: UInt16) {
    events.append(.method(method, channel: channel))
  }
}
