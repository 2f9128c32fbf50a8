import Base
import Simulation

/// Runs seeds and says of each how it went, a line for each: `seed S` before, `done S COVERAGE` or
/// `broken S COVERAGE PROMISE` behind it. A process of its own, so that a run that stops it is one more
/// way to fail.
struct Worker {
  private let arguments: Arguments
  private static let traceLinesMax = 20_000

  init(_ arguments: Arguments) {
    self.arguments = arguments
  }

  func run() {
    #if SABOTAGE
      Sabotage.active = arguments.variant
    #endif
    var seed = arguments.firstSeed
    for _ in 0..<arguments.seeds {
      say("seed \(seed)")
      let outcome = Run.perform(seed: seed, options: arguments.options)
      if arguments.options.isTraced {
        for line in outcome.trace.last(Self.traceLinesMax) { say("trace \(line)") }
      }
      if let broken = outcome.broken {
        say("broken \(seed) \(outcome.coverage.line) \(broken)")
      } else {
        say("done \(seed) \(outcome.coverage.line)")
      }
      seed += 1
    }
  }
}
