import Arbitrary
import Broker
import Journal
import Server

/// What may go wrong in a run. All of it does unless somebody looks for the cause of a failure.
package enum FaultClass: String, CaseIterable, Sendable {
  case crashes, failures, fullDisk, disconnects, slowReaders, declarations, largeMessages, spilling
  case bitRot, clockSteps
  /// Queues and exchanges with settings, which guests use.
  case settings
  /// Runs in which a confirm does not promise that power may be lost.
  case unsynced
}

/// What is asked of a run besides its seed.
package struct RunOptions: Equatable, Sendable {
  /// Turns before everything is drained; nil leaves it to the seed.
  package var turnsMax: Int?
  package var clientsMax: Int?
  package var without: Set<FaultClass> = []
  /// The guests of each run by their names; `any` leaves them to the seed.
  package var guests: Set<String> = []
  package var isTraced = false

  package init() {}

  package static var guestNames: [String] { Guests.kinds.map { $0.name } + [Guests.any] }
}

/// What a seed decides at the beginning of a run.
struct Scenario {
  let topology: Topology
  let sectorBytes: Int
  let settings: Journal.Settings
  let outputMax: Int
  let clientCount: Int
  let turns: Int
  /// Most messages that the clients want to have in the queues.
  let backlogMax: Int
  /// One of so many messages is large.
  let largeOneIn: Int
  let largeBytes: Int
  let persistentOf10: Int
  /// One of so many turns begins something bad; a life lasts about so many turns.
  let episodeOneIn: Int
  let lifeTurns: Int
  let memoryLimitBytes: Int
  let walkSteps: Int
  /// A client declares and deletes what goes as one.
  let hasBundle: Bool

  init(_ random: inout SeededGenerator, _ options: RunOptions) {
    topology = Topology(&random)
    sectorBytes = random.choose([512, 4096])
    var settings = Journal.Settings()
    settings.segmentBytes = random.choose([64 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20])
    settings.cacheBytes = random.choose([0, 0, 64 << 10, 256 << 10, 1 << 20])
    settings.windowBytes = random.choose([16 << 10, 64 << 10, 256 << 10, 64 << 20])
    settings.transientBytesMax = random.choose([64 << 10, 256 << 10, 64 << 20])
    if options.without.contains(.spilling) {
      settings.windowBytes = 1 << 30
      settings.transientBytesMax = 1 << 30
    }
    settings.batchBytesMax = random.choose([1, 64 << 10, 16 << 20])
    settings.uncommittedBytesMax = random.choose([8 << 10, 300 << 10, 64 << 20])
    settings.holeBytesMin = random.choose([4 << 10, 64 << 10])
    settings.sparseFilesMin = random.choose([2, 5, 32])
    settings.isSynced = !random.oneIn(4) || options.without.contains(.unsynced)
    settings.diskReserveBytes = random.choose([0, 64 << 10])
    self.settings = settings
    outputMax = random.choose([2 << 10, 16 << 10, 256 << 10])
    let count = random.number(2...6)
    clientCount = min(count, options.clientsMax ?? count)
    let turns = random.choose([60, 150, 150, 300])
    self.turns = min(turns, options.turnsMax ?? turns)
    backlogMax = random.choose([20, 100, 400])
    let largeOneIn = random.choose([3, 10, 40])
    self.largeOneIn = options.without.contains(.largeMessages) ? .max : largeOneIn
    largeBytes = random.choose([5_000, 40_000, 40_000, 300_000])
    persistentOf10 = random.choose([5, 9, 10])
    episodeOneIn = random.choose([8, 20, 100])
    lifeTurns = random.choose([10, 30, 30, 80])
    memoryLimitBytes = random.choose([1 << 20, 64 << 20])
    // Chores are small here: they take many turns only when a turn gives them little.
    hasBundle = (turns + largeBytes / 1000 + clientCount) % 3 == 0
    walkSteps = [1, 8192, 10, 50][(turns + lifeTurns + persistentOf10) % 4]
  }
}

extension Scenario {
  /// A turn gives checkpoints and rounds a few steps only.
  var isSlow: Bool { walkSteps < 100 }

  var limits: BrokerLimits {
    var limits = BrokerLimits()
    limits.memoryBytes = memoryLimitBytes
    limits.walkStepsPerTurn = walkSteps
    return limits
  }

  var sessionSettings: SessionSettings {
    var session = SessionSettings()
    session.frameMax = topology.frameMax
    session.outputMax = outputMax
    session.copiedBodyMax = outputMax / 2
    session.heartbeat = 0
    return session
  }

  var loopSettings: LoopSettings {
    var loop = LoopSettings()
    loop.requestBytesMax = topology.frameMax
    loop.handshakeMilliseconds = .max / 2
    loop.stuckMilliseconds = .max / 2
    return loop
  }
}
