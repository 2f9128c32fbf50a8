import Base
import IO

/// A client's connection: what carries its bytes, and the conversation that they are.
package final class Connection {
  /// What a connection takes of memory before it has said anything: this object, its
  /// conversation, its
  /// names, and their places in tables. Measured with a thousand of them.
  static let memoryBytes = 1536

  unowned let loop: Loop
  let transport: any Transport
  let conversation: any Conversation
  /// What the loop knows it by.
  package let token: UInt64
  /// Bytes that were read and not taken by the conversation yet.
  var leftover = ByteBuffer()
  /// The transport has more, of which no event will tell; and is in the loop's list of such.
  package internal(set) var hasUnread = false
  var isInUnread = false
  /// The client was let in; until then `leftover` is counted as so many bytes.
  var isProven = false
  var unprovenBytes = 0
  /// What the transport watches.
  var watchesReads = true
  var watchesWrites = false
  /// In the loop's list of connections that wait.
  var isPaused = false
  /// In the loop's list of connections that go on in the next turn.
  package internal(set) var isYielding = false
  /// Held back because the log is behind.
  var isThrottled = false
  /// Where the log ended when a request of this client last led to a record; 0 if none did.
  var loggedAt = 0
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
  /// What the account of memory has of `leftover`, and the loop of it while the client is blocked.
  var countedInput = 0
  var countedBlockedInput = 0
  /// Monotonic milliseconds.
  var receivedAt: Int64
  var sentAt: Int64
  /// Since when nothing of what there is to write was taken; nil when all was written.
  private(set) var unreadSince: Int64?
  /// When the loop looks at it by itself: at what is due for it, or before.
  var dueAt = Int64.max
  /// When it is closed if it is still in the handshake, or lingering, by then.
  var deadline: Int64

  init(
    loop: Loop, transport: any Transport, conversation: any Conversation, token: UInt64,
    now: Int64, deadline: Int64
  ) {
    self.loop = loop
    self.transport = transport
    self.conversation = conversation
    self.token = token
    receivedAt = now
    sentAt = now
    progressAt = now
    self.deadline = deadline
  }

  /// Its place among the loop's connections.
  var slot: Int { Int(token & 0xFFFF_FFFF) }

  /// Whether bytes from the client are wanted now.
  var wantsReads: Bool {
    if isInputEnded { return false }
    if isLingering { return true }
    return conversation.wantsInput(kept: leftover.count) && !isThrottled && !isHeld
      && !conversation.isOutputFull
      && conversation.unsentBytes < conversation.unsentBytesMax
  }

  /// Memory of requests and messages of which more is to come.
  var unfinishedBytes: Int { conversation.heldBytes + leftover.count }

  /// There is something to write, of the conversation or of the transport itself.
  var hasUnsent: Bool { conversation.unsentBytes > 0 || transport.isHolding }

  /// Bytes of large bodies that one connection, and that all together, are sent in a turn.
  static let bodyBytesMax = 512 << 10
  static let allBodyBytesMax = 4 << 20
  /// So much of a body is copied for the socket at once.
  static let stageBytes = 64 << 10

  /// Writes what there is to say. Of large bodies that is no more than `allowance`, which others
  /// share; what is left of them is for the next turn. They pass through `stage`.
  func flush(
    now: Int64, stage: UnsafeMutableRawBufferPointer, allowance: inout Int
  ) -> FlushResult {
    var rest = min(allowance, Self.bodyBytesMax)
    while conversation.unsentBytes > 0 {
      // Who gets no more in this turn is not slow.
      guard rest > 0 || !conversation.isBodyNext else { return .partial }
      switch transport.write(conversation.nextOutput(stage)) {
      case .count(let count):
        if conversation.outputTaken(count) {
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
    guard transport.isHolding else { return .done }
    let result = transport.flush()
    if result == .partial, unreadSince == nil { unreadSince = now }
    return result
  }
}

/// For whoever looks on.
extension Connection {
  /// Bytes that were said and that the transport has not taken.
  package var unsentCount: Int { conversation.unsentBytes }

  /// What it waits for.
  package var isWaitingForLog: Bool {
    if case .untilDurable = conversation.pause { true } else { false }
  }
  package var isBlocked: Bool { conversation.pause == .blocked }
  package var isHeldBack: Bool { isThrottled }
  package var isHeldForMemory: Bool { isHeld }

  /// The conversation is over, though not all may have been sent.
  package var isOver: Bool { conversation.phase.isClosed }
}
