import Base
import Broker
import Journal

/// What a loop goes by.
package struct LoopSettings {
  /// The largest request that comes in one piece: no conversation leaves more untaken, beside a read.
  package var requestBytesMax = 131_072
  package var handshakeMilliseconds: Int64 = 10_000
  /// A message that has begun goes on within this time.
  package var contentMilliseconds: Int64 = 60_000
  /// Requests wait so long for a log that finds no space; then their connections are told why.
  package var stuckMilliseconds: Int64 = 10_000
  /// Clients that have not opened their virtual host may together make the broker keep so much.
  var unprovenBytesMax = 8 << 20

  package init() {}
}

/// Looks on while a loop turns, to compare what it does with what it should.
package protocol LoopWitness: AnyObject {
  /// A conversation gets a batch of bytes; consumers are served behind it.
  func willTake(from connection: Connection)
  /// How many of these bytes it gets at once, at least one: all, unless what comes of each request is to be seen by itself.
  func portion(of count: Int, from connection: Connection) -> Int
  /// The conversation has not taken so many of the bytes that it got.
  func didTake(from connection: Connection, untaken: Int)
  /// All that came before a connection's end was delivered; now what it held is given up, for others.
  func willRelease(_ connection: Connection)
  /// The broker ends its turn: the log gets what gathered. Output follows.
  func willEnd()
  func didEnd()
}

