import Arbitrary
import Base
import Broker
import IO
import Journal

@testable import Server

/// A broker on a journal of its own, with the loop around it that `Reactor` is in a process, but
/// without sockets: clients are fed and read by hand, and the clock is moved.
final class TestLoop {
  let broker: Broker
  let settings: SessionSettings
  /// The clients whose connections stand.
  private(set) var clients: [TestClient] = []
  private let directory: TemporaryDirectory
  private let bell: Bell
  private let names: NameSource
  private var now: Int64 = 1_800_000_000_000
  private var isClosed = false

  /// On the journal that another loop left in `directory`, or on a new one.
  init(
    settings: SessionSettings = SessionSettings(), limits: BrokerLimits = BrokerLimits(),
    directory: TemporaryDirectory = TemporaryDirectory()
  ) throws(JournalError) {
    var journalSettings = Journal.Settings()
    journalSettings.segmentBytes = 1 << 20
    journalSettings.isSynced = false
    journalSettings.diskReserveBytes = 0
    let bell = Bell()
    let names = NameSource()
    var made: Broker?
    _ = try Journal.open(
      directory: directory.path + "/journal", settings: journalSettings, now: now,
      lanes: BrokerRecords(), wake: { bell.ring() },
      replay: { journal in
        let broker = Broker(journal: journal, limits: limits) { names.next() }
        broker.beginRecovery()
        made = broker
        return broker
      })
    guard let made else { invariantFailed("the journal was not replayed") }
    _ = try made.endRecovery()
    broker = made
    self.settings = settings
    self.directory = directory
    self.bell = bell
    self.names = names
  }

  deinit {
    if !isClosed { _ = close() }
  }

  /// A client that has connected and said nothing.
  func connect(isReading: Bool = true) -> TestClient {
    let session = Session(
      broker: broker, settings: settings, log: Log(level: .error), peerName: "test",
      isLoopback: true)
    let client = TestClient(session, of: self)
    client.isReading = isReading
    clients.append(client)
    return client
  }

  /// The connection broke, or was closed in order.
  func drop(_ client: TestClient) {
    client.session.release()
    client.session.state = .closed
    clients.removeAll { $0 === client }
  }

  /// Names that the broker makes are again those that it made first.
  func repeatNames() {
    names.start()
  }

  // MARK: Turns

  /// One turn's end, with what clients and the log can do without waiting. Returns whether anything
  /// happened.
  @discardableResult
  func turn() -> Bool {
    now += 1
    broker.begin(now: now)
    var happened = false
    for client in clients where client.goOn() { happened = true }
    broker.end()
    for client in clients where client.flush() { happened = true }
    return happened
  }

  /// Turns until nothing happens any more and all is durable.
  func settle() {
    var happened = true
    while happened || (broker.journal.hasUncommitted && broker.journal.failure == nil) {
      happened = turn()
      guard broker.journal.isCommitting else { continue }
      bell.wait()
      broker.journalMoved()
      happened = true
    }
  }

  /// Sets or takes back the alarm that blocks publishers.
  func setAlarm(_ reason: String?) {
    broker.alarm = reason
    guard reason == nil else { return }
    for client in clients { _ = client.session.unblock() }
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
