import AMQP
import Base
import Broker

/// One client's AMQP conversation: bytes in, bytes out. It knows no socket and no clock; whoever has
/// them feeds it and sends what it writes to `out`.
final class Session {
  enum State: Equatable {
    case awaitingHeader, awaitingStartOK, awaitingTuneOK, awaitingOpen, open
    /// We sent connection.close: everything but close-ok is discarded.
    case closing
    /// Nothing more is read or written; what is in `out` is sent before the socket is closed.
    case closed
  }

  let broker: Broker
  let settings: SessionSettings
  let log: Log
  let peerName: String
  let isLoopback: Bool
  let toldArguments: ToldArguments

  var state = State.awaitingHeader
  var pause = ConversationPause.none
  /// The method that paused was not answered: its frame is to be parsed again.
  var isRepeating = false
  /// What is sent when the log is durable up to where `pause` says.
  var delayedReply: (method: Method, channel: UInt16)?
  /// Consumers that the broker ended, of which the client is told behind the answer to what it asked.
  private var endedConsumers: [(tag: Name, channel: UInt16)] = []
  /// A request is being performed, and not answered yet.
  private var isPerforming = false
  /// The last that is for this connection is delivered, and then all that it held is given up.
  private(set) var isReleasing = false
  /// Told that it is blocked, and not that it no longer is.
  private var isToldBlocked = false
  /// Takes messages although the broker takes none, as the connection's or channel's close is behind.
  var isPassing = false
  /// Bytes that may still pass in this way while the client is blocked.
  var passBytesLeft = Session.passBytesMax
  /// Bytes of the input in which no close was found.
  var bytesLookedAt = 0
  var out = ByteBuffer()
  /// Large bodies that stand between the bytes of `out`, and are not copied into it.
  var owed = OwedBodies()
  /// Bytes that are to be sent.
  @inline(__always) var unsentBytes: Int { out.count &+ owed.byteCount }
  /// Has something in `out`, and is in the loop's list of sessions to flush.
  var isDirty = false
  /// So many answers are unsent that the client's next requests wait.
  var isOutputFull = false
  /// Above so much in `out` a delivery looks at what that means for memory.
  var outputLook = 0
  /// What the account of memory has of `out`.
  private var countedOutput = 0
  weak var host: (any ConversationHost)?
  /// The client has closed, and was told close-ok.
  var isClosedByClient = false
  /// There are too many connections; this one is refused when it opens its virtual host.
  var isOverLimit = false

  var user: Name = ""
  /// How the client said who it is.
  var mechanism: Name = ""
  var client = ClientProperties()
  var peer: Peer?
  /// The client closed the connection, and hears of it when all is given up.
  private var leaving: Peer?
  /// By their numbers, which clients choose.
  var channels: [SessionChannel?] = []
  /// What the account of memory has of that table.
  private var countedChannels = 0
  var channelCount = 0
  /// The largest frame. Its overhead of 8 bytes may come on top, since some clients count it and
  /// some do not.
  var frameMax: Int {
    didSet { wholeBodyMax = min(frameMax - Frame.overhead, settings.copiedBodyMax) }
  }
  /// Larger bodies are not copied into `out`, or take more than one frame.
  var wholeBodyMax: Int
  var channelMax: Int
  /// Seconds; 0 is none.
  var heartbeat = 0
  /// Both sides have agreed on the limits.
  var isTuned: Bool {
    switch state {
    case .awaitingHeader, .awaitingStartOK, .awaitingTuneOK: false
    case .awaitingOpen, .open, .closing, .closed: true
    }
  }
  /// A message has been published here.
  var isPublisher = false

  /// Bytes that are missing of the body frame that is arriving in pieces, and its channel.
  var partialBody: (missing: Int, channel: UInt16)?
  /// Memory of all messages that have begun and did not arrive to their end.
  var heldBytes = 0 {
    didSet { broker.account.add(heldBytes - oldValue, to: .bodies) }
  }
  /// Bytes of their bodies, and of their properties.
  var assembledBytes = 0
  var headBytes = 0
  /// Counts up with everything that comes of such messages.
  var contentProgress = 0

