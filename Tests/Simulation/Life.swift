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

/// One life of the broker, from its start to its end: its loop, over simulated connections.
final class Life {
  let loop: Loop
  let journal: Journal
  private(set) var connections: [SimulatedConnection] = []
  private let workers: [SimulatedWorker]
  let world: World
  private let wake: Wake
  private var now: Moment
  /// Operations that had failed before this life.
  let failuresBefore: Int
  private var isFailureNoted = false
  private var alarm: String?
  /// What the loop's calls have come to, since they cannot throw it.
  private var interruption: Interruption?
  /// The log will hear in this turn's end what has left the queues.
  private var willLog = false
  /// How likely each worker is to go on when it could.
  private var speeds: [Int]
  private var isFast = false
  private(set) lazy var appointments = makeAppointments()

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
    failuresBefore = world.disk.failureCount
    now = Moment(monotonic: 0, wall: world.now)
    var made: Broker?
    let recovered: Int
    do throws(JournalError) {
      let recovery: Recovery
      (journal, recovery) = try Journal.open(
        directory: World.directory, settings: world.scenario.settings, environment: environment,
        now: world.now, lanes: BrokerRecords(), wake: { wake.isSet = true },
        replay: { journal in
          let broker = Broker(
            journal: journal, limits: world.scenario.limits,
            at: Moment(monotonic: 0, wall: world.now)
          ) {
            world.random.next()
          }
          broker.beginRecovery()
          made = broker
          return broker
        })
      guard let made else { invariantFailed("the journal was not replayed") }
      recovered = try made.endRecovery()
      world.oracle.recovered(isAfterFailure: recovery.isAfterFailure)
      loop = Loop(
        broker: made, settings: world.scenario.loopSettings, log: world.log)
      // Now and then a turn that has just begun has taken long already.
      var clock = SeededGenerator(seed: world.random.next())
      made.isTurnLong = { clock.oneIn(4) }
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
    world.oracle.isThere = { [weak self] in
      self?.broker.vhost("/")?.hasQueue(Name($0)) == true
    }
    loop.witness = self
  }

  var broker: Broker { loop.broker }

  // MARK: Clients

  func connect(_ name: String) -> SimulatedConnection {
    let sessions = AMQPSessions(
      broker: broker, settings: world.scenario.sessionSettings, log: world.log)
    let connection = SimulatedConnection(
      name: name, on: loop, speaking: sessions, oracle: world.oracle,
      topology: world.scenario.topology,
      random: SeededGenerator(seed: world.random.next())
    ) { [unowned self] in listen() }
    connection.isFast = isFast
    connections.append(connection)
    return connection
  }

  func drop(_ connection: SimulatedConnection) throws(Interruption) {
    connection.breakOff()
    _ = connection.tell(loop)
    try check()
    // The rest of what it sent may have been left for the next turn.
    while !connection.connection.isClosed,
      connection.connection.isYielding || connection.connection.hasUnread
    {
      try turnAlone()
    }
    connections.removeAll { $0 === connection }
    broker.pump()
    try look()
  }

  // MARK: Turns

  /// All that waits is done at once from now on.
  func hurry() {
    isFast = true
    for connection in connections { connection.isFast = true }
  }

  /// One turn of the loop.
  func turn() throws(Interruption) {
    world.coverage.note(.turns)
    var milliseconds = Int64(isFast ? 50 : world.random.choose([0, 1, 20, 100]))
    // What is done every few seconds only has its turn too.
    if world.random.oneIn(20) { milliseconds += 6000 }
    begin(after: milliseconds)
    try step()
    for connection in connections.shuffled(using: &world.random) {
      if !isFast, world.random.oneIn(3) { continue }
      try serve(connection)
      try step()
    }
    try end()
    try expectNobodyForgotten()
    try step()
  }

  /// A turn when the loop wants one, in which no client says anything new, and the journal's workers do
  /// all that they have to do.
  func turnAlone() throws(Interruption) {
    // Who works for the journal ends the wait.
    let isShort = isTold || workers.contains(where: \.hasWork)
    begin(after: isShort ? 1 : min(loop.waitMilliseconds ?? 400, Self.sleepMax))
    for worker in workers {
      while worker.hasWork {
        worker.step()
        guard !world.disk.isCrashed else { throw .crashed }
      }
    }
    for connection in connections { try serve(connection) }
    try end()
    try expectNobodyForgotten()
  }

  /// Of one wait, in milliseconds.
  private static let sleepMax: Int64 = 60_000

