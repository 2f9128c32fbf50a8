import Base

@testable import Server

/// The smallest protocol: each line comes back. One of them asks for the end, one for a pause.
struct EchoProtocol: WireProtocol {
  /// The last conversation that began, for the test.
  final class Last {
    weak var conversation: EchoConversation?
  }

  let last = Last()

  func begin(with client: ClientAddress, beside connectionCount: Int) -> any Conversation {
    let conversation = EchoConversation(name: client.name)
    last.conversation = conversation
    return conversation
  }
}

final class EchoConversation: Conversation {
  let name: String
  weak var host: (any ConversationHost)?
  private(set) var phase = ConversationPhase.unheard
  private(set) var pause = ConversationPause.none
  private var out = ByteBuffer()
  /// What it waits for may be taken to be there.
  var mayGoOn = false
  private(set) var isEnded = false

  static let lineMax = 100_000

  init(name: String) {
    self.name = name
  }

  func receive(_ bytes: RawSpan) -> Int {
    let all = bytes.withUnsafeBytes { Array($0) }
    var start = 0
    while pause == .none, !phase.isClosed, let end = all[start...].firstIndex(of: 10) {
      perform(all[start..<end])
      start = end + 1
    }
    return phase.isClosed ? all.count : start
  }

  private func perform(_ line: ArraySlice<UInt8>) {
    if phase == .unheard {
      phase = .open
      host?.didOpen()
    }
    switch String(decoding: line, as: UTF8.self) {
    case "quit": phase = .closed(isByClient: false)
    case "wait": pause = .untilDurable(1)
    default: break
    }
    out.append(Array(line) + [10])
    if !isDirty {
      isDirty = true
      host?.hasOutput()
    }
  }

  func wantsInput(kept: Int) -> Bool { pause == .none }
  let isPublisher = false
  let heldBytes = 0
  let contentProgress = 0
  func contentStalled(seconds: Int64) { phase = .closed(isByClient: false) }

  var isDirty = false
  var unsentBytes: Int { out.count }
  let unsentBytesMax = 1 << 20
  func nextOutput(_ stage: UnsafeMutableRawBufferPointer) -> UnsafeRawBufferPointer { out.readable }
  let isBodyNext = false
  func outputTaken(_ count: Int) -> Bool {
    out.consume(count)
    return false
  }
  func outputWritten() {}
  func countOutput() {}
  let keepsOutput = false
  func shrinkOutput() {}

  let hasRoom = true
  var isOutputFull = false
  func roomMade() -> Bool { false }
  func roomFilled() {}

  func resume(durable position: Int) -> Bool {
    guard mayGoOn, pause != .none else { return false }
    pause = .none
    return true
  }
  func resumeInTurn() -> Bool {
    guard pause == .untilNextTurn else { return false }
    pause = .none
    return true
  }
  func waitForTurn() { pause = .untilNextTurn }
  func unblock() -> Bool { false }
  func logFailed(_ reason: String) {}

  let heartbeatMilliseconds: Int64 = 0
  func heartbeatDue() {}
  func stop() { phase = .closed(isByClient: false) }
  func end() {
    phase = .closed(isByClient: false)
    out.removeAll()
    isEnded = true
  }
}
