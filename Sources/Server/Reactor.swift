import Base
import Glibc
import IO

/// A socket that clients connect to, and the protocol that they are served in.
struct Listener {
  let socket: ListeningSocket
  let wireProtocol: any WireProtocol
}

/// A socket that is bound, and perhaps does not listen yet.
final class ListeningSocket {
  let socket: Socket

  init(_ socket: consuming Socket) {
    self.socket = socket
  }

  var raw: Int32 { socket.descriptor.raw }
}

/// The core thread: waits for sockets, signals, the journal's threads and what others ask for, reads the
/// clocks, and hands the loop what is ready.
final class Reactor {
  private let log: Log
  private let loop: Loop
  private let poller: Poller
  private let journalWake: SharedWakeup
  private let signals: SignalQueue
  private let commands: Mailbox<LoopCommand>
  private let listeners: [Listener]
  /// When the listeners are watched again, which they are not while the process has no descriptors
  /// left; nil while they are. Monotonic milliseconds.
  private var nextAccept: Int64?
  /// When this turn began, in monotonic nanoseconds.
  private var begun: Int64 = 0
  /// When the last turn ended, in monotonic nanoseconds.
  private var ended = Clock.monotonicNanoseconds()
  /// What the thread had of the processor, from time to time.
  private var processor = ProcessorMark()
  private var polls: PollBudget
  private let room: ClientRoom

  private static let acceptRetryMilliseconds: Int64 = 250
  /// After so long a turn takes no more of what is ready: that is for the next one.
  private static let eventsNanoseconds: Int64 = 4_000_000
  /// After so long it takes up nothing more of what it has to do besides, as far as that can wait.
  private static let turnNanoseconds: Int64 = 5_000_000
  /// Clients that a turn takes from a listener.
  private static let acceptsPerTurn = 64
  private static let receiveBufferBytes: Int32 = 1 << 20

  private enum Token {
    static let journal: UInt64 = .max
    static let signals: UInt64 = .max - 1
    static let commands: UInt64 = .max - 2
    /// Listeners count up from here.
    static let listeners: UInt64 = .max - 1024
  }

  /// `pollNanosecondsMax`: how long a turn's events are looked for at most before they are waited
  /// for.
  init(
    loop: Loop, log: Log, listeners: [Listener], signals: consuming SignalQueue,
    commands: Mailbox<LoopCommand>, journalWake: SharedWakeup, room: ClientRoom,
    pollNanosecondsMax: Int64
  ) throws(SystemError) {
    self.loop = loop
    self.log = log
    self.listeners = listeners
    self.journalWake = journalWake
    self.room = room
    polls = PollBudget(longestNanoseconds: pollNanosecondsMax)
    poller = try Poller()
    try poller.add(signals.descriptor.raw, token: Token.signals, reads: true, writes: false)
    self.signals = signals
    self.commands = commands
    try poller.add(commands.raw, token: Token.commands, reads: true, writes: false)
    try poller.add(journalWake.raw, token: Token.journal, reads: true, writes: false)
    for (index, listener) in listeners.enumerated() {
      try poller.add(
        listener.socket.raw, token: Token.listeners + UInt64(index), reads: true,
        writes: false)
    }
    loop.broker.isTurnLong = { [weak self] in
      guard let self else { return false }
      return Clock.monotonicNanoseconds() - begun > Self.turnNanoseconds
    }
    loop.ownersStatus = { [unowned self] in pollStatus }
  }

  /// Runs until a signal stops it and all clients are gone, or had their time.
  func run() throws(SystemError) {
    while !loop.isOver { try turn() }
  }

  private func turn() throws(SystemError) {
    var isWoken = false
    var hasSignal = false
    var hasCommand = false
    var hasBegun = false
    let wait = poller.hasMore ? 0 : waitNanoseconds()
    let looked = wait > 0 ? try look(for: min(polls.nanoseconds, wait)) : 0
    let hasFound = poller.hasMore
    try poller.waitInPortions(timeoutMilliseconds: Self.timeout(wait - looked)) { event in
      if !hasBegun {
        begin()
        hasBegun = true
      }
      switch event.token {
      case Token.journal: isWoken = true
      case Token.signals: hasSignal = true
      case Token.commands: hasCommand = true
      case Token.listeners...: accept(listeners[Int(event.token - Token.listeners)])
      default:
        loop.ready(
          event.token, reads: event.isReadable, writes: event.isWritable,
          isBroken: event.isHangup)
      }
      return Clock.monotonicNanoseconds() - begun < Self.eventsNanoseconds
    }
    if !hasBegun { begin() }
    if wait > 0 { polls.note(waited: begun - ended, looked: looked, hasFound: hasFound) }
    if isWoken { journalWake.clear() }
    // The journal is not to wait until everybody else had a turn.
    if isWoken || poller.hasMore { loop.journalMoved() }
    if hasSignal { postSignals() }
    if hasCommand || hasSignal { performCommands() }
    watchListeners()
    loop.end()
    ended = Clock.monotonicNanoseconds()
    loop.turnTook(
      nanoseconds: ended - begun,
      onProcessor: Clock.threadProcessorNanoseconds() - processor.nanoseconds)
  }

