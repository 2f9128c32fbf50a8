import Arbitrary
import Base
import Broker
import IO
import Journal
import Testbed

@testable import Server

/// A broker on a journal of its own, with its loop over simulated sockets: clients are fed and read by
/// hand, and the clock is moved.
final class TestLoop {
  let loop: Loop
  /// The clients whose connections stand.
  private(set) var clients: [TestClient] = []
  /// Of the sessions.
  let settings: SessionSettings
  private let log: Log
  private let directory: TemporaryDirectory
  private let bell: Bell
  private let names: NameSource
  private var now = Moment(monotonic: 0, wall: 1_800_000_000_000)
  private var isClosed = false

  /// On the journal that another loop left in `directory`, or on a new one.
  init(
    settings: SessionSettings = SessionSettings(), limits: BrokerLimits = BrokerLimits(),
    log: Log = Log(level: .error), uncommittedBytesMax: Int? = nil,
    directory: TemporaryDirectory = TemporaryDirectory()
  ) throws(JournalError) {
    var journalSettings = Journal.Settings()
    if let uncommittedBytesMax { journalSettings.uncommittedBytesMax = uncommittedBytesMax }
    journalSettings.segmentBytes = 1 << 20
    journalSettings.isSynced = false
    journalSettings.diskReserveBytes = 0
    let bell = Bell()
    let names = NameSource()
    var made: Broker?
    let moment = now
    _ = try Journal.open(
      directory: directory.path + "/journal", settings: journalSettings, now: now.wall,
      lanes: BrokerRecords(), wake: { bell.ring() },
      replay: { journal in
        let broker = Broker(journal: journal, limits: limits, at: moment) { names.next() }
        broker.beginRecovery()
        made = broker
        return broker
      })
    guard let made else { invariantFailed("the journal was not replayed") }
    _ = try made.endRecovery()
    var loopSettings = LoopSettings()
    loopSettings.requestBytesMax = settings.frameMax
    self.settings = settings
    loop = Loop(broker: made, settings: loopSettings, log: log)
    self.log = log
    self.directory = directory
    self.bell = bell
    self.names = names
  }

  deinit {
    if !isClosed { _ = close() }
  }

  var broker: Broker { loop.broker }

  /// A client that has connected and said nothing. Its bytes go through what `wrap` makes of its socket.
  func connect(
    isReading: Bool = true, isLoopback: Bool = true,
    speaking wireProtocol: (any WireProtocol)? = nil,
    over wrap: (SimulatedSocket) -> any Transport = { $0 }
  ) -> TestClient {
    let socket = SimulatedSocket()
    let transport = wrap(socket)
    let sessions = AMQPSessions(broker: broker, settings: settings, log: log)
    do throws(SystemError) {
      let connection = try loop.add(
        ClientAddress(name: "test", isLoopback: isLoopback), speaking: wireProtocol ?? sessions
      ) { _ in transport }
      let client = TestClient(connection, socket, of: self)
      client.isReading = isReading
      clients.append(client)
      return client
    } catch {
      invariantFailed("a simulated socket failed: \(error)")
    }
  }

  /// The connection broke, or was closed in order.
  func drop(_ client: TestClient) {
    loop.drop(client.connection, nil)
    clients.removeAll { $0 === client }
  }

  /// Names that the broker makes are again those that it made first.
  func repeatNames() {
    names.start()
  }

  // MARK: Turns

  /// One turn, with what clients and the log can do without waiting, `milliseconds` after the last.
  /// Returns whether anything happened, or the next turn is due at once.
  @discardableResult
  func turn(after milliseconds: Int64 = 1) -> Bool {
    now.monotonic += milliseconds
    now.wall += milliseconds
    loop.begin(at: now)
    var happened = false
    for client in clients where client.goOn() { happened = true }
    loop.end()
    for client in clients where client.read() { happened = true }
    return happened || loop.waitMilliseconds == 0
  }

  /// So much time passes in which no client does anything; turns come when the loop wants them. Returns how
  /// many they were, but for one at the end, when somebody does something.
  func rest(_ milliseconds: Int64) -> Int {
    let end = now.monotonic + milliseconds
    var count = 0
    while let wait = loop.waitMilliseconds, loop.now + wait <= end {
      turn(after: max(0, loop.now + wait - now.monotonic))
      count += 1
    }
    turn(after: end - now.monotonic)
    return count
  }

  /// Somebody sets the clock, ahead or back.
  func setClock(by milliseconds: Int64) { now.wall += milliseconds }

  /// Turns until nothing happens any more, all is durable, and what is read back is there.
  func settle() {
    var happened = true
    while happened || (broker.journal.hasUncommitted && broker.journal.failure == nil) {
      happened = turn()
      guard broker.journal.isCommitting || broker.journal.isLoading else { continue }
      bell.wait()
      loop.journalMoved()
      happened = true
    }
  }

  /// What there is of messages, which are few.
  var counts: MessageCounts {
    var found = MessageCounts()
    broker.count { found = $0 }
    return found
  }

  /// Sets or takes back the alarm that blocks publishers.
  func setAlarm(_ reason: String?) {
    broker.alarm = reason
    if reason == nil { loop.unblockAll() }
  }

  /// Stops the broker in order; a loop can be made on its journal then, which is returned.
  func close() -> TemporaryDirectory {
    for client in clients { drop(client) }
    broker.close()
    isClosed = true
    return directory
  }
}

/// What the journal's threads signal.
private final class Bell: Sendable {
  private let wakeup: Wakeup

  init() {
    do throws(SystemError) {
      wakeup = try Wakeup()
    } catch {
      invariantFailed("no wakeup: \(error)")
    }
  }

  func ring() { wakeup.signal() }
  func wait() { wakeup.wait() }
}

/// Numbers for names that the broker makes.
private final class NameSource {
  private var random = SeededGenerator(seed: 1)

  func next() -> UInt64 { random.next() }
  func start() { random = SeededGenerator(seed: 1) }
}
