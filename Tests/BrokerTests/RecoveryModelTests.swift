import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Random use of a broker that is looked at after crashes and restarts.
@Suite struct RecoveryModelTests {
  @Test(arguments: Seeds.all)
  func aCrashLeavesWhatWasDurable(seed: UInt64) throws {
    let run = try BrokerModelRun(seed: seed, broker: TestBroker())
    for _ in 0..<25 {
      for _ in 0..<20 { try run.doStep() }
      try run.crash()
    }
    try run.finish()
  }

  @Test(arguments: Seeds.all)
  func aBrokerThatBeginsAgainGoesOn(seed: UInt64) throws {
    let run = try BrokerModelRun(seed: seed, broker: TestBroker())
    for round in 0..<16 {
      for _ in 0..<30 { try run.doStep() }
      try run.restart(inOrder: !round.isMultiple(of: 3))
    }
    try run.finish()
  }

  @Test(arguments: Seeds.all)
  func segmentsAreRecycledUnderneath(seed: UInt64) throws {
    // Some seeds write less than a MiB to the log.
    var settings = Journal.Settings.quick
    settings.segmentBytes = 256 << 10
    let run = try BrokerModelRun(
      seed: seed, broker: TestBroker(settings: settings), settings: settings)
    var recycled = 0
    for round in 0..<6 {
      for _ in 0..<300 { try run.doStep() }
      try run.crash()
      recycled += run.broker.journal.statistics.segmentsRecycled
      try run.restart(inOrder: round.isMultiple(of: 2))
    }
    // One message that a run leaves in its queue keeps all segments until the end.
    try run.finish()
    run.broker.quietTurn()
    recycled += run.broker.journal.statistics.segmentsRecycled
    #expect(recycled > 0, "seed \(seed)")
  }

  @Test(arguments: Seeds.all)
  func messagesMoveIntoLaneFiles(seed: UInt64) throws {
    let run = try BrokerModelRun(
      seed: seed, broker: TestBroker(settings: .spilling), settings: .spilling)
    var spills = 0
    var merged = 0
    for round in 0..<8 {
      for _ in 0..<150 { try run.doStep() }
      try run.crash()
      spills += run.broker.journal.statistics.spills
      merged += run.broker.journal.statistics.laneFilesMerged
      try run.restart(inOrder: round.isMultiple(of: 2))
    }
    #expect(spills > 0)
    // Not every run leaves little in two files at once.
    if seed == 1 { #expect(merged > 0) }
    try run.finish()
  }
}

extension Journal.Settings {
  /// Everything that is not consumed at once moves, and nothing on disk stays in memory.
  static var spilling: Journal.Settings {
    var settings = Journal.Settings.quick
    settings.windowBytes = 4096
    settings.transientBytesMax = 0
    settings.sparseFilesMin = 2
    settings.cacheBytes = 0
    return settings
  }
}
