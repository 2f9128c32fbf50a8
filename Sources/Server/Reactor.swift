import AMQP
import Base
import Broker
import Glibc
import IO
import Journal

/// A socket that clients connect to.
final class Listener {
  let socket: Socket

  init(_ socket: consuming Socket) {
    self.socket = socket
  }
}

/// The core thread's loop: it owns the broker and all connections. A turn waits, reads, routes,
/// delivers, hands the log its batch, and writes.
final class Reactor {
  let options: Options
  let settings: SessionSettings
  let log: Log
  let broker: Broker
  let poller: Poller
  private let journalWake: SharedWakeup
  private let signals: SignalQueue
  let listeners: [Listener]
  /// Listeners are not watched while the process has no descriptors left.
  var isAccepting = true

  /// Connections by the lower half of their token; the upper half tells users of a slot apart.
  var connections: [Connection?] = []
  var freeSlots: [Int] = []
  var connectionCount = 0
  /// Descriptors are kept free for the journal; clients above this are not even told why.
  let socketsMax: Int
  /// Clients above the limit that are told so at the same time.
  private static let refusedMax = 64
  private static let descriptorReserve = 64
  var generation: UInt64 = 0

  /// Connections whose sessions have something to send.
  var dirty: [Connection] = []
  private var flushing: [Connection] = []
  /// Connections that wait for the log, for memory, or for the log to catch up.
  var paused: [Connection] = []
  /// A turn is due without waiting.
  var hasMore = false
  var isFailureAnnounced = false
  private var stopDeadline: Int64?
  let memoryLimitBytes: Int
  var isMemoryHigh = false
  var spaceProblem: String?
  private var nextSweep: Int64 = 0
  /// When a client was heard last, and whether memory was given back since then.
  private var heardAt: Int64 = 0
  private var hasReleasedMemory = true
  /// Monotonic milliseconds of this turn.
  private(set) var now: Int64 = 0

  private let readBuffer: UnsafeMutableRawBufferPointer
  private static let readBytes = 64 << 10
  private static let sweepMilliseconds: Int64 = 250
  /// After so long without a word from any client, unused memory is given back.
  private static let quietMilliseconds: Int64 = 2000
  static let lingerMilliseconds: Int64 = 3000
  private static let stopMilliseconds: Int64 = 2000

  enum Token {
    static let journal: UInt64 = .max
    static let signals: UInt64 = .max - 1
    /// Listeners count up from here.
    static let listeners: UInt64 = .max - 1024
  }

  init(
    options: Options, log: Log, broker: Broker, listeners: [Listener],
    signals: consuming SignalQueue, journalWake: SharedWakeup, descriptorLimit: Int
  ) throws(SystemError) {
    self.options = options
    settings = SessionSettings(options)
    self.log = log
    self.broker = broker
    self.listeners = listeners
    self.journalWake = journalWake
    socketsMax = min(
      options.connectionsMax + Self.refusedMax, descriptorLimit - Self.descriptorReserve)
    poller = try Poller()
    memoryLimitBytes = options.effectiveMemoryLimitBytes
    readBuffer = .allocate(
      byteCount: 2 * Self.readBytes + options.frameMaxBytes, alignment: 4096)
    try poller.add(signals.descriptor.raw, token: Token.signals, reads: true, writes: false)
    self.signals = signals
    try poller.add(journalWake.raw, token: Token.journal, reads: true, writes: false)
    for (index, listener) in listeners.enumerated() {
      try poller.add(
        listener.socket.descriptor.raw, token: Token.listeners + UInt64(index), reads: true,
        writes: false)
    }
  }

  deinit {
    readBuffer.deallocate()
  }

  // MARK: Turns

  /// Runs until a signal stops it and all clients are gone, or had their time.
  func run() throws(SystemError) {
    while true {
      try turn()
      if let stopDeadline, connectionCount == 0 || now >= stopDeadline { return }
    }
  }

  private func turn() throws(SystemError) {
    let timeout = hasMore ? 0 : waitMilliseconds()
    hasMore = false
    var isWoken = false
    var hasSignal = false
    var isTimeRead = false
    try poller.wait(timeoutMilliseconds: timeout) { event in
      if !isTimeRead {
        readTime()
        isTimeRead = true
      }
      switch event.token {
      case Token.journal: isWoken = true
      case Token.signals: hasSignal = true
      case Token.listeners...: accept(listeners[Int(event.token - Token.listeners)])
      default: serve(event)
      }
    }
    if !isTimeRead { readTime() }
    if isWoken { journalMoved() }
    if hasSignal { handleSignals() }
    if now >= nextSweep { sweep() }
    let hadChores = broker.hasChores
    broker.end()
    if broker.hasChores { hasMore = true }
    if hadChores { resumeWaiting() }
    if let problem = broker.journal.lastProblem {
      log.error(problem)
      broker.journal.lastProblem = nil
    }
    announceFailure()
    watchMemory()
    flushDirty()
  }

