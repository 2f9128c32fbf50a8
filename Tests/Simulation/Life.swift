import Arbitrary
import Base
import Broker
import IO
import Journal
import Server

/// Why a life ends before its time.
enum Interruption: Error {
  case crashed
  case broken(BrokenPromise)
}

/// One life of the broker, from its start to its end, with the loop around it that `Reactor` is in a
/// process.
final class Life {
  let broker: Broker
  let journal: Journal
  private(set) var connections: [SimulatedConnection] = []
  private let workers: [SimulatedWorker]
  let world: World
  private let wake: Wake
  private var now: Int64
  private var nextSweep: Int64 = 0
  private var isFailureAnnounced = false
  /// How likely each worker is to go on when it could.
  private var speeds: [Int]
  private var isFast = false

  /// What the journal's threads set; whoever has the baton uses it.
  private final class Wake: @unchecked Sendable {
    var isSet = false
  }

  /// The broker starts and reads its log.
  init(_ world: World) throws(JournalError) {
    self.world = world
    let wake = Wake()
    var workers: [SimulatedWorker] = []
    var environment = Journal.Environment()
    environment.disk = world.disk
    environment.worker = { name throws(SystemError) in
      let worker = SimulatedWorker(name: name, disk: world.disk)
      workers.append(worker)
      return worker
    }
    environment.random = { world.random.next() }
    now = world.now
    var made: Broker?
    let recovered: Int
    do throws(JournalError) {
      (journal, _) = try Journal.open(
        directory: World.directory, settings: world.scenario.settings, environment: environment,
        now: world.now, lanes: BrokerRecords(), wake: { wake.isSet = true },
        replay: { journal in
          let broker = Broker(journal: journal, limits: BrokerLimits()) { world.random.next() }
          broker.beginRecovery()
          made = broker
          return broker
        })
      guard let made else { invariantFailed("the journal was not replayed") }
      recovered = try made.endRecovery()
      broker = made
    } catch {
      world.disk.crashNow(.kill)
      for worker in workers { worker.abandon() }
      throw error
    }
    self.workers = workers
    self.wake = wake
    speeds = workers.map { _ in world.random.choose([5, 30, 80, 100]) }
    world.coverage.note(.messagesRecovered, recovered)
    world.oracle.journal = journal
  }

  // MARK: Clients

  func connect(_ name: String) -> SimulatedConnection {
    let session = DetachedSession(
      broker: broker, name: name, frameMax: world.scenario.topology.frameMax,
      outputMax: world.scenario.outputMax)
    let connection = SimulatedConnection(
      session: session, name: name, oracle: world.oracle, topology: world.scenario.topology)
    connections.append(connection)
    return connection
  }

  func drop(_ connection: SimulatedConnection) throws(Interruption) {
    connection.disconnect()
    connections.removeAll { $0 === connection }
    broker.pump()
    try listen()
  }

  // MARK: Turns

  /// All that waits is done at once from now on.
  func hurry() {
    isFast = true
  }

  /// One turn of the loop.
  func turn() throws(Interruption) {
    world.coverage.note(.turns)
    now += Int64(isFast ? 50 : world.random.choose([0, 1, 20, 100]))
    // What is done every few seconds only has its turn too.
    if world.random.oneIn(20) { now += 6000 }
    world.now = now
    broker.begin(now: now)
    try step()
    for connection in connections.shuffled(using: &world.random) {
      if !isFast, world.random.oneIn(3) { continue }
      try serve(connection)
      try step()
    }
    if wake.isSet {
      wake.isSet = false
      broker.journalMoved()
      try moved()
    }
    if now >= nextSweep {
      nextSweep = now + 250
      if journal.spaceProblem != nil { world.coverage.note(.postponedBatches) }
      broker.tend()
    }
    try finish()
    try step()
  }

  /// A turn in which no client says anything, and the journal's workers do all that they have to do.
  func turnAlone() throws(Interruption) {
    now += 1000
    world.now = now
    broker.begin(now: now)
    broker.tend()
    for worker in workers {
      while worker.hasWork {
        worker.step()
        guard !world.disk.isCrashed else { throw .crashed }
      }
    }
    if wake.isSet {
      wake.isSet = false
      broker.journalMoved()
      try moved()
    }
    try finish()
  }

