import Synchronization

/// Messages for one thread from any others. It holds so many at most, and its descriptor is readable
/// while there are some: whoever waits in a poller is woken.
public final class Mailbox<Message: Sendable>: Sendable {
  /// What became of a message.
  public enum Answer: Equatable, Sendable {
    /// It will be taken, behind those that were posted before.
    case posted
    /// There is no room: the sender tells whoever asked for it, or tries again later.
    case full
    /// Nobody takes anything any more.
    case closed
  }

  private struct State {
    var messages: [Message] = []
    var isClosed = false
  }

  private let state = Mutex(State())
  private let wakeup: Wakeup
  public let countMax: Int

  public init(countMax: Int) throws(SystemError) {
    self.countMax = countMax
    wakeup = try Wakeup()
  }

  /// What a poller watches for input.
  public var raw: Int32 { wakeup.descriptor.raw }

  /// Never waits. Any thread may post.
  public func post(_ message: Message) -> Answer {
    let (answer, isFirst) = state.withLock { state -> (Answer, Bool) in
      if state.isClosed { return (.closed, false) }
      if state.messages.count >= countMax { return (.full, false) }
      state.messages.append(message)
      return (.posted, state.messages.count == 1)
    }
    // Those behind the first are taken with it.
    if isFirst { wakeup.signal() }
    return answer
  }

  /// All that was posted since the last call. One thread takes.
  public func take() -> [Message] {
    // The signal goes before the messages: one that is posted in between is taken now, and at worst
    // announced once more. The other way round its signal would go, and it would stay.
    wakeup.clear()
    return state.withLock { state in
      let messages = state.messages
      state.messages = []
      return messages
    }
  }

  /// From now on nobody can post. Returns what was not taken.
  public func close() -> [Message] {
    state.withLock { $0.isClosed = true }
    return take()
  }
}
