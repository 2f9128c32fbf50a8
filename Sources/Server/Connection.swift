import Base
import IO

/// A client's socket with the session that speaks on it.
final class Connection {
  let socket: Socket
  let session: Session
  /// What the poller knows it by.
  let token: UInt64
  /// Bytes that were read and not taken by the session yet.
  var leftover = ByteBuffer()
  /// What the poller watches.
  var watchesReads = true
  var watchesWrites = false
  /// In the loop's list of connections that wait.
  var isPaused = false
  /// Held back because the log is behind.
  var isThrottled = false
  /// The stream towards the client has ended; what it still sends is discarded.
  var isLingering = false
  var isClosed = false
  /// Monotonic milliseconds.
  var receivedAt: Int64
  var sentAt: Int64
  /// When it is closed if it is still in the handshake, or lingering, by then.
  var deadline: Int64

  init(socket: consuming Socket, session: Session, token: UInt64, now: Int64, deadline: Int64) {
    self.socket = socket
    self.session = session
    self.token = token
    receivedAt = now
    sentAt = now
    self.deadline = deadline
  }

  /// Whether bytes from the client are wanted now.
  var wantsReads: Bool {
    if isLingering { return true }
    return session.pause == .none && !isThrottled && !session.isOutputFull
      && session.out.count < session.settings.answersMax
  }

  enum FlushResult: Equatable {
    /// All is written.
    case done
    /// The kernel takes no more for now.
    case partial
    case failed
  }

  /// Writes what the session has to say.
  func flush(now: Int64) -> FlushResult {
    while !session.out.isEmpty {
      switch socket.descriptor.write(session.out.readable) {
      case .count(let count):
        session.out.consume(count)
        sentAt = now
      case .wouldBlock: return .partial
      case .ended, .failed: return .failed
      }
    }
    return .done
  }
}
