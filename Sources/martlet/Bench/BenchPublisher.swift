import AMQP
import Base
import Client
import IO

/// One connection that publishes from its template, within its window and its schedule.
final class BenchPublisher: WireSink {
  static let channel: UInt16 = 1

  let connection: WireConnection
  private let index: Int
  private let control: BenchControl
  private var template: PublishTemplate
  /// What was published and not confirmed, or not committed.
  private var window: ConfirmWindow?
  private let isTransactional: Bool
  /// The transaction is complete; the broker has not answered its commit.
  private var isCommitting = false
  /// One message of so many carries the time.
  private let stampEvery: Int
  /// Messages that were given to the kernel or lie in `unwritten`.
  private(set) var published = 0
  /// Messages to publish in all.
  private var limit: Int
  /// What the kernel has not yet taken of the slots that were last numbered.
  private var unwritten = 0..<0
  /// A message was due that could not be published: times count from when it was due.
  private var isBehind = false
  /// The kernel has no room, or had room for all and there is more.
  private(set) var wantsWrite = false
  private(set) var hasFailed = false
  private var confirmLatency = LatencyHistogram()
  /// When the bytes that are being handed over came.
  private var receivedTime: Int64 = 0

  /// Opens the connection and its channel.
  init(
    index: Int, topology: BenchTopology, control: BenchControl
  ) throws(ClientError) {
    let options = topology.options
    var wire = WireOptions()
    wire.connectionName = "\(options.name) publisher \(index)"
    wire.readSize = 16_384
    connection = try WireConnection(options.url, wire)
    self.index = index
    self.control = control
    template = PublishTemplate(
      topology.routes(ofPublisher: index), options, publisher: index,
      frameMax: connection.frameMax)
    let share = options.messages / options.publishers
    let hasOneMore = index < options.messages % options.publishers
    limit = options.messages == 0 ? .max : share + (hasOneMore ? 1 : 0)
    isTransactional = options.transaction > 0
    let windowSize = max(options.confirmWindow, options.transaction)
    let isSlow = options.rate > 0 || (1...256).contains(windowSize)
    stampEvery = isSlow ? 1 : 128
    try connection.openChannel(Self.channel)
    if options.confirmWindow > 0 {
      try connection.call(.confirmSelect(ConfirmSelect()), channel: Self.channel)
    }
    if isTransactional { try connection.call(.txSelect(TxSelect()), channel: Self.channel) }
    if windowSize > 0 { window = ConfirmWindow(size: windowSize) }
  }

  var outstanding: Int { window?.outstanding ?? 0 }

  /// Everything is published, written and confirmed, or nothing can be any more.
  var isFinished: Bool { hasFailed || (hasPublishedAll && outstanding == 0) }

  var hasPublishedAll: Bool { hasFailed || (published >= limit && unwritten.isEmpty) }

  /// Publishes nothing beyond what it has begun.
  func stop() {
    limit = published
  }

  /// Publishes what window, schedule and kernel allow.
  func publish(_ pacer: Pacer?) {
    attempt { () throws(ClientError) in try publishWhatMayBe(pacer) }
  }

  /// Takes what the broker has sent.
  func receive() {
    attempt { () throws(ClientError) in
      guard try connection.fill() else { return }
      receivedTime = Clock.monotonicNanoseconds()
      _ = try connection.dispatch(into: self) { false }
      if hasFailed { connection.disconnect() }
    }
  }

  /// Keeps up the heartbeats; never in the middle of a frame.
  func tick() {
    guard unwritten.isEmpty else { return }
    attempt { () throws(ClientError) in try connection.tick() }
  }

  /// Says goodbye, or hangs up where the last frame could not be written.
  func close() {
    guard !hasFailed, unwritten.isEmpty else { return connection.disconnect() }
    attempt { () throws(ClientError) in try connection.close() }
  }

  /// Hands over the latencies so far and begins anew.
  func takeConfirmLatency() -> LatencyHistogram {
    defer { confirmLatency.removeAll() }
    return confirmLatency
  }

