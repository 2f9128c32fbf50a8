import Base
import Client
import IO

/// The thread that drives all publishers.
final class PublisherThread {
  private let topology: BenchTopology
  private let control: BenchControl
  private let poller: Poller
  private let timer: Timer
  private var publishers: [BenchPublisher] = []
  /// What the poller was last told, by publisher.
  private var watchesWrite: [Bool] = []
  /// Publishers that may have something to do, and whether each is among them: with thousands of
  /// connections most have nothing to do at most times.
  private var touched: [Int] = []
  private var isTouched: [Bool] = []
  private var pacer: Pacer?
  /// Messages of the schedule whose publishers were touched when they were due.
  private var dueCount = 0
  private var watch = PhaseWatch()
  private var result = SideResult()
  private var lastTick: Int64 = 0

  private static let wakeupToken = UInt64.max
  private static let timerToken = UInt64.max - 1
  private static let tickNanoseconds: Int64 = 250_000_000

  init(_ topology: BenchTopology, _ control: BenchControl) throws(SystemError) {
    self.topology = topology
    self.control = control
    poller = try Poller()
    timer = try Timer()
  }

  /// Opens the connections, publishes, waits for the confirms, closes the connections.
  func run() throws -> SideResult {
    try poller.add(
      control.publishing.wakeup.descriptor.raw, token: Self.wakeupToken, reads: true,
      writes: false)
    try poller.add(timer.descriptor.raw, token: Self.timerToken, reads: true, writes: false)
    for index in 0..<topology.options.publishers {
      try open(index)
    }
    control.noteReady(control.publishing)
    while control.phase == .preparing { try wait(timeoutMilliseconds: 250) }
    begin()
    try publish()
    watch.finish()
    result.processorTime = watch.processorTime
    result.unsettled = publishers.reduce(0) { $0 + $1.outstanding }
    for publisher in publishers { result.latency.add(publisher.takeConfirmLatency()) }
    close()
    return result
  }

  /// Says goodbye to a broker that still answers, and hangs up on one that does not.
  private func close() {
    var isAnswering = true
    for publisher in publishers where !publisher.hasFailed {
      guard isAnswering else {
        publisher.connection.disconnect()
        continue
      }
      publisher.close()
      isAnswering = !publisher.hasFailed
    }
  }

  private func open(_ index: Int) throws {
    let publisher = try BenchPublisher(index: index, topology: topology, control: control)
    try poller.add(
      publisher.connection.descriptor, token: UInt64(index), reads: true, writes: false)
    publishers.append(publisher)
    watchesWrite.append(false)
    isTouched.append(false)
  }

  private func begin() {
    let now = Clock.monotonicNanoseconds()
    control.startTime.store(now, ordering: .relaxed)
    guard topology.options.rate > 0 else { return }
    pacer = Pacer(
      startNanoseconds: now, messagesPerSecond: Double(topology.options.rate),
      publishers: publishers.count)
  }

  private func publish() throws {
    var deadline = Int64.max
    touchAll()
    while true {
      let phase = control.phase
      if watch.observe(phase) {
        for publisher in publishers { _ = publisher.takeConfirmLatency() }
      }
      let now = Clock.monotonicNanoseconds()
      if phase >= .stopping, deadline == .max {
        for publisher in publishers { publisher.stop() }
        deadline = now + Int64(BenchOptions.confirmSecondsMax * 1_000_000_000)
        touchAll()
      }
      touchDue(now)
      try visitTouched()
      noteProgress(now)
      if publishers.allSatisfy(\.isFinished) || now > deadline || phase == .ended { return }
      if let pacer, phase < .stopping { timer.arm(atNanoseconds: pacer.nextTime(after: now)) }
      try wait(timeoutMilliseconds: 250)
      tick(now)
    }
  }

  private func noteProgress(_ now: Int64) {
    let hasEnd = control.publishEndTime.load(ordering: .relaxed) != 0
    if !hasEnd, publishers.allSatisfy(\.hasPublishedAll) {
      control.publishEndTime.store(now, ordering: .relaxed)
    }
    if publishers.allSatisfy(\.isFinished) {
      control.confirmEndTime.store(now, ordering: .relaxed)
    }
  }

  // MARK: Who has something to do

  private func touch(_ index: Int) {
    guard !isTouched[index] else { return }
    isTouched[index] = true
    touched.append(index)
  }

  private func touchAll() {
    for index in publishers.indices { touch(index) }
  }

  /// Touches those whose turn in the schedule has come.
  private func touchDue(_ now: Int64) {
    guard let pacer else { return }
    let due = pacer.dueOfAll(now: now)
    for number in max(dueCount, due - publishers.count)..<due { touch(number % publishers.count) }
    dueCount = due
  }

  private func visitTouched() throws(SystemError) {
    for index in touched {
      isTouched[index] = false
      let publisher = publishers[index]
      publisher.publish(pacer)
      guard watchesWrite[index] != publisher.wantsWrite, publisher.connection.isConnected else {
        continue
      }
      watchesWrite[index] = publisher.wantsWrite
      try poller.change(
        publisher.connection.descriptor, token: UInt64(index), reads: true,
        writes: publisher.wantsWrite)
    }
    touched.removeAll(keepingCapacity: true)
  }

  private func wait(timeoutMilliseconds: Int32) throws(SystemError) {
    try poller.wait(timeoutMilliseconds: timeoutMilliseconds) { event in
      switch event.token {
      case Self.wakeupToken: control.publishing.wakeup.clear()
      case Self.timerToken: timer.clear()
      case let token:
        touch(Int(token))
        if event.isReadable || event.isHangup { publishers[Int(token)].receive() }
      }
    }
  }

  private func tick(_ now: Int64) {
    guard now - lastTick > Self.tickNanoseconds else { return }
    lastTick = now
    for publisher in publishers { publisher.tick() }
  }
}
