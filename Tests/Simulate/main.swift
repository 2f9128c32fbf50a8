import Simulation

var options = RunOptions()
let first = CommandLine.arguments.dropFirst().first.flatMap { UInt64($0) } ?? 1
let count = CommandLine.arguments.dropFirst(2).first.flatMap { UInt64($0) } ?? 1
options.isTraced = CommandLine.arguments.contains("--trace")
var coverage = Coverage()
for seed in first..<first + count {
  let outcome = Run.perform(seed: seed, options: options)
  coverage += outcome.coverage
  if let broken = outcome.broken {
    print("seed \(seed): \(broken)")
    if options.isTraced { for line in outcome.trace.last(20000) { print(line) } }
  }
}
for event in Coverage.Event.allCases { print(event, coverage[event], terminator: " ") }
print()
