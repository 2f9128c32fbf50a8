import Arbitrary
import Server

/// What lasts over all lives of the broker in a run.
final class World {
  let scenario: Scenario
  let options: RunOptions
  let disk: VirtualDisk
  let oracle: Oracle
  let coverage = CoverageCounter()
  let trace: Trace
  /// What the broker says in its log.
  let log: Log
  let told = Told()
  let guests = Guests()
  var random: SeededGenerator
  /// Wall-clock milliseconds.
  var now: Int64 = 1_800_000_000_000

  /// How often the broker spoke of damage. Like the trace it is changed by whoever has the baton.
  final class Told: @unchecked Sendable {
    var count = 0
  }

  static let directory = "/journal"

  init(seed: UInt64, options: RunOptions) {
    random = SeededGenerator(seed: seed)
    self.options = options
    var forScenario = SeededGenerator(seed: seed ^ 0x5CE9_A610)
    scenario = Scenario(&forScenario, options)
    let trace = Trace(isOn: options.isTraced)
    self.trace = trace
    let told = told
    log = Log(level: options.isTraced ? .info : .error) { line in
      trace.note("log: \(line)")
      if line.contains("damaged") { told.count += 1 }
    }
    disk = VirtualDisk(
      seed: seed ^ 0xD15C, sectorBytes: scenario.sectorBytes, coverage: coverage,
      trace: trace)
    // A sync that failed cannot be made good by the next one. Where writes are synced a journal never
    // asks twice; else nobody can help.
    disk.forgetsAtFailure = scenario.settings.isSynced
    oracle = Oracle(
      topology: scenario.topology, isSynced: scenario.settings.isSynced, coverage: coverage,
      trace: trace)
    oracle.isDamageTold = { told.count > 0 }
    oracle.guests = guests
    guests.choose(for: self, seed: seed, wanted: options.guests)
  }

  func may(_ fault: FaultClass) -> Bool { !options.without.contains(fault) }
}
