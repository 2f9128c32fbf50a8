import IO

/// What a run has found.
struct BenchReport {
  let options: BenchOptions
  var broker = ""
  /// Before anything was done, when measuring began and ended, and after the last delivery.
  var before: BenchSnapshot?
  var begin: BenchSnapshot?
  var end: BenchSnapshot?
  var final: BenchSnapshot?
  var idleConnections = 0
  var idleOpenSeconds = 0.0
  /// The user ended the measuring early; ended even the waiting for what was on its way.
  var isInterrupted = false
  var isAborted = false

  private(set) var publishing = SideResult()
  private(set) var consuming = SideResult()
  private(set) var published = Rated()
  private(set) var confirmed = Rated()
  private(set) var delivered = Rated()
  private(set) var acknowledged = Rated()
  private(set) var deliveredBytesPerSecond = 0.0
  private(set) var errors = Errors()

  /// A count over the whole run, and how many a second there were while it was measured.
  struct Rated {
    var total = 0
    var measured = 0
    var perSecond = 0.0
  }

  struct Errors {
    /// `basic.nack` from the broker; `basic.return`.
    var refused = 0
    var returned = 0
    var unconfirmed = 0
    var misordered = 0
    var foreign = 0
    /// Should have been delivered and was not; was delivered more often than published.
    var lost = 0
    var surplus = 0
    var blocked = 0
    var failures: [String] = []
  }

  init(_ options: BenchOptions) {
    self.options = options
  }

  var hasErrors: Bool {
    let counts = [
      errors.refused, errors.returned, errors.unconfirmed, errors.misordered, errors.foreign,
      errors.lost, errors.surplus,
    ]
    return counts.contains { $0 > 0 } || !errors.failures.isEmpty
  }

  var measuredSeconds: Double {
    guard let begin, let end else { return 0 }
    return Double(end.time - begin.time) / 1_000_000_000
  }

  /// How many deliveries there will be, once publishers have finished: of what the broker has
  /// confirmed, or else of all that was published.
  func expect(_ control: BenchControl) -> Int {
    let taken =
      options.hasConfirms
      ? control.confirmed.load(ordering: .relaxed) : control.published.load(ordering: .relaxed)
    let returned = control.returned.load(ordering: .relaxed)
    return max(0, taken - returned) * options.copies
  }

  /// Draws the conclusions, once all threads have ended.
  mutating func complete(_ control: BenchControl) {
    publishing = control.publishing.result.withLock { $0 }
    consuming = control.consuming.result.withLock { $0 }
    rate(control)
    errors.refused = control.refused.load(ordering: .relaxed)
    errors.returned = control.returned.load(ordering: .relaxed)
    errors.unconfirmed = publishing.unsettled
    errors.misordered = control.misordered.load(ordering: .relaxed)
    errors.foreign = control.foreign.load(ordering: .relaxed)
    errors.blocked = control.blocked.load(ordering: .relaxed)
    errors.failures = control.failures
    guard options.consumers > 0, options.publishers > 0, !isAborted else { return }
    errors.lost = max(0, expect(control) - delivered.total)
    errors.surplus = max(0, delivered.total - published.total * options.copies)
  }

  /// A run of a given number of messages is rated from its first message to its last; any other by
  /// what was counted between two moments.
  private mutating func rate(_ control: BenchControl) {
    guard let begin, let end, let final else { return }
    let start = control.startTime.load(ordering: .relaxed)
    let isCounted = options.messages > 0 && options.publishers > 0 && !isInterrupted
    func rated(_ counter: (BenchSnapshot) -> Int, _ last: Int64) -> Rated {
      let measured = isCounted ? counter(final) : counter(end) - counter(begin)
      let time = isCounted ? last - start : end.time - begin.time
      let perSecond = time > 0 ? Double(measured) * 1_000_000_000 / Double(time) : 0
      return Rated(total: counter(final), measured: measured, perSecond: perSecond)
    }
    let lastDelivery = control.lastDeliveryTime.load(ordering: .relaxed)
    published = rated(\.published, control.publishEndTime.load(ordering: .relaxed))
    confirmed = rated(\.confirmed, control.confirmEndTime.load(ordering: .relaxed))
    delivered = rated(\.delivered, lastDelivery)
    acknowledged = rated(\.acknowledged, lastDelivery)
    deliveredBytesPerSecond = rated(\.deliveredBytes, lastDelivery).perSecond
  }

  /// The messages that processor times are divided by: deliveries if there are any.
  var handled: Int { options.consumers > 0 ? delivered.measured : published.measured }

  /// What the broker's process has used while the run was measured; nil if it is not known.
  var brokerTime: ProcessorTime? {
    let last = options.messages > 0 ? final : end
    guard let before = begin?.broker, let after = last?.broker else { return nil }
    return after.time - before.time
  }

  var ownTime: ProcessorTime {
    let last = options.messages > 0 ? final : end
    guard let begin, let last else { return ProcessorTime() }
    return last.ownTime - begin.ownTime
  }
}
