import Synchronization

/// The broker's promise for one published message, which comes later.
public final class PublishConfirmation: Sendable {
  private struct State {
    var outcome: Result<Void, ClientError>?
    var returned: ReturnedMessage?
    var waiters: [Waiter<Void>] = []
  }

  private let state = Mutex(State())
  /// What was published, if it was mandatory and can come back.
  private let mandatory: (exchange: Name, routingKey: Name, body: [UInt8])?
  private let connection: Connection

  init(
    _ connection: Connection, mandatory: (exchange: Name, routingKey: Name, body: [UInt8])?
  ) {
    self.connection = connection
    self.mandatory = mandatory
  }

  /// Waits until the broker has taken responsibility for the message. Throws `refused` if the broker
  /// could not, `returned` if the message was mandatory and no queue wanted it, and why the channel
  /// ended if it ended before.
  public func value() async throws(ClientError) {
    let waiter: Waiter<Void>? = state.withLock { state in
      guard state.outcome == nil else { return nil }
      let waiter = Waiter<Void>()
      state.waiters.append(waiter)
      return waiter
    }
    if let waiter {
      connection.beginExpecting()
      defer { connection.endExpecting() }
      try await waiter.value()
    }
    try state.withLock { $0.outcome }?.get()
  }

  /// Whether `message` is this one, come back. Messages with the same content are interchangeable:
  /// it does not matter which of them takes it.
  func takeReturned(_ message: ReturnedMessage) -> Bool {
    guard let mandatory, mandatory.exchange == message.message.exchange,
      mandatory.routingKey == message.message.routingKey, mandatory.body == message.message.body
    else { return false }
    return state.withLock { state in
      guard state.returned == nil, state.outcome == nil else { return false }
      state.returned = message
      return true
    }
  }

  func settle(_ outcome: Result<Void, ClientError>) {
    let waiters = state.withLock { state in
      state.outcome = outcome
      if case .success = outcome, let returned = state.returned {
        state.outcome = .failure(.returned(code: returned.code, reason: returned.reason))
      }
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.finish(.success(())) }
  }
}
