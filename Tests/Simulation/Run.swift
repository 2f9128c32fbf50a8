import Arbitrary
import Journal

/// One run: a world from a seed, lives and crashes of the broker in it, and the end, where
/// everything must be there that should be.
package final class Run {
  package struct Outcome {
    package let broken: BrokenPromise?
    package let coverage: Coverage
    package let trace: Trace
  }

  let world: World
  private(set) var life: Life?
  private var clients: [SimulatedClient] = []
  private var bundle: Bundle?
  private var turnsLeft: Int
  private var clientNumber = 0
  /// Turns until the bad times end.
  private var episodeTurns = 0
  /// Bits flip no more.
  var isFinishing = false

  /// Nothing that the last life has written is lost when the power goes now.
  private var isAllSynced = true

  private static let startsMax = 50
  /// One client of so many cannot be told of consumers that the broker ends.
  private static let untoldOneOf = 5

  private init(_ world: World) {
    self.world = world
    turnsLeft = world.scenario.turns
  }

  package static func perform(seed: UInt64, options: RunOptions = RunOptions()) -> Outcome {
    let world = World(seed: seed, options: options)
    let run = Run(world)
    var broken: BrokenPromise?
    do throws(BrokenPromise) {
      try run.perform()
    } catch {
      broken = error
      world.trace.note("BROKEN \(error)")
    }
    run.life?.abandon()
    return Outcome(broken: broken, coverage: world.coverage.counts, trace: world.trace)
  }

  private func perform() throws(BrokenPromise) {
    while turnsLeft > 0 {
      try live { () throws(Interruption) in try spend() }
    }
    try finish()
  }

  // MARK: Lives

  /// Starts the broker, does `body`, and clears up behind a crash.
  func live(_ body: () throws(Interruption) -> Void) throws(BrokenPromise) {
    try start()
    if let life {
      try Bundle.check(life.broker)
      try world.guests.begin(life)
    }
    do throws(Interruption) {
      try body()
    } catch {
      switch error {
      case .broken(let promise): throw promise
      case .crashed: crashed()
      }
    }
  }

  private func start() throws(BrokenPromise) {
    guard life == nil else { return }
    for attempt in 1...Self.startsMax {
      world.coverage.note(.restarts)
      // At last nothing stands in the way of a start.
      if attempt > 5 { endEpisode() }
      if attempt < 4, world.may(.crashes), world.random.oneIn(10) {
        world.disk.crash(after: world.random.number(0...40), isAllSynced ? kind() : .kill)
      }
      if attempt < 4 { rotAtRest() }
      do throws(JournalError) {
        life = try Life(world)
        world.disk.cancelCrash()
        world.trace.note("started, log at \(world.oracle.endPosition)")
        return
      } catch {
        world.trace.note("not started: \(error)")
        if world.disk.isCrashed, "\(error)".contains("crashed") {
          world.coverage.note(.crashesInRecovery)
        } else {
          world.coverage.note(.refusedStarts)
          if world.disk.rot == nil {
            try promise(world.disk.hasFailed, "the broker starts after a crash", "\(error)")
          } else {
            world.coverage.note(.rottenStarts)
            heal()
          }
          endEpisode()
        }
        world.disk.restart()
      }
    }
    throw BrokenPromise("the broker starts after a crash", "it did not in \(Self.startsMax) times")
  }

  private func kind() -> CrashKind {
    world.random.number(0...9) < 7 ? .powerLoss : .kill
  }

  /// What clients and the scheduler do in one life.
  private func spend() throws(Interruption) {
    guard let life else { return }
    try restoreTopology(life)
    clients = []
    for _ in 0..<world.scenario.clientCount { join(life) }
    defer { bundle = nil }
    if world.scenario.hasBundle { bundle = Bundle(life) }
    var turns = world.random.number(1...2 * world.scenario.lifeTurns)
    while turns > 0, turnsLeft > 0 {
      turns -= 1
      turnsLeft -= 1
      trouble(life)
      try turn(life)
      if episodeTurns == 0, life.journal.failure == nil, world.random.oneIn(40) { try life.rest() }
      if life.journal.failure != nil { turns = min(turns, 3) }
    }
    try end(life)
  }

  private func join(_ life: Life) {
    clientNumber += 1
    let part =
      clients.contains { $0.hasPublisher }
      ? world.random.choose(SimulatedChannel.Part.allCases) : .publisher
    let name = "\(part)\(clientNumber)"
    clients.append(
      SimulatedClient(
        name: name, part: part, isTold: clientNumber % Self.untoldOneOf != 0,
        connection: life.connect(name), scenario: world.scenario,
        options: world.options, oracle: world.oracle,
        random: SeededGenerator(seed: world.random.next())))
  }

  private func turn(_ life: Life) throws(Interruption) {
    for client in clients where world.random.flag() { client.act() }
    do throws(BrokenPromise) { try bundle?.act() } catch { throw .broken(error) }
    try actGuests()
    try life.turn()
    for client in clients { client.read() }
    for client in clients where isOver(client) {
      clients.removeAll { $0 === client }
      try life.drop(client.connection)
      join(life)
    }
  }

  func actGuests() throws(Interruption) {
    do throws(BrokenPromise) { try world.guests.act() } catch { throw .broken(error) }
  }

  private func isOver(_ client: SimulatedClient) -> Bool {
    if client.connection.isOver { return true }
    guard world.may(.disconnects), world.random.oneIn(200) else { return false }
    world.coverage.note(.disconnects)
    world.trace.note("\(client.name) disconnects")
    return true
  }

  // MARK: Trouble

  private func trouble(_ life: Life) {
    if world.random.oneIn(30) { rot() }
    if episodeTurns > 0 {
      episodeTurns -= 1
      if episodeTurns == 0 { endEpisode() }
      return
    }
    guard world.random.oneIn(world.scenario.episodeOneIn) else { return }
    episodeTurns = world.random.number(1...15)
    if world.random.oneIn(4), world.may(.fullDisk) {
      world.coverage.note(.fullDiskEpisodes)
      world.disk.capacity = world.disk.usedBytes + world.random.number(0...300_000)
      world.trace.note("the disk is full")
    } else if world.may(.failures) {
      world.disk.episode = .some(&world.random)
      world.trace.note("trouble: \(world.disk.episode!)")
    }
  }

  func endEpisode() {
    episodeTurns = 0
    world.disk.episode = nil
    world.disk.capacity = .max
  }

  /// A life ends, in one of the ways in which lives end.
  private func end(_ life: Life) throws(Interruption) {
    switch world.random.number(0...9) {
    case 0...1: try stop(life)
    case 2...4 where world.may(.crashes):
      world.disk.crashNow(kind())
      throw .crashed
    case _ where world.may(.crashes):
      if bundle?.end() == true {
        // Into the very write that has what goes as one.
        world.disk.crash(after: world.random.number(0...1), kind(), in: .write)
      } else if world.random.flag() {
        world.disk.crash(after: world.random.number(0...12), kind())
      } else {
        let counted = world.random.choose([DiskOperation.syncDirectory, .sync, .rename, .remove])
        world.disk.crash(after: world.random.number(0...3), kind(), in: counted)
      }
      for _ in 0..<30 {
        turnsLeft -= 1
        try turn(life)
      }
      world.disk.crashNow(kind())
      throw .crashed
    default: try stop(life)
    }
  }

  /// Stops in order, unless a crash comes; `isCut` allows one.
  func stop(_ life: Life, isCut: Bool = true) throws(Interruption) {
    bundle = nil
    world.guests.leave()
    world.coverage.note(.orderlyStops)
    if isCut, world.may(.crashes), world.random.oneIn(5) {
      world.disk.crash(after: world.random.number(0...6), kind())
    }
    world.trace.note("stops in order")
    let isComplete = try life.stop()
    world.disk.cancelCrash()
    // The process is gone, and perhaps the power as well.
    world.disk.crashNow(world.random.flag() ? .powerLoss : .kill)
    world.oracle.crash(world.disk.crashKind, isOrderly: isComplete)
    noteSynced(isOrderly: isComplete)
    world.guests.ended(life)
    world.disk.restart()
    healAtEnd()
    self.life = nil
    clients = []
  }

  private func noteSynced(isOrderly: Bool) {
    isAllSynced =
      world.scenario.settings.isSynced || isOrderly || world.disk.crashKind == .powerLoss
  }

  private func crashed() {
    let kind = world.disk.crashKind
    world.coverage.note(kind == .kill ? .kills : .powerLosses)
    world.trace.note("CRASH \(kind), durable up to \(life?.journal.durablePosition ?? 0)")
    world.oracle.crash(kind, isOrderly: false)
    noteSynced(isOrderly: false)
    world.guests.leave()
    if let life { world.guests.ended(life) }
    life?.abandon()
    life = nil
    clients = []
    world.disk.restart()
    healAtEnd()
    if world.random.flag() { endEpisode() }
  }
}
