import AMQP
import Base
import IO

/// What the thread of a connection does: it writes what tasks have left in the outbound buffer,
/// reads what the broker sends and hands it to the channels, and keeps up the heartbeats.
final class ConnectionLoop {
  private let wire: WireConnection
  private let connection: Connection
  private let poller: Poller
  private let sink: ConnectionSink
  /// The socket is watched for reading; not while the consumers' buffers are full.
  private var isReading = true
  /// The socket is watched for writing, since the kernel did not take everything.
  private var isWriting = false

  private static let socketToken: UInt64 = 0
  private static let wakeupToken: UInt64 = 1
  /// An output buffer that has grown beyond this is given back once it is empty.
  private static let keptOutputSizeMax = 4 << 20

  /// Opens a connection, brings it to `opening`, and serves it until it ends.
  static func run(
    _ url: ConnectionURL, _ options: ConnectionOptions, _ opening: Waiter<Connection>
  ) {
    do throws(ClientError) {
      var wireOptions = WireOptions()
      wireOptions.connectionName = options.name
      wireOptions.wantsRollback = options.wantsRollback
      let wire = try WireConnection(url, wireOptions)
      let loop: ConnectionLoop
      do throws(SystemError) {
        loop = try ConnectionLoop(wire, try Connection(wire, options))
      } catch {
        throw ClientError(error)
      }
      guard opening.finish(.success(loop.connection)) else { return wire.disconnect() }
      loop.serve()
    } catch {
      opening.finish(.failure(error))
    }
  }

  private init(_ wire: WireConnection, _ connection: Connection) throws(SystemError) {
    self.wire = wire
    self.connection = connection
    sink = ConnectionSink(connection)
    poller = try Poller(eventsMax: 2)
    try poller.add(wire.descriptor, token: Self.socketToken, reads: true, writes: false)
    try poller.add(
      connection.wakeup.descriptor.raw, token: Self.wakeupToken, reads: true, writes: false)
  }

  private func serve() {
    do throws(ClientError) {
      while !sink.isClosed { try turn() }
      connection.end(.notConnected)
    } catch {
      connection.end(error)
    }
    wire.disconnect()
  }

  private func turn() throws(ClientError) {
    if wire.output.isEmpty { connection.takeOutbound(into: &wire.output) }
    let isFlushed = try wire.flushAvailable()
    if isFlushed, wire.output.capacity > Self.keptOutputSizeMax { wire.output.shrink(to: 0) }
    let mayWait = connection.prepareToWait(hasUnsent: !isFlushed)
    do throws(SystemError) {
      try watch(writes: !isFlushed)
      try wait(timeoutMilliseconds: mayWait ? patience : 0)
    } catch {
      throw ClientError(error)
    }
    if isReading { _ = try wire.receiveAvailable(into: sink) }
    if let error = sink.error { throw error }
    try beat()
    try connection.checkCloseDeadline()
  }

  /// How long the thread may sleep without missing a heartbeat or a deadline.
  private var patience: Int32 {
    let beat = wire.heartbeatSeconds == 0 ? -1 : Int32(wire.heartbeatSeconds) * 250
    let deadline = connection.state.withLock { $0.closeDeadline?.remainingMilliseconds } ?? -1
    return deadline < 0 ? beat : beat < 0 ? deadline : min(beat, deadline)
  }

  private func watch(writes: Bool) throws(SystemError) {
    let reads = connection.mayRead(wasReading: isReading)
    guard reads != isReading || writes != isWriting else { return }
    if reads, !isReading { wire.listenAgain() }
    isReading = reads
    isWriting = writes
    try poller.change(wire.descriptor, token: Self.socketToken, reads: reads, writes: writes)
  }

  private func wait(timeoutMilliseconds: Int32) throws(SystemError) {
    try poller.wait(timeoutMilliseconds: timeoutMilliseconds) { event in
      if event.token == Self.wakeupToken { connection.wakeup.clear() }
    }
  }

  /// While nothing is read the broker's heartbeats are not seen either, and only our own go on.
  private func beat() throws(ClientError) {
    if isReading {
      try wire.tick()
    } else if wire.heartbeatSeconds > 0, wire.output.isEmpty {
      wire.output.appendHeartbeat()
    }
  }
}

/// Hands what the broker sends to the channels.
private final class ConnectionSink: WireSink {
  private let connection: Connection
  /// The channel that the last thing was for; most often the next is for it too.
  private var last: Channel?
  /// The broker has said goodbye.
  private(set) var isClosed = false
  /// What the broker sent that a channel could not make sense of.
  private(set) var error: ClientError?

  init(_ connection: Connection) {
    self.connection = connection
  }

  func received(_ message: borrowing WireMessage) {
    guard let channel = channel(message.channel) else { return }
    do {
      try channel.received(message)
    } catch {
      self.error = error
    }
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {
    self.channel(channel)?.confirmed(tag: tag, isMultiple: isMultiple, isAccepted: isAccepted)
  }

  func received(_ method: Method, channel: UInt16) {
    switch method {
    case .connectionBlocked(let blocked): connection.setBlocked(blocked.reason.description)
    case .connectionUnblocked: connection.setBlocked(nil)
    case .connectionCloseOk: isClosed = true
    case .channelClose(let close):
      guard let closed = self.channel(channel) else { return }
      let error = ClientError.channelClosed(channel: channel, CloseReason(close))
      last = nil
      closed.end(error)
      connection.remove(closed, dropsOutbound: true)
    case .channelCloseOk:
      guard let closed = self.channel(channel), closed.isClosing else { return }
      last = nil
      connection.remove(closed, dropsOutbound: false)
      closed.end(.channelNotOpen)
    default:
      self.channel(channel)?.received(method)
    }
  }

  private func channel(_ number: UInt16) -> Channel? {
    if let last, last.number == number { return last }
    last = connection.state.withLock { $0.channels[number] }
    return last
  }
}