  private func readTime() {
    now = Clock.monotonicNanoseconds() / 1_000_000
    broker.begin(now: Clock.wallMilliseconds())
  }

  private func waitMilliseconds() -> Int32 {
    let isWaiting =
      spaceProblem != nil || broker.alarm != nil || stopDeadline != nil
      || broker.journal.wantsTending
    let hasWork = connectionCount > 0 || isWaiting || !isAccepting || !hasReleasedMemory
    guard hasWork else { return -1 }
    return Int32(clamping: max(1, nextSweep - now))
  }

  private func handleSignals() {
    while let signal = signals.next() {
      if signal == SIGUSR1 {
        logStatus()
        continue
      }
      if stopDeadline != nil {
        log.warning("stopping at once, as asked for twice")
        stopDeadline = now
        continue
      }
      log.info("stopping, as signal \(signal == SIGINT ? "SIGINT" : "SIGTERM") asks for")
      stopDeadline = now + Self.stopMilliseconds
      for listener in listeners { poller.remove(listener.socket.descriptor.raw) }
      for connection in connections.compactMap(\.self) {
        connection.session.stop()
        watch(connection)
        settle(connection)
      }
    }
  }

  // MARK: Input

  private func serve(_ event: PollEvent) {
    let slot = Int(event.token & 0xFFFF_FFFF)
    guard slot < connections.count, let connection = connections[slot],
      connection.token == event.token
    else { return }
    if event.isWritable { flush(connection) }
    if connection.isClosed { return }
    if event.isReadable, connection.wantsReads {
      read(connection)
    } else if event.isHangup {
      drop(connection, "the connection broke")
    }
  }

  private func read(_ connection: Connection) {
    let kept = connection.leftover.count
    readBuffer.copyMemory(from: connection.leftover.readable)
    let room = UnsafeMutableRawBufferPointer(
      rebasing: readBuffer[kept..<min(kept + Self.readBytes, readBuffer.count)])
    switch connection.socket.descriptor.read(into: room) {
    case .count(let count):
      connection.receivedAt = now
      heardAt = now
      hasReleasedMemory = false
      if connection.isLingering { return }
      connection.leftover.removeAll()
      take(connection, UnsafeRawBufferPointer(rebasing: readBuffer[..<(kept + count)]))
    case .wouldBlock: break
    case .ended: drop(connection, connection.isLingering ? nil : "the client is gone")
    case .failed(let error): drop(connection, connection.isLingering ? nil : "\(error)")
    }
  }

  /// Gives the session bytes and keeps what it does not take.
  private func take(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) {
    let taken = connection.session.receive(bytes.bytes)
    if taken < bytes.count {
      connection.leftover.append(UnsafeRawBufferPointer(rebasing: bytes[taken...]))
    } else if connection.leftover.capacity > 0 {
      connection.leftover.shrink(to: 0)
    }
    broker.pump()
    settle(connection)
  }

  /// After the session did something: notes what it waits for.
  func settle(_ connection: Connection) {
    let session = connection.session
    if session.isPublisher, broker.journal.isCongested, !connection.isThrottled {
      connection.isThrottled = true
    }
    if connection.isThrottled || session.pause != .none, !connection.isPaused {
      connection.isPaused = true
      paused.append(connection)
    }
    if session.state == .closing || session.state == .closed, connection.deadline == .max {
      connection.deadline = now + Self.lingerMilliseconds
    }
    if session.state == .closed, !session.isDirty { markDirty(connection) }
    watch(connection)
  }

