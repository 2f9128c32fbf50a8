import Base
import Client
import IO

/// The thread that drives all consumers.
final class ConsumerThread {
  private let topology: BenchTopology
  private let control: BenchControl
  private let poller: Poller
  private var consumers: [BenchConsumer] = []
  /// What the poller was last told, by consumer.
  private var watchesWrite: [Bool] = []
  private var watch = PhaseWatch()
  private var lastTick: Int64 = 0

  private static let wakeupToken = UInt64.max
  private static let tickNanoseconds: Int64 = 250_000_000

  init(_ topology: BenchTopology, _ control: BenchControl) throws(SystemError) {
    self.topology = topology
    self.control = control
    poller = try Poller()
  }

  /// Opens the connections, consumes until everything has come or the run ends, closes them.
  func run() throws -> SideResult {
    try poller.add(
      control.consuming.wakeup.descriptor.raw, token: Self.wakeupToken, reads: true,
      writes: false)
    for index in 0..<topology.options.consumers {
      try open(index)
    }
    control.noteReady(control.consuming)
    for index in consumers.indices {
      consumers[index].takeBuffered()
      try watchForWriting(index)
    }
    try consume()
    watch.finish()
    var result = SideResult()
    result.processorTime = watch.processorTime
    for consumer in consumers { result.latency.add(consumer.takeLatency()) }
    close()
    return result
  }

  /// Says goodbye to a broker that still answers, and hangs up on one that does not.
  private func close() {
    var isAnswering = true
    for consumer in consumers where !consumer.hasFailed {
      guard isAnswering else {
        consumer.connection.disconnect()
        continue
      }
      consumer.close()
      isAnswering = !consumer.hasFailed
    }
  }

  private func open(_ index: Int) throws {
    let consumer = try BenchConsumer(index: index, topology: topology, control: control)
    try poller.add(
      consumer.connection.descriptor, token: UInt64(index), reads: true, writes: false)
    consumers.append(consumer)
    watchesWrite.append(false)
  }

  private func consume() throws {
    var served: [Int] = []
    while true {
      let phase = control.phase
      if watch.observe(phase) {
        for consumer in consumers { _ = consumer.takeLatency() }
      }
      if isOver(phase) { return }
      served.removeAll(keepingCapacity: true)
      try poller.wait(timeoutMilliseconds: 250) { event in
        guard event.token != Self.wakeupToken else { return control.consuming.wakeup.clear() }
        let index = Int(event.token)
        let consumer = consumers[index]
        served.append(index)
        if event.isWritable { consumer.flush() }
        if event.isReadable || event.isHangup { consumer.receive() }
      }
      for index in served { try watchForWriting(index) }
      tick(Clock.monotonicNanoseconds())
    }
  }

  /// Whether nothing more is expected: all has come, or nothing has for too long.
  private func isOver(_ phase: BenchControl.Phase) -> Bool {
    if phase == .ended || consumers.allSatisfy(\.hasFailed) { return true }
    let options = topology.options
    let delivered = control.delivered.load(ordering: .relaxed)
    if options.publishers == 0 {
      if options.messages > 0, delivered >= options.messages { return true }
      return phase > .measuring || (options.messages > 0 && delivered > 0 && isSilent())
    }
    guard phase == .draining else { return false }
    return delivered >= control.expected.load(ordering: .relaxed) || isSilent()
  }

  private func isSilent() -> Bool {
    let last = control.lastDeliveryTime.load(ordering: .relaxed)
    let since = max(last, control.confirmEndTime.load(ordering: .relaxed))
    let silence = Int64(topology.options.drainSeconds * 1_000_000_000)
    return Clock.monotonicNanoseconds() - since > silence
  }

  /// Asks for room to write while there is something to write.
  private func watchForWriting(_ index: Int) throws(SystemError) {
    let consumer = consumers[index]
    guard watchesWrite[index] != consumer.wantsWrite, consumer.connection.isConnected else {
      return
    }
    watchesWrite[index] = consumer.wantsWrite
    try poller.change(
      consumer.connection.descriptor, token: UInt64(index), reads: true,
      writes: consumer.wantsWrite)
  }

  private func tick(_ now: Int64) {
    guard now - lastTick > Self.tickNanoseconds else { return }
    lastTick = now
    for consumer in consumers { consumer.tick() }
  }
}
