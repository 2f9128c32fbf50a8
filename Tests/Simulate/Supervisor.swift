import Base
import Glibc
import IO
import Simulation

/// Has workers run all seeds, says what they have done, and looks for a smaller case of what failed.
final class Supervisor {
  struct Failure {
    let seed: UInt64
    let text: String

    /// Which promise it was, without the circumstances.
    var promise: Substring { text.prefix { $0 != ":" } }
  }

  /// A worker with the seeds that it was given.
  private final class Watched {
    let process: WorkerProcess
    let processor: Int
    let seeds: Range<UInt64>
    /// The seed that it runs.
    var current: UInt64?
    /// What it said besides.
    var words: [String] = []
    /// When it last said something.
    var heard = Clock.monotonicNanoseconds()

    init(process: WorkerProcess, processor: Int, seeds: Range<UInt64>) {
      self.process = process
      self.processor = processor
      self.seeds = seeds
    }
  }

  private let arguments: Arguments
  private var workers: [Watched] = []
  /// The first seed that no worker was given, and what was left of those before.
  private var next: UInt64
  private var left: [Range<UInt64>] = []
  private var coverage = Coverage()
  private var done = 0
  private var kept = 0
  private var failures: [Failure] = []
  private let started = Clock.monotonicNanoseconds()
  private let showsProgress = isatty(2) != 0

  /// Seeds that one process runs.
  private static let batch: UInt64 = 200
  /// A seed takes a second; one that takes this long turns for ever.
  private static let seedSecondsMax: Int64 = 300
  private static let failuresMax = 20
  private static let traceLines = 40

  init(_ arguments: Arguments) {
    self.arguments = arguments
    next = arguments.firstSeed
  }

  private var seconds: Int {
    Int((Clock.monotonicNanoseconds() - started) / 1_000_000_000)
  }

  /// Returns whether all promises were kept.
  func run() -> Bool {
    if arguments.seed != nil, arguments.options.isTraced {
      _ = run(arguments.options, arguments.firstSeed) { say($0) }
    }
    while true {
      while !isEnough, workers.count < arguments.jobs, let range = nextRange() { start(range) }
      guard !workers.isEmpty else { break }
      listen()
      endWhatHangs()
      if isOver || arguments.isQuick && !failures.isEmpty {
        for worker in workers { _ = worker.process.end(kills: true) }
        workers = []
      }
      progress()
    }
    summarize()
    return failures.isEmpty
  }

  /// The time is up, for seeds that are half done as well.
  private var isOver: Bool {
    guard let minutes = arguments.minutes else { return false }
    return seconds >= minutes * 60
  }

  private var isEnough: Bool {
    if isOver { return true }
    return failures.count >= (arguments.isQuick ? 1 : Self.failuresMax)
  }

  private func nextRange() -> Range<UInt64>? {
    if let rest = left.popLast() { return rest }
    let end = arguments.minutes == nil ? arguments.firstSeed + arguments.seeds : .max
    guard next < end else { return nil }
    let range = next..<next + min(Self.batch, end - next)
    next = range.upperBound
    return range
  }

  private func start(_ seeds: Range<UInt64>) {
    var options = arguments.options
    options.isTraced = false
    var words =
      ["--first-seed", "\(seeds.lowerBound)", "--seeds", "\(seeds.count)"] + options.words
    if let variant = arguments.variant { words += ["--variant", variant.rawValue] }
    let taken = workers.map(\.processor)
    let processor = (0...taken.count).first { !taken.contains($0) } ?? 0
    workers.append(
      Watched(
        process: WorkerProcess(words, processor: processor), processor: processor, seeds: seeds))
  }

  /// Waits until workers have said something, and takes it.
  private func listen() {
    var polls = workers.map { pollfd(fd: $0.process.descriptor, events: Int16(POLLIN), revents: 0) }
    poll(&polls, nfds_t(polls.count), 1000)
    for index in polls.indices.reversed() where polls[index].revents != 0 {
      if let lines = workers[index].process.readLines() {
        workers[index].heard = Clock.monotonicNanoseconds()
        for line in lines { take(line, workers[index]) }
      } else {
        ended(workers.remove(at: index))
      }
    }
  }

  /// A turn without an end is a way to fail, and must not keep whoever waits for the result.
  private func endWhatHangs() {
    let now = Clock.monotonicNanoseconds()
    for index in workers.indices.reversed()
    where now - workers[index].heard > Self.seedSecondsMax * 1_000_000_000 {
      workers[index].words = ["it did not end in \(Self.seedSecondsMax) s"]
      ended(workers.remove(at: index), kills: true)
    }
  }

  /// A worker that stopped in the middle of its seeds leaves the rest to another one.
  private func ended(_ worker: Watched, kills: Bool = false) {
    guard !worker.process.end(kills: kills), let seed = worker.current else { return }
    note(seed, Self.stopped(worker.words), shrinks: !kills)
    if seed + 1 < worker.seeds.upperBound { left.append(seed + 1..<worker.seeds.upperBound) }
  }

