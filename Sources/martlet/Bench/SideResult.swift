import IO

/// What one side of a run, its publishers or its consumers, has measured.
struct SideResult: Sendable {
  var latency = LatencyHistogram()
  /// Of the side's thread, while it measured.
  var processorTime = ProcessorTime()
  /// Messages that were still unconfirmed when the broker was given up on.
  var unsettled = 0
}

/// Notices when a run begins and ends to measure, and takes the thread's processor time there.
struct PhaseWatch {
  private var last = BenchControl.Phase.preparing
  private var begin: ProcessorTime?
  private var end: ProcessorTime?

  /// Whether measuring begins just now.
  mutating func observe(_ phase: BenchControl.Phase) -> Bool {
    guard phase != last else { return false }
    last = phase
    if phase == .measuring {
      begin = .ofThisThread
      return true
    }
    if phase > .measuring { finish() }
    return false
  }

  /// Ends measuring, unless it has ended.
  mutating func finish() {
    if end == nil { end = .ofThisThread }
  }

  var processorTime: ProcessorTime {
    guard let begin, let end else { return ProcessorTime() }
    return end - begin
  }
}
