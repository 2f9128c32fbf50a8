import Base
import Broker
import IO
import Journal

/// A broker on a journal in a directory of its own. The test is its clock and its loop.
package final class TestBroker {
  package let broker: Broker
  package let journal: Journal
  package let recovery: Recovery
  /// Messages that recovery found.
  package let recoveredCount: Int
  package let directory: TemporaryDirectory
  private let wake: JournalWake
  private let workers: [any Worker]
  /// The date at which a broker starts, unless a test wants another.
  package static let firstDate: Int64 = 1_700_000_000_000
  private var now: Moment
  /// Ends those who use the broker; what it holds lives as long as the broker.
  package var atClose: [() -> Void] = []
  private var isClosed = false

  /// `milliseconds` is how much later than other brokers it starts.
  package init(
    in directory: TemporaryDirectory? = nil, settings: Journal.Settings = .quick,
    limits: BrokerLimits = BrokerLimits(), disk: any Disk = SystemDisk(),
    date: Int64 = TestBroker.firstDate, startingAfter milliseconds: Int64 = 0
  ) throws {
    now = Moment(monotonic: 1000 + milliseconds, wall: date + milliseconds)
    let directory = try directory ?? TemporaryDirectory()
    let wake = try JournalWake()
    var random = SeededRandom(1)
    var made: Broker?
    let moment = now
    var workers: [any Worker] = []
    var environment = Journal.Environment()
    environment.disk = disk
    environment.worker = { (name) throws(SystemError) in
      let worker = try ThreadWorker(name: name)
      workers.append(worker)
      return worker
    }
    (journal, recovery) = try Journal.open(
      directory: directory.path, settings: settings, environment: environment, now: now.wall,
      lanes: BrokerRecords(), wake: { wake.signal() },
      replay: { journal in
        let broker = Broker(journal: journal, limits: limits, at: moment) { random.next() }
        broker.beginRecovery()
        made = broker
        return broker
      })
    broker = made!
    recoveredCount = try broker.endRecovery()
    self.directory = directory
    self.wake = wake
    self.workers = workers
  }

  deinit {
    close()
  }

  package var vhost: VirtualHost { broker.vhost("/")! }

  /// One turn of the loop, so long after the last that whatever is done a few times a second has its time.
  /// The log's threads work on by themselves.
  package func turn(_ body: () throws -> Void) rethrows {
    advance(milliseconds: Self.turnMilliseconds)
    try turnNow(body)
  }

  private func turnNow(_ body: () throws -> Void) rethrows {
    broker.begin(at: now)
    broker.journalMoved()
    try body()
    broker.end()
  }

  package func turn() { turn {} }

  /// A turn, and more until the log is durable and what waits for it is confirmed.
  package func durableTurn(_ body: () throws -> Void) rethrows {
    try turn(body)
    durableTurn()
  }

  package func durableTurn() {
    turns { !journal.isCommitting && !journal.hasUncommitted && !journal.isLoading }
  }

  /// Time passes without a turn.
  package func advance(milliseconds: Int64) {
    now.monotonic += milliseconds
    now.wall += milliseconds
  }

  /// Somebody sets the clock, ahead or back.
  package func setClock(by milliseconds: Int64) { now.wall += milliseconds }

  /// Turns, each after the log's threads have done something, until `isDone` or the log failed.
  package func turns(until isDone: () -> Bool) {
    turn()
    while journal.failure == nil, !isDone() {
      if !broker.hasChores, !isDue { wake.wait() }
      turn()
    }
  }

  private static let turnMilliseconds: Int64 = 250

  /// The broker has something to do in the next turn.
  private var isDue: Bool {
    guard let due = broker.nextDue else { return false }
    return due <= now.monotonic + Self.turnMilliseconds
  }

  /// So much time passes in which no client says anything. Turns come when the broker wants them, or one
  /// of the log's threads has done something, as in its loop. Returns how many they were, but for one at the end, when somebody says something.
  package func rest(milliseconds: Int64) -> Int {
    let end = now.monotonic + milliseconds
    var count = 0
    while true {
      drainWorkers()
      let isAtOnce = wake.take() || broker.hasChores || broker.hasDue
      let due = isAtOnce ? now.monotonic : max(broker.nextDue ?? .max, now.monotonic + 1)
      guard due <= end else { break }
      advance(milliseconds: due - now.monotonic)
      count += 1
      turnNow {}
    }
    advance(milliseconds: end - now.monotonic)
    turnNow {}
    return count
  }

  /// Waits until the log's threads have done what they were given.
  package func drainWorkers() {
    for worker in workers { worker.drain() }
  }

  /// Stops in order.
  package func close() {
    guard !isClosed else { return }
    isClosed = true
    for end in atClose { end() }
    broker.close()
  }
}

extension Journal.Settings {
  /// Small segments, and no waiting for the disk: what the process wrote survives the process.
  package static var quick: Journal.Settings {
    var settings = Journal.Settings()
    settings.segmentBytes = 1 << 20
    settings.isSynced = false
    settings.diskReserveBytes = 0
    return settings
  }
}
