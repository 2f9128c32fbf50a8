import Base
import IO
import Synchronization

/// What the threads of a run share: how far it is, what they have counted, what went wrong.
final class BenchControl: Sendable {
  enum Phase: Int, Comparable {
    /// Connections are being opened.
    case preparing
    case warmingUp
    case measuring
    /// Publishers publish no more and wait for their confirms.
    case stopping
    /// Consumers wait for what is still on its way.
    case draining
    case ended

    static func < (left: Phase, right: Phase) -> Bool { left.rawValue < right.rawValue }
  }

  private let currentPhase = Atomic<Int>(Phase.preparing.rawValue)
  let published = Atomic<Int>(0)
  let confirmed = Atomic<Int>(0)
  let refused = Atomic<Int>(0)
  let returned = Atomic<Int>(0)
  let delivered = Atomic<Int>(0)
  let deliveredBytes = Atomic<Int>(0)
  let acknowledged = Atomic<Int>(0)
  /// Deliveries that came behind a younger one of the same queue and publisher, or twice.
  let misordered = Atomic<Int>(0)
  /// Deliveries that no publisher of this run has sent.
  let foreign = Atomic<Int>(0)
  /// Times that the broker said `connection.blocked`.
  let blocked = Atomic<Int>(0)
  /// Deliveries after which consumers have seen everything; what is known only at the end.
  let expected = Atomic<Int>(.max)
  let publishing: BenchSide
  let consuming: BenchSide
  /// Monotonic nanoseconds of the first message, the last one, its confirm and the last delivery.
  let startTime = Atomic<Int64>(0)
  let publishEndTime = Atomic<Int64>(0)
  let confirmEndTime = Atomic<Int64>(0)
  let lastDeliveryTime = Atomic<Int64>(0)

  private let failureTexts = Mutex<[String]>([])
  /// Failures beyond so many are only counted.
  private static let failureTextsMax = 20
  private let failureCount = Atomic<Int>(0)

  let mainWakeup: Wakeup

  init() throws(SystemError) {
    mainWakeup = try Wakeup()
    publishing = try BenchSide()
    consuming = try BenchSide()
  }

  var phase: Phase {
    Phase(rawValue: currentPhase.load(ordering: .acquiring)).unsafelyUnwrapped
  }

  /// Moves on and wakes everyone. Only the main thread does.
  func enter(_ phase: Phase) {
    currentPhase.store(phase.rawValue, ordering: .releasing)
    publishing.wakeup.signal()
    consuming.wakeup.signal()
  }

  /// Something ended that should not have: a connection, a thread.
  func fail(_ text: String) {
    failureCount.add(1, ordering: .relaxed)
    failureTexts.withLock { if $0.count < Self.failureTextsMax { $0.append(text) } }
  }

  var failures: [String] {
    let texts = failureTexts.withLock { $0 }
    let more = failureCount.load(ordering: .relaxed) - texts.count
    return more > 0 ? texts + ["and \(more) more"] : texts
  }

  /// A side has opened its connections.
  func noteReady(_ side: BenchSide) {
    side.state.store(BenchSide.ready, ordering: .releasing)
    mainWakeup.signal()
  }

  /// A side has done its work, or given up.
  func noteFinished(_ side: BenchSide, _ result: SideResult) {
    side.result.withLock { $0 = result }
    side.state.store(BenchSide.finished, ordering: .releasing)
    mainWakeup.signal()
  }
}

/// The publishers' or the consumers' thread, as the main thread sees it.
final class BenchSide: Sendable {
  static let starting = 0
  static let ready = 1
  static let finished = 2

  let state = Atomic<Int>(starting)
  let wakeup: Wakeup
  let result = Mutex(SideResult())

  init() throws(SystemError) {
    wakeup = try Wakeup()
  }

  var isReady: Bool { state.load(ordering: .acquiring) >= Self.ready }
  var isFinished: Bool { state.load(ordering: .acquiring) == Self.finished }
}