  /// Something ends the loop's wait before its time.
  private var isTold: Bool {
    wake.isSet || world.guests.isHeldBack || connections.contains(where: \.isReady)
  }

  /// Until time passes, or a client does something, nothing happens.
  var isQuiet: Bool { isIdle && !isTold && loop.waitMilliseconds != 0 }

  private func begin(after milliseconds: Int64) {
    now.monotonic += milliseconds
    now.wall += milliseconds
    if world.may(.clockSteps), world.random.oneIn(40) { setClock() }
    world.now = now.wall
    loop.begin(at: now)
    world.guests.makeRoom()
  }

  /// Somebody sets the wall clock.
  func setClock() {
    let hours = world.random.choose([-25, -2, -1, -1, 1, 3, 700])
    world.coverage.note(.clockSteps)
    world.trace.note("the clock is set by \(hours) hours")
    now.wall += Int64(hours) * 3_600_000
  }

  private func serve(_ connection: SimulatedConnection) throws(Interruption) {
    _ = connection.tell(loop)
    try look()
    if connection.connection.isHeldBack { world.coverage.note(.throttledPublishers) }
    if connection.connection.isWaitingForLog { world.coverage.note(.pausedForLog) }
    if connection.connection.isOutputFull { world.coverage.note(.fullOutputs) }
  }

  /// The journal's news, and the turn's end.
  private func end() throws(Interruption) {
    if wake.isSet {
      wake.isSet = false
      loop.journalMoved()
      try look()
      world.oracle.moved()
    }
    if loop.spaceProblem != nil { world.coverage.note(.postponedBatches) }
    changeAppointments(at: now.monotonic)
    loop.end()
    try look()
    try expectPunctuality(at: now.monotonic)
    if !isFailureNoted, let reason = journal.failure {
      isFailureNoted = true
      world.coverage.note(.journalFailures)
      world.trace.note("the journal failed: \(reason)")
    }
    if broker.alarm != alarm {
      alarm = broker.alarm
      world.trace.note("alarm: \(alarm ?? "none")")
    }
  }

  // MARK: Looking on

  /// Looks at all that sessions have written, and at what that means for the queues.
  private func listen() {
    note { () throws(BrokenPromise) in
      try SimulatedConnection.listen(to: connections)
      try world.oracle.compareDeliveries()
    }
  }

  private func look() throws(Interruption) {
    listen()
    try check()
  }

  func check() throws(Interruption) {
    guard !world.disk.isCrashed else { throw .crashed }
    if let interruption { throw interruption }
  }

  func note(_ body: () throws(BrokenPromise) -> Void) {
    guard interruption == nil, !world.disk.isCrashed else { return }
    do throws(BrokenPromise) {
      try body()
    } catch {
      interruption = .broken(error)
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
    begin(after: 1)
    loop.stop()
    try end()
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
    loop.witness = nil
    for connection in connections {
      connection.abandon()
      loop.drop(connection.connection, nil)
    }
    connections = []
  }

  private func noteStatistics() {
    let statistics = journal.statistics
    world.coverage.note(.commits, statistics.commits)
    world.coverage.note(.checkpoints, statistics.checkpoints)
    world.coverage.note(.segmentsRecycled, statistics.segmentsRecycled)
    world.coverage.note(.blocksDropped, statistics.blocksDropped)
    world.coverage.note(.blocksReadBack, statistics.blocksReadBack)
    world.coverage.note(.draftsAppended, statistics.draftsAppended)
    world.coverage.note(.spills, statistics.spills)
    world.coverage.note(.laneFilesMerged, statistics.laneFilesMerged)
    world.coverage.note(.kilobytesSpilled, statistics.bytesSpilled >> 10)
  }
}

extension Life: LoopWitness {
  func willTake(from connection: Connection) { listen() }

  func portion(of count: Int, from connection: Connection) -> Int {
    connections.first { $0.connection === connection }?.portion(of: count) ?? count
  }

  func didTake(from connection: Connection, untaken: Int) {
    note { () throws(BrokenPromise) in
      let others = connections.filter { $0.connection !== connection }
      try SimulatedConnection.listen(to: others)
      try connections.first { $0.connection === connection }?.took(untaken)
    }
    listen()
  }

  /// Several connections may end in one call of the loop, one behind the other, each after what the one
  /// before gave back was delivered: it is looked at in between, or their order would not be known.
  func willRelease(_ connection: Connection) { listen() }

  func willEnd() { willLog = !journal.isCommitting && journal.failure == nil }

  func didEnd() {
    listen()
    if willLog { world.oracle.logged() }
    note { () throws(BrokenPromise) in try world.oracle.turned() }
  }
}
