import AMQP
import Base
import Client
import Glibc
import IO

/// A load run as the main thread sees it: it prepares, starts a thread for the publishers and one
/// for the consumers, moves the run from phase to phase, and cleans up.
final class Bench {
  private let options: BenchOptions
  private let control: BenchControl
  private let signals: SignalQueue
  private let poller: Poller
  private let idle: IdleConnections
  private var topology: BenchTopology
  private var progress: BenchProgress
  /// How often the user has asked to stop. The first time ends the measuring, the second the run.
  private var stopRequests = 0

  private static let tickMilliseconds: Int64 = 100

  init(_ options: BenchOptions) throws(SystemError) {
    self.options = options
    // Before any thread is started: threads inherit that signals are held back.
    signals = try SignalQueue([SIGINT, SIGTERM])
    DescriptorLimit.raise()
    control = try BenchControl()
    poller = try Poller()
    idle = try IdleConnections(control)
    topology = BenchTopology(options, processID: getpid())
    progress = BenchProgress(options)
    try poller.add(signals.descriptor.raw, token: 0, reads: true, writes: false)
    try poller.add(control.mainWakeup.descriptor.raw, token: 1, reads: true, writes: false)
  }

  /// The whole run. Errors are those that kept it from beginning or ending; what went wrong in
  /// between stands in the report.
  func run() throws -> BenchReport {
    var report = BenchReport(options)
    report.before = snapshot()
    defer { cleanUp() }
    report.broker = try declare()
    idle.open(options.idleConnections, options) { noteSignals() && stopRequests > 0 }
    report.idleConnections = idle.count
    report.idleOpenSeconds = idle.openSeconds
    // Until they have ended, the threads use nothing but the topology and the control.
    defer { control.enter(.ended) }
    let consumers = try start(control.consuming, "consumers", options.consumers) {
      [topology, control] in
      let thread = try ConsumerThread(topology, control)
      return try thread.run()
    }
    let publishers = try start(control.publishing, "publishers", options.publishers) {
      [topology, control] in
      let thread = try PublisherThread(topology, control)
      return try thread.run()
    }
    try measure(&report)
    control.enter(.ended)
    publishers?.join()
    consumers?.join()
    report.complete(control)
    idle.close()
    return report
  }

  // MARK: Phases

  private func measure(_ report: inout BenchReport) throws {
    if options.warmUpSeconds > 0, !options.isIdle {
      control.enter(.warmingUp)
      try wait(seconds: options.warmUpSeconds) { hasEnded }
    }
    report.begin = snapshot()
    control.enter(.measuring)
    try wait(seconds: options.durationSeconds) { hasEnded }
    report.end = snapshot()
    control.enter(.stopping)
    try wait(stopRequestsMax: 1) { control.publishing.isFinished || options.publishers == 0 }
    control.expected.store(report.expect(control), ordering: .relaxed)
    control.enter(.draining)
    try wait(stopRequestsMax: 1) { control.consuming.isFinished || options.consumers == 0 }
    report.final = snapshot()
    report.isInterrupted = stopRequests > 0
    report.isAborted = stopRequests > 1
  }

  /// Whether there is nothing more to measure.
  private var hasEnded: Bool {
    if options.isIdle { return false }
    if options.publishers > 0 { return control.publishing.isFinished }
    return control.consuming.isFinished
  }

  /// Waits until `isOver`, the time has passed (0: no limit), or the user wants to stop.
  private func wait(
    seconds: Double = 0, stopRequestsMax: Int = 0, until isOver: () -> Bool
  ) throws(SystemError) {
    let start = Clock.monotonicNanoseconds()
    let end = seconds > 0 ? start + Int64(seconds * 1_000_000_000) : .max
    while !isOver(), noteSignals(), stopRequests <= stopRequestsMax {
      let left = end - Clock.monotonicNanoseconds()
      if left <= 0 { return }
      let milliseconds = min(Self.tickMilliseconds, left / 1_000_000 + 1)
      try poller.wait(timeoutMilliseconds: Int32(milliseconds)) { _ in }
      control.mainWakeup.clear()
      idle.tick()
      progress.tick(snapshot())
    }
  }

  /// Counts the signals that came; always true, for the sake of conditions.
  private func noteSignals() -> Bool {
    while signals.next() != nil { stopRequests += 1 }
    return true
  }

  // MARK: Threads

  /// Starts a side's thread and waits until its connections are open. Nil if it has none.
  private func start(
    _ side: BenchSide, _ name: String, _ count: Int,
    _ body: @escaping @Sendable () throws -> SideResult
  ) throws -> Thread? {
    guard count > 0 else { return nil }
    let thread = try Thread(name: name) { [control] in
      var result = SideResult()
      do {
        result = try body()
      } catch {
        control.fail("\(name): \(error)")
      }
      control.noteFinished(side, result)
    }
    try wait { side.isReady }
    return thread
  }

  // MARK: Before and after

  /// Declares queues and exchange; returns what the broker calls itself.
  private func declare() throws -> String {
    let connection = try connect()
    if !options.isIdle { try topology.declare(on: connection) }
    let product = connection.serverProperties["product"]?.text ?? "an unknown broker"
    let version = connection.serverProperties["version"]?.text ?? ""
    try connection.close()
    return "\(product) \(version)"
  }

  private func cleanUp() {
    guard !options.keepsQueues, topology.hasCreatedAnything else { return }
    do {
      let connection = try connect()
      try topology.delete(on: connection)
      try connection.close()
    } catch {
      let text = "could not delete what it has declared: \(error)"
      Console.complain(text, path: ["martlet", "bench"])
    }
  }

  private func connect() throws(ClientError) -> WireConnection {
    var wire = WireOptions()
    wire.connectionName = "\(options.name) control"
    return try WireConnection(options.url, wire)
  }

  private func snapshot() -> BenchSnapshot {
    BenchSnapshot(control, brokerPID: options.brokerPID)
  }
}