  init(
    broker: Broker, settings: SessionSettings, log: Log, peerName: String, isLoopback: Bool,
    toldArguments: ToldArguments
  ) {
    self.broker = broker
    self.settings = settings
    self.log = log
    self.peerName = peerName
    self.isLoopback = isLoopback
    self.toldArguments = toldArguments
    frameMax = settings.frameMaxBeforeTune
    wholeBodyMax = min(settings.frameMaxBeforeTune - Frame.overhead, settings.copiedBodyMax)
    channelMax = settings.channelMax
  }

  // MARK: Writing

  @inline(__always)
  func markDirty() {
    if !isDirty {
      isDirty = true
      host?.hasOutput()
    }
  }

  func send(_ method: Method, on channel: UInt16) {
    guard state != .closed else { return }
    out.append(method, channel: channel)
    markDirty()
  }

  /// What was asked for goes on between turns.
  private var isWorking: Bool { (peer ?? leaving)?.isWorking == true }

  /// Sends a reply now, or as soon as the log is durable as far as it must be.
  func reply(_ method: Method, on channel: UInt16, _ committed: Committed) {
    let position: Int
    switch committed {
    case .now: position = 0
    case .whenDurable(let end): position = end
    }
    let isDurable = position <= broker.journal.durablePosition
    if isDurable, !isWorking { return send(method, on: channel) }
    if !isDurable, let reason = broker.journal.failure {
      return fail(.journalFailed(reason: reason))
    }
    delayedReply = (method, channel)
    pause = .untilDurable(position)
  }

  /// The log moved, or work was done. Returns whether parsing can go on.
  func resume(durable position: Int) -> Bool {
    guard case .untilDurable(let wanted) = pause, wanted <= position, !isWorking
    else { return false }
    let worked = peer?.workedUpTo ?? 0
    guard worked <= position else {
      // Work that is done now has to be durable as well.
      pause = .untilDurable(worked)
      if let reason = broker.journal.failure { logFailed(reason) }
      return false
    }
    pause = isToldBlocked && broker.alarm != nil ? .blocked : .none
    if let (method, channel) = delayedReply { send(method, on: channel) }
    delayedReply = nil
    if leaving != nil {
      leaving = nil
      state = .closed
    }
    tellEndedConsumers()
    return true
  }

  /// Another turn has begun. Returns whether parsing can go on.
  func resumeInTurn() -> Bool {
    guard pause == .untilNextTurn else { return false }
    pause = .none
    return true
  }

  func waitForTurn() { pause = .untilNextTurn }

  /// Performs a request: what it leads to is told behind its answer.
  func performing(_ body: () -> Void) {
    isPerforming = true
    body()
    isPerforming = false
    if delayedReply == nil { tellEndedConsumers() }
  }

  func consumerCancelled(_ tag: Name, on channel: Channel) {
    guard client.wantsCancelNotify else { return }
    endedConsumers.append((tag, channel.number))
    if !isPerforming, delayedReply == nil { tellEndedConsumers() }
  }

  private func tellEndedConsumers() {
    guard !endedConsumers.isEmpty else { return }
    // Who hears that the channel is closed hears nothing more on it.
    for (tag, channel) in endedConsumers where isOpen(channel) {
      send(.basicCancel(.init(consumerTag: tag, noWait: true)), on: channel)
    }
    endedConsumers = []
  }

  private func isOpen(_ channel: UInt16) -> Bool {
    guard Int(channel) < channels.count, let open = channels[Int(channel)] else { return false }
    return !open.isClosing
  }

  /// The log failed: what waits for it will not come.
  func logFailed(_ reason: String) {
    guard case .untilDurable(let wanted) = pause, wanted > broker.journal.durablePosition
    else { return }
    pause = .none
    delayedReply = nil
    fail(.journalFailed(reason: reason))
  }

