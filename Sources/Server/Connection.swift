import Base
import IO

/// A client's connection: what carries its bytes, and the session that speaks.
package final class Connection {
  /// What a connection takes of memory before it has said anything: this object, its session, its
  /// names, and their places in tables. Measured with a thousand of them.
  static let memoryBytes = 1536

  let transport: any Transport
  let session: Session
  /// What the loop knows it by.
  package let token: UInt64
  /// Bytes that were read and not taken by the session yet.
  var leftover = ByteBuffer()
  /// It has opened its virtual host; until then `leftover` is counted as so many bytes.
  var isProven = false
  var unprovenBytes = 0
  /// What the transport watches.
  var watchesReads = true
  var watchesWrites = false
  /// In the loop's list of connections that wait.
  var isPaused = false
  /// Held back because the log is behind.
  var isThrottled = false
  /// All is said, and the client has a while to close; what it still sends is discarded.
  var isLingering = false
  /// The client has ended its stream; the rest of what was said to it is written.
  var isInputEnded = false
  package internal(set) var isClosed = false
  /// Not read, since memory for unfinished input is short.
  var isHeld = false
  /// When it became its turn to finish all the same.
  var finishingSince: Int64 = 0
  /// What of unfinished input had come when that was last looked at, and when there was something new.
  var progress = 0
  var progressAt: Int64
  /// What the account of memory has of `leftover`.
  var countedInput = 0
  /// Monotonic milliseconds.
  var receivedAt: Int64
  var sentAt: Int64
  /// Since when nothing of what there is to write was taken; nil when all was written.
  private(set) var unreadSince: Int64?
  /// When it is closed if it is still in the handshake, or lingering, by then.
  var deadline: Int64

  init(
    transport: any Transport, session: Session, token: UInt64, now: Int64, deadline: Int64
  ) {
    self.transport = transport
    self.session = session
    self.token = token
    receivedAt = now
    sentAt = now
    progressAt = now
    self.deadline = deadline
  }

  /// Whether bytes from the client are wanted now.
  var wantsReads: Bool {
    if isInputEnded { return false }
    if isLingering { return true }
    return session.wantsInput(kept: leftover.count) && !isThrottled && !isHeld
      && !session.isOutputFull
      && session.unsentBytes < session.settings.answersMax
  }

  /// Memory of requests and messages of which more is to come.
  var unfinishedBytes: Int { session.heldBytes + leftover.count }

  enum FlushResult: Equatable {
    /// All is written.
    case done
    /// No more is taken for now.
    case partial
    case failed
  }

  /// Bytes of large bodies that one connection, and that all together, are sent in a turn.
  static let bodyBytesMax = 512 << 10
  static let allBodyBytesMax = 4 << 20
  /// So much of a body is copied for the socket at once.
  static let stageBytes = 64 << 10

  /// Writes what the session has to say. Of large bodies that is no more than `allowance`, which others
  /// share; what is left of them is for the next turn. They pass through `stage`.
  func flush(
    now: Int64, stage: UnsafeMutableRawBufferPointer, allowance: inout Int
  ) -> FlushResult {
    var rest = min(allowance, Self.bodyBytesMax)
    while session.unsentBytes > 0 {
      // Who gets no more in this turn is not slow.
      guard rest > 0 || session.owed.ownBefore > 0 else { return .partial }
      switch transport.write(session.nextOutput(stage)) {
      case .count(let count):
        if session.outputTaken(count) {
          rest -= count
          allowance -= count
        }
        sentAt = now
        unreadSince = nil
      case .wouldBlock:
        if unreadSince == nil { unreadSince = now }
        return .partial
      case .ended, .failed: return .failed
      }
    }
    return .done
  }
}

/// For whoever looks on.
extension Connection {
  /// Bytes that the session has said and the transport has not taken.
  package var unsentCount: Int { session.unsentBytes }
  /// They, without the first `skipped` ones.
  package func unsent(from skipped: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(unsentCount - skipped)
    session.owed.render(session.out.readable, from: skipped, into: &bytes)
    return bytes
  }

  /// What it waits for.
  package var isWaitingForLog: Bool {
    if case .untilDurable = session.pause { true } else { false }
  }
  package var isBlocked: Bool { session.pause == .blocked }
  package var isHeldBack: Bool { isThrottled }
  package var isHeldForMemory: Bool { isHeld }
  package var isOutputFull: Bool { session.isOutputFull || session.peer?.hasRoom == false }

  /// The conversation is over, though not all may have been sent.
  package var isOver: Bool { session.state == .closed }
}
