import Arbitrary

/// What lasts over all lives of the broker in a run.
final class World {
  let scenario: Scenario
  let options: RunOptions
  let disk: VirtualDisk
  let oracle: Oracle
  let coverage = CoverageCounter()
  let trace: Trace
  var random: SeededGenerator
  /// Wall-clock milliseconds.
  var now: Int64 = 1_800_000_000_000

  static let directory = "/journal"

  init(seed: UInt64, options: RunOptions) {
    random = SeededGenerator(seed: seed)
    self.options = options
    var forScenario = SeededGenerator(seed: seed ^ 0x5CE9_A610)
    scenario = Scenario(&forScenario, options)
    trace = Trace(isOn: options.isTraced)
    disk = VirtualDisk(
      seed: seed ^ 0xD15C, sectorBytes: scenario.sectorBytes, coverage: coverage,
      trace: trace)
    oracle = Oracle(topology: scenario.topology, coverage: coverage, trace: trace)
  }

  func may(_ fault: FaultClass) -> Bool { !options.without.contains(fault) }
}