  /// Goes on with a connection that waited.
  func resume(_ connection: Connection) {
    guard !connection.isClosed else { return }
    let bytes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: connection.leftover.count, alignment: 1)
    defer { bytes.deallocate() }
    bytes.copyMemory(from: connection.leftover.readable)
    connection.leftover.removeAll()
    take(connection, UnsafeRawBufferPointer(bytes))
  }

  private func journalMoved() {
    journalWake.clear()
    broker.journalMoved()
    resumeWaiting()
    watchSpace()
  }

  /// Goes on with those whose replies may leave now.
  private func resumeWaiting() {
    let journal = broker.journal
    resumePaused { connection in
      let mayGoOn = connection.session.resume(durable: journal.durablePosition)
      guard connection.isThrottled, !journal.isCongested else { return mayGoOn }
      connection.isThrottled = false
      return true
    }
  }

  /// Asks each connection that waits whether it can go on; those that cannot keep waiting.
  func resumePaused(_ canGoOn: (Connection) -> Bool) {
    let waiting = paused
    paused = []
    for connection in waiting {
      connection.isPaused = false
      guard !connection.isClosed else { continue }
      if canGoOn(connection) { resume(connection) } else { settle(connection) }
    }
  }

  // MARK: Output

  func markDirty(_ connection: Connection) {
    connection.session.isDirty = true
    dirty.append(connection)
  }

  private func flushDirty() {
    while !dirty.isEmpty {
      swap(&dirty, &flushing)
      for connection in flushing { flush(connection) }
      flushing.removeAll(keepingCapacity: true)
    }
  }

  private func flush(_ connection: Connection) {
    guard !connection.isClosed else { return }
    let session = connection.session
    session.isDirty = false
    switch connection.flush(now: now) {
    case .failed: return drop(connection, "the client does not take what is sent")
    case .partial: break
    case .done:
      if session.state == .closed, !connection.isLingering { linger(connection) }
    }
    if session.out.count < settings.outputMax / 2 { makeRoom(connection) }
    watch(connection)
  }

  /// Consumers and requests that waited for room are served before the loop waits, or they would wait
  /// for ever.
  private func makeRoom(_ connection: Connection) {
    if let peer = connection.session.peer, !peer.hasRoom {
      peer.roomMade()
      hasMore = true
    }
    if connection.session.isOutputFull, !connection.isThrottled {
      connection.session.isOutputFull = false
      resume(connection)
      hasMore = true
    }
  }

  /// All is said: the client can read it to the end before the socket goes.
  private func linger(_ connection: Connection) {
    connection.isLingering = true
    connection.leftover.removeAll()
    connection.socket.shutdownWrite()
    connection.deadline = min(connection.deadline, now + Self.lingerMilliseconds)
  }

  /// Tells the poller what the connection waits for.
  func watch(_ connection: Connection) {
    guard !connection.isClosed else { return }
    let reads = connection.wantsReads
    let writes = !connection.session.out.isEmpty && !connection.session.isDirty
    guard reads != connection.watchesReads || writes != connection.watchesWrites else { return }
    do throws(SystemError) {
      try poller.change(
        connection.socket.descriptor.raw, token: connection.token, reads: reads, writes: writes)
      connection.watchesReads = reads
      connection.watchesWrites = writes
    } catch {
      drop(connection, "\(error)")
    }
  }

  // MARK: Time

  /// Heartbeats and deadlines, a few times in a second.
  private func sweep() {
    nextSweep = now + Self.sweepMilliseconds
    broker.tend()
    watchSpace()
    watchListeners()
    for case let connection? in connections { sweep(connection) }
    if !hasReleasedMemory, now - heardAt >= Self.quietMilliseconds {
      hasReleasedMemory = true
      broker.journal.releaseUnused()
      ProcessMemory.releaseUnused()
    }
  }

  private func sweep(_ connection: Connection) {
    let session = connection.session
    if now >= connection.deadline {
      return drop(
        connection, connection.isLingering ? nil : "it did not finish the handshake in time")
    }
    if session.state == .open, session.heartbeat > 0 {
      let interval = Int64(session.heartbeat) * 1000
      // A client whose socket is not read cannot be heard either.
      if !connection.wantsReads { connection.receivedAt = now }
      if now - connection.receivedAt > 2 * interval + Self.sweepMilliseconds {
        return drop(connection, "no heartbeat for \(2 * session.heartbeat) seconds")
      }
      let isUnread = session.out.count >= settings.answersMax
      if isUnread, now - connection.sentAt > 2 * interval + Self.sweepMilliseconds {
        return drop(connection, "it has not read for \(2 * session.heartbeat) seconds")
      }
      if now - connection.sentAt >= interval / 2, session.out.isEmpty {
        session.heartbeatDue()
      }
    }
    if session.out.isEmpty, now - connection.sentAt > 1000 { session.out.shrink(to: 0) }
  }
}

/// An event that journal threads signal and the loop waits for.
final class SharedWakeup: Sendable {
  private let wakeup: Wakeup

  init() throws(SystemError) {
    wakeup = try Wakeup()
  }

  var raw: Int32 { wakeup.descriptor.raw }
  func signal() { wakeup.signal() }
  func clear() { wakeup.clear() }
}