  func heartbeatDue() {
    guard state == .open else { return }
    out.appendHeartbeat()
    markDirty()
  }

  // MARK: Memory of output

  /// Deliveries wait while so much is unsent: less when slow readers take much memory together.
  var outputRoom: Int {
    broker.account.isOverBudget(.output)
      ? min(Self.outputStep, settings.outputMax) : settings.outputMax
  }

  private static let outputStep = 64 << 10

  /// Brings the account of memory up to date.
  func countOutput() {
    let capacity = out.capacity
    guard capacity != countedOutput else { return }
    broker.account.add(capacity - countedOutput, to: .output)
    countedOutput = capacity
  }

  /// Deliveries have added some: perhaps there is no room for more.
  @inline(never)
  func outputGrew() {
    countOutput()
    if unsentBytes >= outputRoom { peer?.roomFilled() }
    if broker.account.isExhausted(.output) { broker.exhaustOutput() }
    setLook()
  }

  /// Some was sent. While output takes too much memory none is kept for what comes next: a reader that
  /// has taken everything is not slow, and would count as if it were as long as it gets small messages.
  func outputWritten() {
    if out.isEmpty, broker.account.isOverBudget(.output) {
      out.shrink(to: 0)
      countOutput()
    }
    setLook()
  }

  private func setLook() {
    let own = out.count
    outputLook = max(own + 1, min(own + Self.outputStep, settings.outputMax - owed.byteCount))
  }

  /// What the socket may get next: bytes of its own up to a body, or a part of a body, copied into
  /// `stage`. Empty if there is nothing.
  func nextOutput(_ stage: UnsafeMutableRawBufferPointer) -> UnsafeRawBufferPointer {
    if owed.isEmpty { return out.readable }
    let own = owed.ownBefore
    if own > 0 { return UnsafeRawBufferPointer(rebasing: out.readable[..<own]) }
    return UnsafeRawBufferPointer(rebasing: stage[..<owed.copy(into: stage)])
  }

  /// The socket took so much of `nextOutput`. Returns whether that was a body's.
  func outputTaken(_ count: Int) -> Bool {
    if owed.isEmpty || owed.ownBefore > 0 {
      out.consume(count)
      owed.ownWritten(count)
      return false
    }
    if let loan = owed.written(count) { broker.journal.endLoan(loan) }
    return true
  }

  /// What is unsent stays so.
  func giveUpOutput() {
    while let loan = owed.giveUp() { broker.journal.endLoan(loan) }
    out.removeAll()
    out.shrink(to: 0)
  }

  /// The table of channels has grown, or is gone.
  func countChannels() {
    let bytes = channels.capacity * MemoryLayout<SessionChannel?>.stride
    broker.account.add(bytes - countedChannels, to: .connections)
    countedChannels = bytes
  }

  // MARK: Blocking

  /// The broker cannot take more messages, and this client just sent one.
  func block(_ reason: String) {
    pause = .blocked
    bytesLookedAt = 0
    guard !isToldBlocked else { return }
    isToldBlocked = true
    if client.wantsBlocked { send(.connectionBlocked(.init(reason: Name(reason))), on: 0) }
    log.tell(.blocked, of: peerName, "\(peerName) is blocked: \(reason)")
  }

  /// The broker takes messages again. Returns whether parsing can go on.
  func unblock() -> Bool {
    if isToldBlocked {
      isToldBlocked = false
      passBytesLeft = Self.passBytesMax
      if client.wantsBlocked { send(.connectionUnblocked(.init()), on: 0) }
    }
    guard pause == .blocked else { return false }
    pause = .none
    return true
  }

  // MARK: Ending

