import AMQP
import Base
import IO

/// A connection to a broker as one thread drives it: what is sent gathers in `output` until
/// `flush`, what comes goes to a sink. It has no thread and no lock of its own.
///
/// Whoever waits in a poller of his own watches `descriptor` and uses `flushAvailable`,
/// `receiveAvailable` and `tick`; whoever does not, uses `flush`, `receive` and `call`, which wait
/// themselves. The socket never blocks.
///
/// An error is final: the socket is closed, and every call after it throws `notConnected`. Only
/// `ClientError.channelClosed` and a `timedOut` call leave the connection as it is.
public final class WireConnection {
  public let url: ConnectionURL
  /// What the broker says of itself.
  public internal(set) var serverProperties = FieldTable()
  /// The agreed size of the largest frame, with its overhead.
  public internal(set) var frameMax = 131_072
  /// The agreed number of the last channel.
  public internal(set) var channelMax: UInt16 = .max
  /// The agreed interval; 0 is none.
  public internal(set) var heartbeatSeconds: UInt16 = 0
  /// Why the broker takes no messages at the moment; nil while it does.
  public private(set) var blockedReason: String?

  /// What was sent and not flushed. Whole frames may be appended directly.
  public var output = ByteBuffer()
  /// What was received and not yet handed over.
  private var input = ByteBuffer()
  private var parser = FrameParser()
  /// Nil once the connection is closed.
  private var socket: Socket?
  /// How many bytes one read asks for.
  private let readSize: Int
  private var lastSentNanoseconds: Int64
  private var lastReceivedNanoseconds: Int64
  /// A sink is being called; it must not receive.
  private var isHandingOver = false

  /// Connects, logs in and opens the virtual host, within the URL's connection timeout.
  public init(_ url: ConnectionURL, _ options: WireOptions = WireOptions()) throws(ClientError) {
    self.url = url
    readSize = options.readSize
    let deadline = Deadline(milliseconds: url.connectionTimeoutMilliseconds)
    let start = Clock.monotonicNanoseconds()
    lastSentNanoseconds = start
    lastReceivedNanoseconds = start
    let address = SocketAddress(host: url.host, port: url.port)
    do {
      let socket = try Socket.connect(
        address, timeoutMilliseconds: url.connectionTimeoutMilliseconds)
      socket.setBlocking(false)
      if let size = options.kernelReceiveSize { socket.setReceiveBuffer(bytes: size) }
      self.socket = consume socket
    } catch {
      throw ClientError(error)
    }
    do {
      try handshake(options, until: deadline)
    } catch {
      disconnect()
      throw error
    }
  }

  public var isConnected: Bool { socket != nil }

  /// The socket, for a poller; -1 once the connection is closed.
  public var descriptor: Int32 { socket?.descriptor.raw ?? -1 }

  /// Ends the connection at once, without a word to the broker.
  public func disconnect() {
    socket = nil
  }

  // MARK: Sending

  public func send(_ method: Method, channel: UInt16) {
    output.append(method, channel: channel)
  }

  /// Sends a message behind the method that carries it. `properties` are the property flags and
  /// the values behind them.
  public func sendContent(
    channel: UInt16, properties: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer
  ) {
    output.appendContent(
      channel: channel, properties: properties, body: body, frameMax: frameMax)
  }

  /// Writes what the kernel takes; whether that was all.
  @discardableResult
  public func flushAvailable() throws(ClientError) -> Bool {
    while !output.isEmpty {
      let written = try write(output.readable.bytes)
      if written == 0 { return false }
      output.consume(written)
    }
    return true
  }

  /// Writes everything, and waits as long as that takes, at most `timeoutMilliseconds` (-1: for
  /// ever; a broker that is short of memory may stop reading for a long time).
  public func flush(timeoutMilliseconds: Int32 = -1) throws(ClientError) {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    while try !flushAvailable() {
      let ready = try wait(reads: false, writes: true, deadline.remainingMilliseconds)
      guard ready != nil else { throw .timedOut("the broker to take what was sent") }
    }
  }

  /// Writes bytes past `output`, which must be empty: whole frames, or the rest of what an earlier
  /// call did not take. Returns how many the kernel took.
  public func write(_ bytes: RawSpan) throws(ClientError) -> Int {
    let result = bytes.withUnsafeBytes { socket?.descriptor.write($0) }
    guard let result else { throw .notConnected }
    switch result {
    case .count(let count):
      lastSentNanoseconds = Clock.monotonicNanoseconds()
      return count
    case .wouldBlock: return 0
    case .ended: throw fail(.disconnected)
    case .failed(let error):
      throw fail(.system(operation: "write to the broker", code: error.code))
    }
  }

  // MARK: Receiving

  /// Hands over what has come, and waits for something at most `timeoutMilliseconds` (-1: for
  /// ever) if nothing has. Keeps up the heartbeats meanwhile. Whether anything was handed over.
  @discardableResult
  public func receive(
    into sink: any WireSink, timeoutMilliseconds: Int32 = -1
  ) throws(ClientError) -> Bool {
    try receive(into: sink, until: Deadline(milliseconds: timeoutMilliseconds)) { false }
  }

  /// Hands over what has come, without waiting; reads at most once. Whether anything was handed
  /// over: if so, more may be there.
  @discardableResult
  public func receiveAvailable(into sink: any WireSink) throws(ClientError) -> Bool {
    if try dispatch(into: sink, until: { false }) { return true }
    _ = try fill()
    return try dispatch(into: sink, until: { false })
  }