  private func serve(_ connection: SimulatedConnection) throws(Interruption) {
    for _ in 0..<(isFast ? 100 : world.random.number(1...12)) {
      if connection.session.isPublisher, journal.isCongested {
        world.coverage.note(.throttledPublishers)
        break
      }
      guard try check({ () throws(BrokenPromise) in try connection.feed(&world.random) }) else {
        break
      }
      try listen()
    }
    if connection.session.isWaitingForLog { world.coverage.note(.pausedForLog) }
    if connection.session.isOutputFull { world.coverage.note(.fullOutputs) }
    broker.pump()
    try listen()
  }

  private func moved() throws(Interruption) {
    for connection in connections {
      connection.session.resume(durable: journal.durablePosition)
    }
    try listen()
    world.oracle.moved()
  }

  /// The turn's end, as `Reactor` has it.
  private func finish() throws(Interruption) {
    let logs = !journal.isCommitting && journal.failure == nil
    broker.end()
    try listen()
    if logs { world.oracle.logged() }
    if let problem = journal.lastProblem {
      world.trace.note("problem: \(problem)")
      journal.lastProblem = nil
    }
    if !isFailureAnnounced, let reason = journal.failure {
      isFailureAnnounced = true
      world.coverage.note(.journalFailures)
      world.trace.note("the journal failed: \(reason)")
      for connection in connections { connection.session.logFailed(reason) }
      try listen()
    }
    watchAlarm()
    try listen()
  }

  private func watchAlarm() {
    let isHigh = journal.pinnedBytes + broker.assembledBytes > world.scenario.memoryLimitBytes
    let reason = isHigh ? "low on memory" : journal.spaceProblem.map { _ in "low on disk" }
    guard reason != broker.alarm else { return }
    broker.alarm = reason
    world.trace.note("alarm: \(reason ?? "none")")
    guard reason == nil else { return }
    for connection in connections { connection.session.unblock() }
  }

  /// Looks at all that sessions have written, and at what that means for the queues.
  private func listen() throws(Interruption) {
    guard !world.disk.isCrashed else { throw .crashed }
    try check { () throws(BrokenPromise) in
      for connection in connections { try connection.listen() }
      try world.oracle.compareDeliveries()
    }
  }

  private func check<Result>(
    _ body: () throws(BrokenPromise) -> Result
  ) throws(Interruption) -> Result {
    do throws(BrokenPromise) {
      return try body()
    } catch {
      throw .broken(error)
    }
  }

  /// The journal's workers go on, or not.
  private func step() throws(Interruption) {
    for (worker, speed) in zip(workers, speeds) {
      while worker.hasWork, isFast || world.random.number(1...100) <= speed {
        worker.step()
        guard !world.disk.isCrashed else { throw .crashed }
      }
    }
  }

  // MARK: The end

  var isIdle: Bool {
    !journal.hasUncommitted && !journal.isCommitting && !wake.isSet
      && workers.allSatisfy { !$0.hasWork }
  }

  /// The broker stops in order. Returns whether it could write everything.
  func stop() throws(Interruption) -> Bool {
    for connection in connections { connection.disconnect() }
    connections = []
    broker.close()
    guard !world.disk.isCrashed else { throw .crashed }
    noteStatistics()
    return journal.failure == nil && !journal.hasUncommitted
  }

  /// The process is gone.
  func abandon() {
    noteStatistics()
    for worker in workers { worker.abandon() }
    for connection in connections { connection.session.disconnect() }
    connections = []
  }

  private func noteStatistics() {
    let statistics = journal.statistics
    world.coverage.note(.commits, statistics.commits)
    world.coverage.note(.checkpoints, statistics.checkpoints)
    world.coverage.note(.segmentsRecycled, statistics.segmentsRecycled)
    world.coverage.note(.blocksDropped, statistics.blocksDropped)
    world.coverage.note(.blocksReadBack, statistics.blocksReadBack)
    world.coverage.note(.spills, statistics.spills)
    world.coverage.note(.laneFilesMerged, statistics.laneFilesMerged)
    world.coverage.note(.kilobytesSpilled, statistics.bytesSpilled >> 10)
  }
}
