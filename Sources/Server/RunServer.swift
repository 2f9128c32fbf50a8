import AMQP
import Base
import Broker
import Glibc
import IO
import Journal

/// Runs the broker until it is told to stop; the result is the process's exit code. `management` answers what
/// clients ask of the broker itself.
public func runServer(
  _ options: Options, management: (any ManagementResponder)? = nil
) -> Int32 {
  do throws(SystemError) {
    // Held back before any other thread starts, since these inherit it.
    let signals = try SignalQueue(BrokerSignal.all)
    let writer = try LogWriter()
    LastWords.waitForOnCrash()
    let log = Log(level: options.logLevel, writer: writer)
    defer { writer.close() }
    return Server(options, log, management).runAndTell(signals)
  } catch {
    // There is no log yet.
    let line = Log.line(.error, "\(error)")
    _ = line.utf8.withContiguousStorageIfAvailable {
      write(STDERR_FILENO, $0.baseAddress, $0.count)
    }
    return 1
  }
}

/// Why the broker does not start; the text is for the person who starts it.
struct StartError: Error, CustomStringConvertible {
  let description: String
}

/// A broker process from start to stop.
private struct Server {
  let options: Options
  let log: Log
  let management: (any ManagementResponder)?

  init(_ options: Options, _ log: Log, _ management: (any ManagementResponder)?) {
    self.options = options
    self.log = log
    self.management = management
  }

  func runAndTell(_ signals: consuming SignalQueue) -> Int32 {
    do {
      try run(signals)
      return 0
    } catch {
      log.error("\(error)")
      if let error = error as? JournalError, error.isDamage {
        log.error(
          "the broker does not start with a damaged journal. \"martlet journal verify"
            + " \(options.data)\" says all that is wrong; \"martlet journal repair \(options.data)\""
            + " what can be done")
      }
      return 1
    }
  }

  private func run(_ signals: consuming SignalQueue) throws {
    let started = Clock.monotonicNanoseconds()
    ProcessMemory.joinAtOnce()
    signal(SIGPIPE, SIG_IGN)
    // Writing beyond the limit of a file's size is an error like a full disk, not an end.
    signal(SIGXFSZ, SIG_IGN)
    let room = try self.room()
    // Taken early, so that a port in use is told at once; clients come in when all is recovered.
    let listeners = try bind()
    try FileSystem.makeDirectories(options.data)
    guard let lock = try DirectoryLock(directory: options.data) else {
      throw StartError(
        description: "the data directory \(options.data) is in use by another broker"
          + lockHolder())
    }
    let wake = try SharedWakeup()
    let broker = try recover(wake, lock.note)
    broker.management = management
    try lock.keep(note: Self.note(broker.journal))
    for listener in listeners {
      do throws(SystemError) { try listener.socket.listen() } catch { throw Self.told(error) }
    }
    let loop = Loop(
      broker: broker, settings: LoopSettings(options), log: log,
      releaseMemory: { broker.journal.inBackground(ProcessMemory.releaseUnused) })
    let commands = try Mailbox<LoopCommand>(countMax: LoopCommand.countMax)
    var sessionSettings = SessionSettings(options)
    sessionSettings.connectionsMax = room.clientsMax
    let sessions = AMQPSessions(broker: broker, settings: sessionSettings, log: log)
    let reactor = try Reactor(
      loop: loop, log: log,
      listeners: listeners.map { Listener(socket: $0, wireProtocol: sessions) }, signals: signals,
      commands: commands, journalWake: wake, room: room,
      pollNanosecondsMax: pollNanosecondsMax)
    let milliseconds = (Clock.monotonicNanoseconds() - started) / 1_000_000
    for listener in listeners { log.info("listening on \(listener.socket.localAddress)") }
    log.info("Martlet \(Version.text) is ready after \(milliseconds) ms")
    if room.clientsMax < options.connectionsMax {
      log.info("\(room.clientsMax) clients fit in at the same time, since \(room.reason)")
    }
    if options.user == "guest", options.password == "guest", !options.guestLoopbackOnly {
      log.warning("user guest with password guest may log in from anywhere")
    }
    try reactor.run()
    _ = commands.close()
    broker.close()
    _ = consume lock
    if let failure = broker.journal.failure {
      throw StartError(description: "stopped after the journal failed: \(failure)")
    }
    log.info("stopped; \(loop.turnTimes) \(reactor.pollStatus) \(JournalStatus(broker.journal))")
  }

  /// Whoever looks for events on the only processor holds up those that they come from.
  private var pollNanosecondsMax: Int64 {
    Processors.usable() > 1 ? Int64(options.pollMaxMicroseconds) * 1000 : 0
  }

  /// What the lock's file keeps of a journal.
  private static func note(_ journal: Journal) -> String {
    "journal \(String(journal.identity, radix: 16))"
  }

  /// The directories that the broker works in.
  private func places() throws -> [PlaceOnDisk] {
    try FileSystem.makeDirectories(options.data + "/journal")
    return [try PlaceOnDisk(options.data), try PlaceOnDisk(options.data + "/journal")]
  }

  /// Notices that what the broker works on is not in its place any more.
  private func watch(_ places: [PlaceOnDisk]) throws -> @Sendable () -> String? {
    let lock = try PlaceOnDisk(options.data + "/lock")
    return {
      for place in places where !place.isThere {
        return "\(place.path) was moved, removed or replaced while the broker runs on it: what it"
          + " writes does not get there; stop it, and put the directory back"
      }
      if lock.isThere { return nil }
      return
        "\(lock.path) was removed or replaced while the broker runs; leave it: it says who uses"
        + " the directory"
    }
  }

