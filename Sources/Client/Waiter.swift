import Synchronization

/// What one task waits for and another thread brings, once. If the task is cancelled it stops
/// waiting, and what is brought later is not taken.
final class Waiter<Value: Sendable>: Sendable {
  typealias Outcome = Result<Value, ClientError>

  private enum State {
    case untouched
    case waiting(UnsafeContinuation<Outcome, Never>)
    case finished(Outcome)
  }

  private let state = Mutex(State.untouched)

  /// Brings the outcome; false if there was one already, so that this one was not taken.
  @discardableResult
  func finish(_ outcome: Outcome) -> Bool {
    let (isTaken, continuation) = state.withLock { state in
      switch state {
      case .untouched:
        state = .finished(outcome)
        return (true, UnsafeContinuation<Outcome, Never>?.none)
      case .waiting(let continuation):
        state = .finished(outcome)
        return (true, continuation)
      case .finished:
        return (false, nil)
      }
    }
    continuation?.resume(returning: outcome)
    return isTaken
  }

  /// Whether there is an outcome already.
  var isFinished: Bool {
    state.withLock { if case .finished = $0 { true } else { false } }
  }

  /// Waits for the outcome. Only one task may.
  func value() async throws(ClientError) -> Value {
    if case .finished(let outcome) = state.withLock({ $0 }) { return try outcome.get() }
    let outcome = await withTaskCancellationHandler {
      await withUnsafeContinuation { wait($0) }
    } onCancel: {
      finish(.failure(.cancelled))
    }
    return try outcome.get()
  }

  private func wait(_ continuation: UnsafeContinuation<Outcome, Never>) {
    let outcome: Outcome? = state.withLock { state in
      if case .finished(let outcome) = state { return outcome }
      state = .waiting(continuation)
      return nil
    }
    if let outcome { continuation.resume(returning: outcome) }
  }
}