  /// A peer's mistake that ends the connection: it is told why, and everything it held is given up.
  func fail(_ error: PeerError, _ method: MethodID = .none) {
    guard state != .closing, state != .closed else { return }
    let canBeTold = state != .awaitingHeader
    log.tell(.closedByBroker, of: peerName, "\(peerName) closed by the broker: \(error)")
    release()
    guard canBeTold else {
      state = .closed
      return
    }
    send(
      .connectionClose(
        .init(
          replyCode: error.code.rawValue, replyText: error.replyText, classId: method.classID,
          methodId: method.methodID)), on: 0)
    state = .closing
  }

  /// The client closes the connection: that is answered when all that it held is given up.
  func close() {
    let peer = peer
    release(isAnswered: true)
    if peer?.isWorking == true { leaving = peer }
    reply(.connectionCloseOk(.init()), on: 0, .now)
    if leaving == nil { state = .closed }
  }

  /// Gives up all that the connection held in the broker.
  func release(isAnswered: Bool = false) {
    // What came before the end is delivered, to whoever is to have it.
    isReleasing = true
    broker.pumpForRequest()
    isReleasing = false
    if let peer {
      host?.willRelease()
      peer.close(isAnswered: isAnswered)
    }
    broker.letGo(of: channels)
    peer = nil
    leaving = nil
    channels = []
    countChannels()
    channelCount = 0
    heldBytes = 0
    assembledBytes = 0
    headBytes = 0
    partialBody = nil
    pause = .none
    delayedReply = nil
    endedConsumers = []
  }

  /// The broker stops: the client is told.
  func stop() {
    if state == .open {
      fail(.brokerStopping)
    } else {
      release()
      state = .closed
    }
  }
}

/// What every session goes by.
package struct SessionSettings: Sendable {
  var user: Name = "guest"
  var password: [UInt8] = Array("guest".utf8)
  var guestLoopbackOnly = true
  package var frameMax = 131_072
  /// Start-ok with a long token must fit before anything is negotiated.
  var frameMaxBeforeTune = 65_536
  var channelMax = 2047
  var connectionsMax = 100_000
  /// Seconds.
  package var heartbeat = 60
  var messageSizeMax = 128 << 20
  /// Deliveries wait while so much is unsent.
  package var outputMax = 1 << 20
  /// Larger bodies are not copied into a connection's output, nor where they are stored.
  package var copiedBodyMax = BrokerLimits.copiedBodyMax
  /// Requests wait while so much is unsent: a few bytes may ask for a large message.
  var answersMax: Int { 4 * outputMax }
  /// What the broker calls itself towards clients, since many choose by it what to ask for.
  var product = Options().product
  var productVersion = Options().productVersion

  package init() {}
}

/// What a client said of itself.
struct ClientProperties {
  var name = ""
  var product = ""
  var wantsBlocked = false
  var wantsCancelNotify = false
  var wantsAuthenticationFailureClose = false
  var wantsRollback = false
  /// What listeners to events are shown of it.
  var shown = FieldTable()

  /// Others may be long.
  private static let shownNames: [Name] = [
    "product", "version", "platform", "information", "connection_name",
  ]

  init() {}

  init(_ table: FieldTable, isShown: Bool) {
    name = LogText.name(table["connection_name"]?.text ?? "")
    product = LogText.name(
      [table["product"]?.text, table["version"]?.text].compactMap(\.self).joined(separator: " "))
    for name in isShown ? Self.shownNames : [] {
      guard case .string(let text)? = table[name] else { continue }
      shown.entries.append(.init(name: name, value: .string(Name(text).bytes)))
    }
    guard case .table(let capabilities) = table["capabilities"] else { return }
    wantsBlocked = capabilities["connection.blocked"] == .bool(true)
    wantsCancelNotify = capabilities["consumer_cancel_notify"] == .bool(true)
    wantsAuthenticationFailureClose =
      capabilities["authentication_failure_close"] == .bool(true)
    wantsRollback = capabilities["tx_rollback_unroutable"] == .bool(true)
  }
}
