import AMQP
import Base
import IO
import Synchronization

/// A connection to an AMQP 0-9-1 broker.
///
///     let connection = try await Connection.open("amqp://guest:guest@localhost")
///     let channel = try await connection.openChannel()
///     let queue = try await channel.declareQueue("greetings", durable: true)
///     try await channel.publishConfirmed("hello", key: queue.name)
///     for try await delivery in try await channel.consume(queue.name) {
///       print(delivery.text ?? "")
///       try delivery.ack()
///     }
///     try await connection.close()
///
/// One thread of its own reads and writes the socket and keeps up the heartbeats. What tasks send
/// gathers while it writes, so that many small messages become few writes. A connection can be
/// shared by any number of tasks; it stays open until it is closed or lost, whoever still refers to
/// it. It does not reconnect: when it is lost, everything that waits for it throws, and the caller,
/// who knows what must be declared and sent again, opens another.
public final class Connection: Sendable {
  public let url: ConnectionURL
  public let options: ConnectionOptions
  /// What the broker says of itself.
  public let serverProperties: FieldTable
  /// The agreed size of the largest frame, with its overhead.
  public let frameMax: Int
  /// The agreed number of the last channel.
  public let channelMax: UInt16

  /// Wakes the connection's thread.
  let wakeup: Wakeup
  let state = Mutex(ConnectionState())
  /// Tasks that wait for the broker's answer to something: while there are any, the connection
  /// reads on however much its consumers have in their buffers, since the answer may be behind it.
  private let expecting = Atomic(0)
  /// Bytes that consumers have in their buffers.
  private let undelivered = Atomic(0)

  /// Whether the broker can roll back a transaction with a mandatory message that no queue takes.
  public var rollsBackUnroutable: Bool {
    guard case .table(let capabilities)? = serverProperties["capabilities"] else { return false }
    return capabilities[WireOptions.rollbackCapability] == .bool(true)
  }

  init(
    _ wire: borrowing WireConnection, _ options: ConnectionOptions
  ) throws(SystemError) {
    url = wire.url
    self.options = options
    serverProperties = wire.serverProperties
    frameMax = wire.frameMax
    channelMax = wire.channelMax
    wakeup = try Wakeup()
  }

  /// Connects, logs in and opens the virtual host that `url` names.
  public static func open(
    _ url: String = "amqp://guest:guest@localhost:5672/",
    options: ConnectionOptions = ConnectionOptions()
  ) async throws(ClientError) -> Connection {
    try await open(try ConnectionURL(url), options: options)
  }

  /// Connects, logs in and opens the virtual host that `url` names.
  public static func open(
    _ url: ConnectionURL, options: ConnectionOptions = ConnectionOptions()
  ) async throws(ClientError) -> Connection {
    let opening = Waiter<Connection>()
    do {
      _ = try Thread(name: "amqp client") { ConnectionLoop.run(url, options, opening) }
    } catch {
      throw ClientError(error)
    }
    return try await opening.value()
  }

  /// Opens a channel. Channels are cheap, and each has its own consumers, confirms and errors: what
  /// goes wrong on one closes only that one.
  public func openChannel() async throws(ClientError) -> Channel {
    let channel = try state.withLock { state throws(ClientError) -> Channel in
      try state.check()
      guard let number = state.freeChannel(max: channelMax) else {
        throw .channelsExhausted(Int(channelMax))
      }
      let channel = Channel(self, number: number)
      state.channels[number] = channel
      return channel
    }
    try await channel.open()
    return channel
  }

  /// Closes the connection in order: all that was sent before is sent, then the broker is told.
  /// Channels end with it. Closing what is closed does nothing.
  public func close() async throws(ClientError) {
    let goodbye = ConnectionClose(
      replyCode: ReplyCode.replySuccess.rawValue, replyText: "goodbye", classId: 0, methodId: 0)
    let isFirst = state.withLock { state in
      guard state.ended == nil, state.closeDeadline == nil else { return false }
      state.outbound.append(.connectionClose(goodbye), channel: 0)
      state.closeDeadline = Deadline(milliseconds: Self.closeTimeoutMilliseconds)
      return true
    }
    if isFirst { wakeup.signal() }
    beginExpecting()
    defer { endExpecting() }
    let error = await waitUntilClosed()
    if let error, error != .notConnected { throw error }
  }

  /// How long the broker may take to say goodbye.
  static let closeTimeoutMilliseconds: Int32 = 5000

  /// Waits until the connection has ended. The result is why; nil if it was closed by this side.
  public func waitUntilClosed() async -> ClientError? {
    let waiter: Waiter<Void>? = state.withLock { state in
      guard state.ended == nil else { return nil }
      let waiter = Waiter<Void>()
      state.endWaiters.append(waiter)
      return waiter
    }
    do throws(ClientError) {
      try await waiter?.value()
    } catch {
      return error
    }
    let ended = state.withLock { $0.ended }
    return ended == .notConnected ? nil : ended
  }

  /// Whether the connection has ended, for whatever reason.
  public var isClosed: Bool { state.withLock { $0.ended != nil } }

  /// Why the broker takes no messages at the moment; nil while it does. What is published meanwhile
  /// waits.
  public var blockedReason: String? { state.withLock { $0.blockedReason } }

  /// The changes of `blockedReason`, from now on. For one task.
  public var blockedReasons: AsyncStream<String?> {
    AsyncStream { continuation in
      let isOpen = state.withLock { state in
        guard state.ended == nil else { return false }
        state.blockedStreams.append(continuation)
        return true
      }
      if !isOpen { continuation.finish() }
    }
  }

  // MARK: What the thread of the connection needs to know

  func beginExpecting() {
    let (before, _) = expecting.add(1, ordering: .sequentiallyConsistent)
    if before == 0, isOverfull { wakeup.signal() }
  }

  func endExpecting() {
    expecting.subtract(1, ordering: .sequentiallyConsistent)
  }

  /// A consumer has put so many bytes in its buffer, or, if negative, taken them out.
  func countUndelivered(_ bytes: Int) {
    let (before, after) = undelivered.add(bytes, ordering: .sequentiallyConsistent)
    let resumeAt = options.undeliveredMaxBytes / 2
    if before > resumeAt, after <= resumeAt { wakeup.signal() }
  }

  private var isOverfull: Bool {
    undelivered.load(ordering: .sequentiallyConsistent) > options.undeliveredMaxBytes
  }

  /// Whether the socket shall be read. Once the buffers were too full they must be half empty.
  func mayRead(wasReading: Bool) -> Bool {
    if expecting.load(ordering: .sequentiallyConsistent) > 0 { return true }
    let limit = options.undeliveredMaxBytes / (wasReading ? 1 : 2)
    return undelivered.load(ordering: .sequentiallyConsistent) <= limit
  }
}