/// The broker's loop: it owns the broker and all connections, and says what is done in a turn and in
/// which order. It has no clock, no socket and no way to wait: whoever has them begins a turn, tells
/// it what is ready, and ends the turn. In a process that is `Reactor`, in tests a simulation.
package final class Loop {
  package let broker: Broker
  let settings: LoopSettings
  let log: Log
  /// Gives memory back to the kernel, after no client has said anything for a while.
  let releaseMemory: () -> Void

  /// Connections by the lower half of their token; the upper half tells users of a slot apart.
  var connections: [Connection?] = []
  var freeSlots: [Int] = []
  package internal(set) var connectionCount = 0
  var generation: UInt64 = 0

  /// Kept for clients that have not opened their virtual host yet, and the tokens of those that it
  /// is kept for, in the order in which they began; some may have gone or opened.
  var unprovenBytes = 0
  var unproven = Ring<UInt64>()

  /// Connections that have something to send.
  var dirty: [Connection] = []
  private var flushing: [Connection] = []
  /// Connections whose transports have more of what has come, of which no event will tell.
  var unread: [Connection] = []
  /// Connections whose requests were not all taken when a turn had taken long.
  var yielding: [Connection] = []
  /// Connections that wait for the log, for memory, or for the log to catch up.
  var paused: [Connection] = []
  /// Connections with unfinished input that are not read while memory for such is short, and the one
  /// whose turn it is to finish.
  var held: [Connection] = []
  var finishing: Connection?
  /// What blocked publishers have sent, which is not taken before they go on.
  var blockedInputBytes = 0
  /// Slow readers kept too much memory busy when that was last looked at.
  var wasOutputExhausted = false
  /// A turn is due without waiting.
  var hasMore = false
  var isFailureAnnounced = false
  var stopDeadline: Int64?
  var isMemoryHigh = false
  package internal(set) var spaceProblem: String?
  /// Since when the log finds no space for what waits.
  var stuckSince: Int64?
  /// When something is due for a connection by itself, by its slot.
  var deadlines = Deadlines()
  /// When what concerns all is looked at again, if anything wants that.
  var nextSweep: Int64 = 0
  /// When a client was heard last, and whether memory was given back since then.
  var heardAt: Int64 = 0
  var hasReleasedMemory = true
  /// Monotonic milliseconds of this turn.
  package private(set) var now: Int64 = 0
  package weak var witness: (any LoopWitness)?
  /// What the loop's owner has to add to the status.
  var ownersStatus: () -> String = { "" }

  package private(set) var turnTimes = TurnTimes()
  private var slowTurns = SlowTurns()
  /// Of this turn.
  var work = TurnWork()

  /// Bytes of large bodies that may still be sent in this turn.
  private var bodyBytesLeft = 0
  /// Parts of large bodies, with their frames, on their way to a socket.
  private let stage: UnsafeMutableRawBufferPointer
  private let readBuffer: UnsafeMutableRawBufferPointer
  static let readBytes = 64 << 10
  /// What is read at once of a connection while input takes too much memory.
  private static let readBytesWhileShort = 4 << 10
  /// Connections that are written to before the time is looked at again.
  private static let flushesPerLook = 64
  static let lingerMilliseconds: Int64 = 3000
  /// So long a client that got close-ok has for closing.
  static let clientClosesMilliseconds: Int64 = 10_000
  private static let stopMilliseconds: Int64 = 2000

  package init(
    broker: Broker, settings: LoopSettings, log: Log, releaseMemory: @escaping () -> Void = {}
  ) {
    self.broker = broker
    self.settings = settings
    self.log = log
    self.releaseMemory = releaseMemory
    readBuffer = .allocate(
      byteCount: 2 * Self.readBytes + settings.requestBytesMax, alignment: 4096)
    stage = .allocate(byteCount: Connection.stageBytes, alignment: 4096)
  }

  deinit {
    readBuffer.deallocate()
    stage.deallocate()
  }

  // MARK: Turns

  /// A turn begins, after the wait for it.
  package func begin(at moment: Moment) {
    now = moment.monotonic
    hasMore = false
    bodyBytesLeft = Connection.allBodyBytesMax
    work = TurnWork()
    broker.begin(at: moment)
    if !yielding.isEmpty { resumeYielding() }
    if !unread.isEmpty { readUnread() }
  }

  /// The turn ends: what nobody had to tell the loop of is done, and everything is written.
  package func end() {
    tend()
    let hadChores = broker.hasChores
    work.hasChores = hadChores
    let journal = broker.journal
    let (wasSpilling, wasCheckpointing) = (journal.isSpilling, journal.isCheckpointing)
    witness?.willEnd()
    broker.end()
    witness?.didEnd()
    if broker.hasChores || broker.hasDue || journal.isGivingBackMemory { hasMore = true }
    // What those who waited for work say now begins other work, or is to be committed: in the next turn.
    if hadChores, resumeWaiting() { hasMore = true }
    work.hasRound = journal.isSpilling && !wasSpilling
    work.hasCheckpoint = journal.isCheckpointing && !wasCheckpointing
    for problem in journal.takeProblems() { log.error(problem) }
    announceFailure()
    announceDropped()
    watchMemory()
    flushDirty()
    watchOutput()
    releaseHeld()
  }

  /// The turn that has ended took so long since it began. Of that the thread had the processor for at most
  /// `onProcessor`, which is asked for if it matters; the rest went to others on the machine. A slow turn
  /// is told.
  package func turnTook(nanoseconds: Int64, onProcessor: @autoclosure () -> Int64) {
    turnTimes.record(nanoseconds)
    if nanoseconds > min(turnTimes.longestOnProcessor, SlowTurns.limit) {
      let onProcessor = min(onProcessor(), nanoseconds)
      turnTimes.noteLongest(onProcessor: onProcessor)
      if nanoseconds > SlowTurns.limit { slowTurns.note(nanoseconds, onProcessor, work) }
    }
    if let line = slowTurns.takeLine(now: now) { log.warning(line) }
  }

  // MARK: Stopping

  /// All clients are told that the broker stops, and have a while to hear it; asked for twice, none.
  package func stop() {
    guard stopDeadline == nil else {
      stopDeadline = now
      return
    }
    stopDeadline = now + Self.stopMilliseconds
    // What comes back from one client is not handed to the next, who is about to be told as well.
    broker.pump()
    for case let connection? in connections { connection.conversation.roomFilled() }
    for connection in connections.compactMap(\.self) {
      if connection.isLingering { connection.transport.shutdownWrite() }
      connection.conversation.stop()
      watch(connection)
      settle(connection)
    }
  }

  package var isStopping: Bool { stopDeadline != nil }

  /// It was stopped, and all clients are gone or had their time.
  package var isOver: Bool {
    guard let stopDeadline else { return false }
    return connectionCount == 0 || now >= stopDeadline
  }

  // MARK: Input

  /// Something can be read from a connection or written to it, or it broke.
  package func ready(_ token: UInt64, reads: Bool, writes: Bool, isBroken: Bool) {
    let slot = Int(token & 0xFFFF_FFFF)
    guard slot < connections.count, let connection = connections[slot],
      connection.token == token
    else { return }
    if writes { flush(connection) }
    if connection.isClosed { return }
    if reads, connection.wantsReads {
      read(connection)
    } else if isBroken, !connection.isYielding {
      drop(connection, "the connection broke")
    }
  }

  func read(_ connection: Connection) {
    var kept = connection.leftover.count
    readBuffer.copyMemory(from: connection.leftover.readable)
    var rest =
      broker.account.isExhausted(.input) ? Self.readBytesWhileShort : Self.readBytes
    while true {
      let room = UnsafeMutableRawBufferPointer(
        rebasing: readBuffer[kept..<min(kept + rest, readBuffer.count)])
      switch connection.transport.read(into: room) {
      case .count(let count, let isMore):
        connection.hasUnread = isMore
        connection.receivedAt = now
        heardAt = now
        hasReleasedMemory = false
        work.reads += 1
        work.readBytes += count
        if connection.isLingering { return }
        connection.leftover.removeAll()
        take(connection, UnsafeRawBufferPointer(rebasing: readBuffer[..<(kept + count)]))
        rest -= count
        guard isMore, rest > 0, !connection.isClosed, connection.wantsReads else { break }
        kept = connection.leftover.count
        readBuffer.copyMemory(from: connection.leftover.readable)
        continue
      case .wouldBlock: connection.hasUnread = false
      case .ended: return inputEnded(connection)
      case .failed(let error): return drop(connection, connection.isLingering ? nil : "\(error)")
      }
      break
    }
    broker.pump()
    settle(connection)
  }

  /// Gives the conversation bytes and keeps what it does not take.
  private func take(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) {
    let conversation = connection.conversation
    let logEnd = broker.journal.endPosition
    var rest = bytes
    var isMore: Bool
    repeat {
      witness?.willTake(from: connection)
      let count = witness?.portion(of: rest.count, from: connection) ?? rest.count
      let taken = conversation.receive(rest.bytes.extracting(0..<count))
      isMore = count < rest.count && (taken == count || conversation.pause == .blocked)
      rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
      keep(rest, of: connection)
      witness?.didTake(from: connection, untaken: rest.count)
    } while isMore
    if broker.journal.endPosition != logEnd { connection.loggedAt = broker.journal.endPosition }
    countUnproven(connection)
  }

  private func keep(_ bytes: UnsafeRawBufferPointer, of connection: Connection) {
    connection.leftover.removeAll()
    if !bytes.isEmpty {
      connection.leftover.append(bytes)
    } else if connection.leftover.capacity > 0 {
      connection.leftover.shrink(to: 0)
    }
  }

  /// After the conversation did something: notes what it waits for.
  func settle(_ connection: Connection) {
    let conversation = connection.conversation
    if conversation.isPublisher, !connection.isThrottled,
      broker.journal.isCongested(for: connection.loggedAt)
    {
      connection.isThrottled = true
    }
    if conversation.pause == .untilNextTurn { yield(connection) }
    if connection.isThrottled || conversation.pause.isForOthers, !connection.isPaused {
      connection.isPaused = true
      paused.append(connection)
    }
    limitEnd(connection)
    if conversation.phase.isClosed, !conversation.isDirty { markDirty(connection) }
    recount(connection)
    holdIfShort(connection)
    watch(connection)
    noteProgress(connection)
    arm(connection)
  }

  /// A client has a while to hear of its connection's end and to answer.
  private func limitEnd(_ connection: Connection) {
    let phase = connection.conversation.phase
    guard phase == .closing || phase.isClosed, connection.deadline == .max else { return }
    connection.deadline = now + Self.lingerMilliseconds
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
    broker.pump()
    settle(connection)
  }

  /// The journal's threads have done something.
  package func journalMoved() {
    work.hasJournalNews = true
    broker.journalMoved()
    resumeWaiting()
    watchSpace()
  }

  /// Goes on with those whose replies may leave now. Returns whether there were any.
  @discardableResult
  func resumeWaiting() -> Bool {
    let journal = broker.journal
    return resumePaused { connection in
      let mayGoOn = connection.conversation.resume(durable: journal.durablePosition)
      guard connection.isThrottled, !journal.isCongested(for: connection.loggedAt) else {
        return mayGoOn
      }
      connection.isThrottled = false
      return true
    }
  }

  /// Asks each connection that waits whether it can go on; those that cannot keep waiting. When the turn has
  /// taken long, those that can go on in the next one, but for the first. Returns whether some could.
  @discardableResult
  func resumePaused(_ canGoOn: (Connection) -> Bool) -> Bool {
    let waiting = paused
    var haveGoneOn = false
    paused = []
    for connection in waiting {
      connection.isPaused = false
      guard !connection.isClosed else { continue }
      if canGoOn(connection) {
        if haveGoneOn, connection.conversation.pause == .none, broker.isTurnLong() {
          connection.conversation.waitForTurn()
          settle(connection)
        } else {
          haveGoneOn = true
          resume(connection)
        }
      } else if !Sabotage.is(.forgetsPaused) {
        settle(connection)
      }
    }
    return haveGoneOn
  }

  // MARK: Output

  func markDirty(_ connection: Connection) {
    connection.conversation.isDirty = true
    dirty.append(connection)
  }

  /// Writes what there is to say. When the turn has taken long, the last of many connections wait
  /// for the next one, which begins at once and has them first.
  func flushDirty() {
    var count = 0
    while !dirty.isEmpty {
      swap(&dirty, &flushing)
      var next = 0
      while next < flushing.count {
        flush(flushing[next])
        next += 1
        count += 1
        if count % Self.flushesPerLook == 0, broker.isTurnLong() { break }
      }
      dirty.insert(contentsOf: flushing[next...], at: 0)
      let isOver = next < flushing.count
      flushing.removeAll(keepingCapacity: true)
      if isOver {
        hasMore = true
        return
      }
    }
  }

  private func flush(_ connection: Connection) {
    guard !connection.isClosed else { return }
    let conversation = connection.conversation
    conversation.isDirty = false
    // It may have ended for what others did.
    limitEnd(connection)
    switch connection.flush(now: now, stage: stage, allowance: &bodyBytesLeft) {
    case .failed: return drop(connection, "the client does not take what is sent")
    case .partial: break
    case .done:
      if conversation.phase.isClosed, !connection.isLingering { linger(connection) }
      if connection.isInputEnded { return drop(connection, nil) }
    }
    conversation.outputWritten()
    if conversation.hasRoom { makeRoom(connection) }
    recount(connection)
    watch(connection)
    arm(connection)
  }

  /// Consumers and requests that waited for room are served before the loop waits, or they would wait
  /// for ever.
  func makeRoom(_ connection: Connection) {
    let conversation = connection.conversation
    if conversation.roomMade() { hasMore = !Sabotage.is(.missesRoom) }
    if conversation.isOutputFull, !connection.isThrottled {
      conversation.isOutputFull = false
      resume(connection)
      hasMore = true
    }
  }

  /// All is said: the client can read it to the end before the connection goes. A client that closes
  /// is left to end the stream itself: some take its end, right behind close-ok, for a failure.
  private func linger(_ connection: Connection) {
    connection.isLingering = true
    connection.leftover.removeAll()
    if connection.conversation.phase == .closed(isByClient: true), !isStopping {
      connection.deadline = now + Self.clientClosesMilliseconds
    } else {
      connection.transport.shutdownWrite()
      connection.deadline = min(connection.deadline, now + Self.lingerMilliseconds)
    }
  }

  /// Tells the transport what the connection waits for.
  private func watch(_ connection: Connection) {
    guard !connection.isClosed else { return }
    let reads = connection.wantsReads
    if reads, connection.hasUnread { noteUnread(connection) }
    let writes = connection.hasUnsent && !connection.conversation.isDirty
    guard reads != connection.watchesReads || writes != connection.watchesWrites else { return }
    do {
      try connection.transport.watch(reads: reads, writes: writes)
      // Nobody goes on who is not read.
      if reads, !connection.watchesReads { connection.progressAt = now }
      connection.watchesReads = reads
      connection.watchesWrites = writes
    } catch {
      drop(connection, "\(error)")
    }
  }
}