  private func publishWhatMayBe(_ pacer: Pacer?) throws(ClientError) {
    while try writeRest() {
      if try commitIfComplete() { continue }
      let now = Clock.monotonicNanoseconds()
      let due = pacer?.due(ofPublisher: index, now: now) ?? .max
      let wanted = min(limit, due) - published
      let allowed = min(wanted, room(isPaced: pacer != nil))
      guard allowed > 0 else {
        isBehind = wanted > 0
        wantsWrite = false
        return
      }
      let count = min(allowed, template.run(from: published))
      number(count, now, isBehind ? pacer : nil)
      isBehind = false
      if window == nil, pacer == nil {
        // Nothing but the kernel holds this publisher back; let the others have their turn.
        wantsWrite = true
        _ = try writeRest()
        return
      }
    }
    isBehind = true
    wantsWrite = true
  }

  /// How many messages the window takes. Without a schedule it is refilled by quarters, since
  /// single messages cost both sides a system call each.
  private func room(isPaced: Bool) -> Int {
    guard let window else { return .max }
    if isTransactional { return isCommitting ? 0 : window.available }
    let room = window.available
    return isPaced || room >= max(1, window.size / 4) ? room : 0
  }

  /// Asks for the commit of a transaction that has all of its messages, or gets no more.
  private func commitIfComplete() throws(ClientError) -> Bool {
    guard isTransactional, !isCommitting, let window, window.outstanding > 0,
      window.available == 0 || published >= limit
    else { return false }
    connection.send(.txCommit(TxCommit()), channel: Self.channel)
    isCommitting = true
    return true
  }

  private func noteCommit() {
    isCommitting = false
    let count =
      window?.settle(upTo: 0, isMultiple: true, now: receivedTime, into: &confirmLatency) ?? 0
    if count == 0 { control.fail("publisher \(index): a commit of nothing") }
    control.confirmed.add(count, ordering: .relaxed)
  }

  private func number(_ count: Int, _ now: Int64, _ late: Pacer?) {
    let stamp = late?.time(ofPublisher: index, message: published) ?? now
    let step = late?.stepNanoseconds ?? 0
    template.number(
      from: published, count: count, stamp: stamp, step: step, stampEvery: stampEvery)
    unwritten = template.range(from: published, count: count)
    window?.publish(count: count, stamp: stamp, step: step)
    published += count
    control.published.add(count, ordering: .relaxed)
  }

  /// Whether all that was numbered is written.
  private func writeRest() throws(ClientError) -> Bool {
    guard try connection.flushAvailable() else { return false }
    while !unwritten.isEmpty {
      let size = try template.write(unwritten, to: connection)
      if size == 0 { return false }
      unwritten = unwritten.lowerBound + size..<unwritten.upperBound
    }
    return true
  }

  private func attempt(_ body: () throws(ClientError) -> Void) {
    guard !hasFailed else { return }
    do {
      try body()
    } catch {
      hasFailed = true
      wantsWrite = false
      connection.disconnect()
      control.fail("publisher \(index): \(error)")
    }
  }

  // MARK: What the broker sends

  func received(_ message: borrowing WireMessage) {
    control.returned.add(1, ordering: .relaxed)
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {
    let count =
      window?.settle(
        upTo: tag, isMultiple: isMultiple, now: receivedTime, into: &confirmLatency) ?? 0
    if count == 0 { control.fail("publisher \(index): a confirm of unknown message \(tag)") }
    if isAccepted {
      control.confirmed.add(count, ordering: .relaxed)
    } else {
      control.refused.add(count, ordering: .relaxed)
    }
  }

  func received(_ method: Method, channel: UInt16) {
    switch method {
    case .connectionBlocked: control.blocked.add(1, ordering: .relaxed)
    case .connectionUnblocked: break
    case .txCommitOk: noteCommit()
    case .channelClose(let close):
      hasFailed = true
      control.fail("publisher \(index): the channel was closed: \(close.replyText)")
    default:
      control.fail("publisher \(index): an unexpected \(method.id)")
    }
  }
}
