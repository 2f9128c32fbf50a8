import Base

/// What one client and the broker say to each other in some protocol: bytes in, bytes out. It knows no
/// socket and no clock. The loop feeds it, sends what it has to say, and asks it to go on when what it
/// waits for may be there. Everything here is called for a batch of bytes, or less often, and never for
/// a message.
package protocol Conversation: AnyObject {
  /// The client in the log, such as `127.0.0.1:40562 -> 127.0.0.1:5672`.
  var name: String { get }
  var phase: ConversationPhase { get }
  var pause: ConversationPause { get }
  /// Who carries it. Set once, before anything else is asked.
  var host: (any ConversationHost)? { get set }

  // MARK: Input

  /// Takes as much of `bytes` as it can, and returns how much. What it leaves comes again with more
  /// behind it, or when it no longer pauses; that is at most `LoopSettings.requestBytesMax` and one
  /// read.
  func receive(_ bytes: RawSpan) -> Int
  /// Whether more is to be read when `kept` bytes were read and not taken.
  func wantsInput(kept: Int) -> Bool
  /// The client has published: it is held back while the log is behind.
  var isPublisher: Bool { get }
  /// Memory of requests that have come in part, besides what was not taken.
  var heldBytes: Int { get }
  /// Counts up with everything that comes of such requests.
  var contentProgress: Int { get }
  /// A request that had begun does not go on, for so many seconds.
  func contentStalled(seconds: Int64)

  // MARK: Output

  /// It has told its host of output that was not asked for yet.
  var isDirty: Bool { get set }
  var unsentBytes: Int { get }
  /// While so much is unsent nothing is read.
  var unsentBytesMax: Int { get }
  /// What is to be sent next; `stage` may be used to put it together. Empty if there is nothing.
  func nextOutput(_ stage: UnsafeMutableRawBufferPointer) -> UnsafeRawBufferPointer
  /// What is to be sent next is of a large body, of which a turn sends no more than so much.
  var isBodyNext: Bool { get }
  /// So much of `nextOutput` was taken, at least a byte. Returns whether that was a body's.
  func outputTaken(_ count: Int) -> Bool
  /// What could be sent for now was.
  func outputWritten()
  /// The account of memory is to have what the output takes now.
  func countOutput()
  /// All that was said was sent, and memory is kept for what comes next.
  var keepsOutput: Bool { get }
  /// Nothing was said for a while: memory that only output needs goes.
  func shrinkOutput()

  // MARK: Room

  /// Little enough is unsent for what waits for room.
  var hasRoom: Bool { get }
  /// So much is unsent that the next requests wait, though they have been read.
  var isOutputFull: Bool { get set }
  /// There is room: consumers that waited for it are served again. Returns whether there were any.
  func roomMade() -> Bool
  /// Nothing more is delivered to it.
  func roomFilled()

  // MARK: What it waits for

  /// The log is durable up to `position`, or work was done. Returns whether it can go on.
  func resume(durable position: Int) -> Bool
  /// Another turn has begun. Returns whether it can go on.
  func resumeInTurn() -> Bool
  /// It could go on, and is to wait for another turn (`ConversationPause.untilNextTurn`).
  func waitForTurn()
  /// The broker takes messages again. Returns whether it can go on.
  func unblock() -> Bool
  /// What waits for the log will not come.
  func logFailed(_ reason: String)

  // MARK: Time and the end

  /// Who says nothing for twice as long is gone, and hears something as often; 0 is never.
  var heartbeatMilliseconds: Int64 { get }
  /// The client has heard nothing for a while.
  func heartbeatDue()
  /// The broker stops: the client is told.
  func stop()
  /// The client is gone: all that it held is given up, and what is unsent stays so. It is closed then.
  func end()
}

/// Where a conversation is.
package enum ConversationPhase: Equatable {
  /// The client has said nothing.
  case unheard
  /// It has to be let in still.
  case opening
  case open
  /// The broker has said its last and waits for an answer.
  case closing
  /// Nothing more is taken; what is unsent is sent before the connection goes. A client that asked
  /// for the end itself is left to close the connection.
  case closed(isByClient: Bool)

  var isClosed: Bool {
    if case .closed = self { true } else { false }
  }
}

/// Why a conversation takes nothing at present.
package enum ConversationPause: Equatable {
  case none
  /// A reply waits for the log, or for work that goes on between turns.
  case untilDurable(Int)
  /// The broker cannot take more messages.
  case blocked
  /// The turn has taken long, and the rest of what has come is for the next one.
  case untilNextTurn

  /// It ends with something that the log, the broker or a client does.
  var isForOthers: Bool {
    switch self {
    case .none, .untilNextTurn: false
    case .untilDurable, .blocked: true
    }
  }
}

/// What a conversation tells whoever carries it.
package protocol ConversationHost: AnyObject {
  /// There is something to send: told once, until the conversation is asked for it.
  func hasOutput()
  /// The client was let in.
  func didOpen()
  /// A request of a blocked client has passed for the sake of an end behind it; so many bytes that
  /// the conversation got are not taken yet.
  func didPass(untaken: Int)
  /// All that was to be delivered was, and what the client held is given up now.
  func willRelease()
}

/// Who has connected.
package struct ClientAddress: Sendable {
  /// Such as `127.0.0.1:40562 -> 127.0.0.1:5672`.
  package let name: String
  package let isLoopback: Bool

  package init(name: String, isLoopback: Bool) {
    self.name = name
    self.isLoopback = isLoopback
  }
}

/// A protocol in which clients are served.
package protocol WireProtocol {
  /// A client has connected beside so many others.
  func begin(with client: ClientAddress, beside connectionCount: Int) -> any Conversation
}