  // MARK: What workers say

  private func take(_ line: String, _ worker: Watched) {
    let parts = line.split(separator: " ", maxSplits: 3)
    switch parts.first {
    case "seed" where parts.count == 2: worker.current = UInt64(parts[1])
    case "done" where parts.count == 3:
      kept += 1
      count(parts[2])
    case "broken" where parts.count == 4:
      count(parts[2])
      note(worker.current ?? 0, String(parts[3]))
    default: worker.words.append(line)
    }
  }

  private func count(_ text: Substring) {
    done += 1
    if let counts = Coverage(line: String(text)) { coverage += counts }
  }

  private func note(_ seed: UInt64, _ text: String, shrinks: Bool = true) {
    let failure = Failure(seed: seed, text: text)
    failures.append(failure)
    clearProgress()
    say("seed \(seed): \(text)")
    let isTold = arguments.seed != nil && arguments.options.isTraced
    guard shrinks, failures.count == 1, !isOver, !arguments.isQuick, !isTold else {
      return say("  again with: \(command(failure.seed, arguments.options)) --trace")
    }
    show(failure)
    // Nobody listened meanwhile.
    for worker in workers { worker.heard = Clock.monotonicNanoseconds() }
  }

  private func command(_ seed: UInt64, _ options: RunOptions) -> String {
    var options = options
    options.isTraced = false
    var words = ["Tools/simulate", "--seed", "\(seed)"] + options.words
    if let variant = arguments.variant { words += ["--variant", variant.rawValue] }
    return words.joined(separator: " ")
  }

  // MARK: Smaller cases

  /// Looks for the smallest case with the same seed that breaks the same promise, and shows its end.
  private func show(_ failure: Failure) {
    var best = arguments.options
    best.isTraced = false
    for fault in FaultClass.allCases where !best.without.contains(fault) {
      var candidate = best
      candidate.without.insert(fault)
      if breaks(failure, candidate) { best = candidate }
    }
    for clients in 1...4 {
      var candidate = best
      candidate.clientsMax = clients
      if breaks(failure, candidate) {
        best = candidate
        break
      }
    }
    var steps = 1
    while steps < 512 {
      var candidate = best
      candidate.turnsMax = steps
      if breaks(failure, candidate) {
        best = candidate
        break
      }
      steps += steps / 2 + 1
    }
    var traced = best
    traced.isTraced = true
    var lines: [String] = []
    _ = run(traced, failure.seed) { lines.append($0) }
    for line in lines.suffix(Self.traceLines) { say("  \(line.prefix(200))") }
    say("  again with: \(command(failure.seed, best)) --trace")
  }

  private func breaks(_ failure: Failure, _ options: RunOptions) -> Bool {
    guard let text = run(options, failure.seed, { _ in }) else { return false }
    return Failure(seed: failure.seed, text: text).promise == failure.promise
  }

  /// Runs one seed; returns what broke. `trace` gets what happened, if the options ask for it.
  private func run(
    _ options: RunOptions, _ seed: UInt64, _ trace: (String) -> Void
  ) -> String? {
    var words = ["--first-seed", "\(seed)", "--seeds", "1"] + options.words
    if let variant = arguments.variant { words += ["--variant", variant.rawValue] }
    let process = WorkerProcess(words, processor: 0)
    var broken: String?
    var others: [String] = []
    while let lines = process.readLines() {
      for line in lines {
        if line.hasPrefix("trace ") {
          trace(String(line.dropFirst(6)))
        } else if line.hasPrefix("broken ") {
          broken = line.split(separator: " ", maxSplits: 3).last.map(String.init)
        } else {
          others.append(line)
        }
      }
    }
    if !process.end(), broken == nil {
      broken = Self.stopped(others)
    }
    return broken
  }

  /// What a process that stopped had to say.
  private static func stopped(_ words: [String]) -> String {
    let reason = words.first { $0.contains("Fatal error") } ?? words.last ?? "without a word"
    return "the process stopped: \(reason)"
  }

  // MARK: Saying

  private func progress() {
    guard showsProgress else { return }
    let text = "\r\(done) seeds, \(failures.count) failed, \(seconds) s\u{1B}[K"
    showProgress(text)
  }

  private func clearProgress() {
    if showsProgress { showProgress("\r\u{1B}[K") }
  }

  private func summarize() {
    clearProgress()
    for event in Coverage.Event.allCases {
      say("  \(event.rawValue) \(coverage[event])")
    }
    if !coverage.missing.isEmpty, done >= 100 {
      say("never done: \(coverage.missing.map(\.rawValue).joined(separator: ", "))")
    }
    say(
      "simulate: seeds from \(arguments.firstSeed) on for \(seconds) s:"
        + " \(kept) passed, \(failures.count) failed"
        + (failures.isEmpty
          ? "" : ": " + failures.map { "\($0.seed)" }.joined(separator: " ")))
  }
}