  /// Hands over until `isEnough` says so, something was handed over, or the deadline has passed.
  @discardableResult
  func receive(
    into sink: any WireSink, until deadline: Deadline, _ isEnough: () -> Bool
  ) throws(ClientError) -> Bool {
    while true {
      if try dispatch(into: sink, until: isEnough) { return true }
      try tick()
      let limit = deadline.remainingMilliseconds
      let beat = heartbeatSeconds == 0 ? -1 : Int32(heartbeatSeconds) * 250
      let wait = limit < 0 ? beat : beat < 0 ? limit : min(limit, beat)
      if try self.wait(reads: true, writes: !output.isEmpty, wait) != nil {
        try flushAvailable()
        _ = try fill()
      } else if limit >= 0, deadline.hasPassed {
        return false
      }
    }
  }

  /// Reads once into the receive buffer; whether anything came. For those who parse the bytes
  /// themselves, in `readable`, and `consume` what they took.
  public func fill() throws(ClientError) -> Bool {
    let room = UnsafeMutableRawBufferPointer(start: input.reserve(readSize), count: readSize)
    guard let result = socket?.descriptor.read(into: room) else { throw .notConnected }
    switch result {
    case .count(let count):
      input.advance(count)
      lastReceivedNanoseconds = Clock.monotonicNanoseconds()
      return true
    case .wouldBlock: return false
    case .ended: throw fail(.disconnected)
    case .failed(let error):
      throw fail(.system(operation: "read from the broker", code: error.code))
    }
  }

  /// What was received and not handed over; valid until the next call.
  public var readable: UnsafeRawBufferPointer { input.readable }

  /// Forgets the first `size` bytes of `readable`.
  public func consume(_ size: Int) {
    input.consume(size)
  }

  /// Hands over what lies whole in the receive buffer, until `isEnough`. For those who parse most
  /// of the bytes themselves, and leave to this what they do not know.
  public func dispatch(
    into sink: any WireSink, until isEnough: () -> Bool
  ) throws(ClientError) -> Bool {
    invariant(!isHandingOver, "a sink received from the connection that called it")
    isHandingOver = true
    defer { isHandingOver = false }
    var hasHandedOver = false
    while !input.isEmpty, !isEnough() {
      let step: FrameParser.Step
      do {
        step = try parser.step(input.readable.bytes, into: sink)
      } catch {
        throw fail(error)
      }
      switch step {
      case .incomplete: return hasHandedOver
      case .handled(let size): input.consume(size)
      case .method(let method, let channel, let size):
        input.consume(size)
        try react(to: method, channel: channel)
        sink.received(method, channel: channel)
      }
      hasHandedOver = true
    }
    return hasHandedOver
  }

  /// Sends a heartbeat if one is due, and finds out that the broker is gone. To be called at least
  /// four times in a heartbeat interval by whoever does not use `receive`.
  public func tick() throws(ClientError) {
    guard heartbeatSeconds > 0 else { return }
    let now = Clock.monotonicNanoseconds()
    let interval = Int64(heartbeatSeconds) * 1_000_000_000
    if now - lastReceivedNanoseconds > 2 * interval {
      throw fail(.timedOut("a sign of life from the broker, for \(2 * heartbeatSeconds) s"))
    }
    if now - lastSentNanoseconds > interval / 2, output.isEmpty {
      output.appendHeartbeat()
      try flushAvailable()
    }
  }

  /// Nothing was read for a while, on purpose: that the broker was not heard says nothing of it.
  func listenAgain() { lastReceivedNanoseconds = Clock.monotonicNanoseconds() }

  // MARK: Private

  private func react(to method: Method, channel: UInt16) throws(ClientError) {
    switch method {
    case .connectionClose(let close):
      output.append(.connectionCloseOk(ConnectionCloseOk()), channel: 0)
      _ = try? flushAvailable()
      throw fail(.connectionClosed(CloseReason(close)))
    case .connectionBlocked(let blocked): blockedReason = blocked.reason.description
    case .connectionUnblocked: blockedReason = nil
    case .channelClose:
      parser.forget(channel: channel)
      output.append(.channelCloseOk(ChannelCloseOk()), channel: channel)
      try flushAvailable()
    case .channelFlow(let flow):
      output.append(.channelFlowOk(ChannelFlowOk(active: flow.active)), channel: channel)
      try flushAvailable()
    default: break
    }
  }

  func wait(
    reads: Bool, writes: Bool, _ timeoutMilliseconds: Int32
  ) throws(ClientError) -> Readiness? {
    guard socket != nil else { throw .notConnected }
    do {
      return try socket?.descriptor.wait(
        reads: reads, writes: writes, timeoutMilliseconds: timeoutMilliseconds)
    } catch {
      throw fail(ClientError(error))
    }
  }

  /// Closes the socket because of `error`, and gives it back to be thrown.
  func fail(_ error: ClientError) -> ClientError {
    disconnect()
    return error
  }

  func agree(frameMax: Int, channelMax: UInt16, heartbeatSeconds: UInt16) {
    self.frameMax = frameMax
    self.channelMax = channelMax
    self.heartbeatSeconds = heartbeatSeconds
    parser.payloadMax = frameMax
  }
}