  private func room() throws(StartError) -> ClientRoom {
    let limit = DescriptorLimit.raise()
    if let room = ClientRoom(connectionsMax: options.connectionsMax, descriptorLimit: limit) {
      return room
    }
    throw StartError(
      description: "only \(limit) files may be open at the same time (ulimit -n), which leaves no"
        + " room for clients beside the broker's own \(ClientRoom.reserve); allow at least"
        + " \(ClientRoom.descriptorsMin), and one more for each client beyond"
        + " \(ClientRoom.clientsMin)")
  }

  /// `note` is what the last broker here said of its journal.
  private func recover(_ wake: SharedWakeup, _ note: String?) throws -> Broker {
    var settings = Journal.Settings()
    settings.segmentBytes = options.segmentSizeBytes
    settings.isSynced = options.durability == .synced
    settings.cacheBytes = options.journalCacheBytes
    settings.windowBytes = options.journalWindowBytes
    settings.transientBytesMax =
      options.transientMemoryBytes > 0
      ? options.transientMemoryBytes : options.effectiveMemoryLimitBytes / 4
    settings.diskReserveBytes = options.diskReserveBytes
    var limits = BrokerLimits()
    limits.queuesMax = options.queuesMax
    limits.exchangesMax = options.exchangesMax
    limits.bindingsMax = options.bindingsMax
    limits.consumersMax = options.consumersMax
    limits.argumentsMax = options.argumentsMax
    limits.routingKeysMax = options.routingKeysMax
    limits.routingStepsMax = options.routingStepsMax
    limits.unacknowledgedMax = options.unacknowledgedMax
    limits.memoryBytes = options.effectiveMemoryLimitBytes
    var made: Broker?
    var environment = Journal.Environment()
    let places = try places()
    environment.disk = PlacedDisk(environment.disk, places: places)
    environment.watch = try watch(places)
    let (_, recovery) = try Journal.open(
      directory: options.data + "/journal", settings: settings, environment: environment,
      now: Clock.wallMilliseconds(), lanes: BrokerRecords(), wake: { wake.signal() },
      replay: { journal in
        let broker = Broker(journal: journal, limits: limits, at: Clock.moment()) {
          UInt64.random(in: .min ... .max)
        }
        broker.beginRecovery()
        made = broker
        return broker
      })
    guard let broker = made else { throw StartError(description: "no broker was made") }
    let messages = try broker.endRecovery()
    broker.node = Name("martlet@\(HostName.current)")
    let isKnown = note.map { $0 == Self.note(broker.journal) } ?? true
    if recovery.isNew, note != nil {
      log.warning(
        "there was a journal in \(options.data), and now there is none: what it held is not there."
          + " Began a new one")
    } else if recovery.isNew {
      log.info("began a journal in \(options.data)")
    } else {
      if !isKnown {
        log.warning("the journal in \(options.data) is not the one that the last broker had here")
      }
      log.info(
        "recovered \(messages) messages from \(options.data): read \(recovery.records) records in"
          + " \(recovery.bytes >> 20) MiB"
          + (recovery.wasClean ? "" : "; the broker had not stopped in order"))
    }
    if recovery.isAfterFailure {
      log.warning(
        "the journal had failed: what was acknowledged since then comes again, and all messages are"
          + " marked as redelivered, since any may have been delivered")
    }
    return broker
  }

  private func bind() throws(SystemError) -> [ListeningSocket] {
    var listeners: [ListeningSocket] = []
    for text in options.listen {
      for address in ListenAddress(text)?.addresses ?? [] {
        do throws(SystemError) {
          listeners.append(ListeningSocket(try Socket.bind(address)))
        } catch {
          // A machine without IPv6 has no "::"; the IPv4 half is enough then.
          if address.host == "::", error.code == EAFNOSUPPORT || error.code == EADDRNOTAVAIL {
            continue
          }
          throw Self.told(error)
        }
      }
    }
    return listeners
  }

  /// The error of a listener, with what can be done about it.
  private static func told(_ error: SystemError) -> SystemError {
    guard error.code == EADDRINUSE else { return error }
    return SystemError(
      "\(error.operation): the port is taken by another program; choose another with --listen",
      code: error.code)
  }

  private func lockHolder() -> String {
    DirectoryLock.process(holding: options.data).map { " (process \($0))" } ?? ""
  }
}

extension Options {
  /// The limit as it was set, or 40 percent of the machine's memory.
  var effectiveMemoryLimitBytes: Int {
    memoryLimitBytes > 0
      ? memoryLimitBytes
      : sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) / 10 * 4
  }
}

extension LoopSettings {
  fileprivate init(_ options: Options) {
    requestBytesMax = options.frameMaxBytes
    handshakeMilliseconds = Int64(options.handshakeTimeoutMilliseconds)
    contentMilliseconds = Int64(options.contentTimeoutMilliseconds)
  }
}

extension SessionSettings {
  init(_ options: Options) {
    user = Name(options.user)
    password = Array(options.password.utf8)
    guestLoopbackOnly = options.guestLoopbackOnly
    frameMax = options.frameMaxBytes
    frameMaxBeforeTune = 64 << 10
    channelMax = options.channelMax
    connectionsMax = options.connectionsMax
    heartbeat = options.heartbeatMilliseconds / 1000
    messageSizeMax = options.messageSizeMaxBytes
    outputMax = options.outputBufferMaxBytes
    product = options.product
    productVersion = options.productVersion
  }
}
