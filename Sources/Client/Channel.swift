import AMQP
import Base
import Synchronization

/// A channel of a connection: a line of its own through which things are declared, published and
/// consumed, in order. Any number of tasks can share it, but what they publish mixes.
///
/// When the broker refuses something it closes the channel. Everything that waits for the channel
/// then throws `ClientError.channelClosed` with the broker's words, and so does every call after it;
/// the connection goes on, and another channel can be opened.
public final class Channel: Sendable {
  public let connection: Connection
  public let number: UInt16
  let state = Mutex(ChannelState())

  init(_ connection: Connection, number: UInt16) {
    self.connection = connection
    self.number = number
  }

  /// Closes the channel in order: what was published before arrives, messages that were not answered
  /// go back to their queues, consumers end. Throws why the broker had closed it, if it had.
  public func close() async throws(ClientError) {
    let waiter = try beginClose()
    connection.beginExpecting()
    defer { connection.endExpecting() }
    try await waiter?.value()
  }

  /// Tells the broker that the channel is no longer needed. The result waits for the answer; nil if
  /// the channel was closed before.
  private func beginClose() throws(ClientError) -> Waiter<Void>? {
    let close = ChannelClose(
      replyCode: ReplyCode.replySuccess.rawValue, replyText: "goodbye", classId: 0, methodId: 0)
    return try state.withLock { state throws(ClientError) in
      if state.ended == .channelNotOpen { return nil }
      try state.check()
      try connection.send { buffer, _ in buffer.append(.channelClose(close), channel: number) }
      let waiter = Waiter<Void>()
      state.closeWaiter = waiter
      return waiter
    }
  }

  /// Waits until the channel has ended, or its connection. The result is why; nil if it was closed by
  /// this side.
  public func waitUntilClosed() async -> ClientError? {
    let waiter: Waiter<Void>? = state.withLock { state in
      guard state.ended == nil else { return nil }
      let waiter = Waiter<Void>()
      state.endWaiters.append(waiter)
      return waiter
    }
    do throws(ClientError) {
      try await waiter?.value()
    } catch {
      return error
    }
    let ended = state.withLock { $0.ended }
    return ended.flatMap { $0.isIntended ? nil : $0 }
  }

  /// Whether `close` was called and the broker has not answered yet.
  var isClosing: Bool { state.withLock { $0.closeWaiter != nil } }

  func open() async throws(ClientError) {
    do {
      _ = try await call(.channelOpen(ChannelOpen()))
    } catch .cancelled {
      _ = try beginClose()
      throw .cancelled
    }
  }

  // MARK: Calls

  /// Sends a method and waits for the broker's answer.
  func call(_ method: Method) async throws(ClientError) -> Reply {
    let waiter = try state.withLock { state throws(ClientError) -> Waiter<Reply> in
      try state.check()
      try connection.send { buffer, _ in buffer.append(method, channel: number) }
      let waiter = Waiter<Reply>()
      state.calls.append(waiter)
      return waiter
    }
    connection.beginExpecting()
    defer { connection.endExpecting() }
    return try await waiter.value()
  }

  /// Sends a method that has no answer.
  func send(_ method: Method) throws(ClientError) {
    try state.withLock { state throws(ClientError) in
      try state.check()
      try connection.send { buffer, _ in buffer.append(method, channel: number) }
    }
  }

  /// What a broker did that no broker should.
  func unexpected(_ reply: Reply, to method: String) -> ClientError {
    switch reply {
    case .method(let answer): .protocolViolation("\(method) was answered with \(answer.id)")
    case .message: .protocolViolation("\(method) was answered with a message")
    }
  }
}

/// The answer to a call.
enum Reply: Sendable {
  case method(Method)
  /// A message and how many remain in the queue behind it: the answer to `basic.get`.
  case message(Delivery, remaining: Int)
}

/// What the tasks and the connection's thread share of a channel, under the channel's lock. Whoever
/// holds it may take the connection's lock, never the other way round; so what is appended to the
/// outbound buffer has the order in which the state was changed.
struct ChannelState {
  /// Who waits for an answer; the broker answers in order.
  var calls = Backlog<Waiter<Reply>>()
  /// Most channels have one consumer, so looking for it is looking at it.
  var consumers: [Consumer] = []
  var consumersStarted = 0
  /// Nil unless the channel is in confirm mode.
  var confirms: ConfirmLedger?
  var returnStreams: [AsyncStream<ReturnedMessage>.Continuation] = []
  var closeWaiter: Waiter<Void>?
  var endWaiters: [Waiter<Void>] = []
  /// Why the channel can no longer be used; nil while it can.
  var ended: ClientError?

  func check() throws(ClientError) {
    if let ended { throw ended }
    if closeWaiter != nil { throw .channelNotOpen }
  }
}