  /// Looks for events until there are some or so many nanoseconds have passed since the last turn;
  /// returns how long that took. Others may have the processor in between: the commit thread, and
  /// clients on this machine.
  private func look(for nanoseconds: Int64) throws(SystemError) -> Int64 {
    guard nanoseconds > 0 else { return 0 }
    while true {
      let hasFound = try poller.look()
      let looked = Clock.monotonicNanoseconds() - ended
      if hasFound || looked >= nanoseconds { return looked }
      Thread.giveWay()
    }
  }

  /// What the looking has come to, as the log has it.
  var pollStatus: String { "\(polls.statistics)" }

  private func begin() {
    begun = Clock.monotonicNanoseconds()
    processor.renew(at: begun)
    loop.begin(at: Moment(monotonic: begun / 1_000_000, wall: Clock.wallMilliseconds()))
  }

  /// How long to wait from the end of the last turn until something is due: 0 if it is already, `.max` if
  /// nothing is.
  private func waitNanoseconds() -> Int64 {
    let due = min(loop.nextDue ?? .max, nextAccept ?? .max)
    let (time, isNever) = due.multipliedReportingOverflow(by: 1_000_000)
    if isNever { return due > 0 ? .max : 0 }
    return max(0, time - ended)
  }

  /// The same as epoll has it, in whole milliseconds; for ever is -1.
  private static func timeout(_ nanoseconds: Int64) -> Int32 {
    guard nanoseconds < .max / 2 else { return -1 }
    return Int32(clamping: (max(0, nanoseconds) + 999_999) / 1_000_000)
  }

  /// Signals ask for what others ask for, and behind it. None is lost: a full box is emptied.
  private func postSignals() {
    while let signal = signals.next() {
      let command = BrokerSignal.command(for: signal)
      while commands.post(command) == .full { performCommands() }
    }
  }

  private func performCommands() {
    let wasStopping = loop.isStopping
    for command in commands.take() { loop.perform(command) }
    guard loop.isStopping, !wasStopping else { return }
    for listener in listeners { poller.remove(listener.socket.raw) }
  }

  // MARK: Clients

  /// Takes clients that wait at the listener, of which it tells again while there are more.
  private func accept(_ listener: Listener) {
    if loop.isStopping { return }
    for _ in 0..<Self.acceptsPerTurn {
      do throws(SystemError) {
        guard let accepted = try listener.socket.socket.accept() else { return }
        guard loop.connectionCount < room.socketsMax else {
          log.tell(
            .turnedAway, of: "\(accepted.peer)",
            "\(accepted.peer) is turned away: \(loop.connectionCount) clients are connected, and"
              + " \(room.reason)")
          continue
        }
        try add(accepted, speaking: listener.wireProtocol)
      } catch {
        log.tell(.notAccepted, of: "", "a client could not be accepted: \(error)")
        if error.code == EMFILE || error.code == ENFILE { pauseListeners() }
        return
      }
    }
  }

  private func add(
    _ accepted: consuming AcceptedSocket, speaking wireProtocol: any WireProtocol
  ) throws(SystemError) {
    let peer = accepted.peer
    let socket = accepted.take()
    socket.setNoDelay()
    socket.setReceiveBuffer(bytes: Self.receiveBufferBytes)
    let client = ClientAddress(
      name: "\(peer) -> \(socket.localAddress)", isLoopback: peer.isLoopback)
    let transport = SocketTransport(socket, poller)
    _ = try loop.add(client, speaking: wireProtocol) { (token) throws(SystemError) in
      try transport.begin(token)
      return transport
    }
  }

  // MARK: Out of descriptors

  private func pauseListeners() {
    guard nextAccept == nil else { return }
    nextAccept = loop.now + Self.acceptRetryMilliseconds
    for listener in listeners { poller.remove(listener.socket.raw) }
  }

  /// Watches the listeners again, some time after descriptors ran out.
  private func watchListeners() {
    guard let time = nextAccept, loop.now >= time, !loop.isStopping else { return }
    nextAccept = nil
    for (index, listener) in listeners.enumerated() {
      do throws(SystemError) {
        try poller.add(
          listener.socket.raw, token: Token.listeners + UInt64(index), reads: true,
          writes: false)
      } catch {
        log.error("a listener cannot be watched: \(error)")
      }
    }
  }
}

/// The processor time of the thread at the begin of a turn, or of one that began less than a millisecond
/// before: to ask the kernel in every turn would cost small ones something.
private struct ProcessorMark {
  private(set) var nanoseconds: Int64 = 0
  private var takenAt = Int64.min

  mutating func renew(at now: Int64) {
    guard now >= takenAt &+ 1_000_000 else { return }
    takenAt = now
    nanoseconds = Clock.threadProcessorNanoseconds()
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
