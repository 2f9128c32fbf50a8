import Base
import Synchronization

/// The deliveries of one consumer, as an asynchronous sequence:
///
///     for try await delivery in try await channel.consume("jobs") {
///       await work(on: delivery.body)
///       try delivery.ack()
///     }
///
/// Several tasks may iterate over it; each delivery goes to one of them. Leaving a loop does not end
/// the consumer: `cancel` does, and the end of the channel. The sequence ends when it was cancelled
/// or the channel was closed by this side, and throws when the broker or a failure ended it.
public final class Consumer: AsyncSequence, Sendable {
  public typealias Element = Delivery
  public typealias Failure = ClientError

  private struct State {
    var buffer = Backlog<Delivery>()
    var waiters: Backlog<Waiter<Delivery?>> = Backlog()
    var hasEnded = false
    /// What ended it, for the first who asks; nil if it was meant to end.
    var error: ClientError?
  }

  /// What the next delivery comes to.
  private enum Step {
    /// It is here, and had so many bytes in the connection's count.
    case ready(Delivery, counted: Int)
    case wait(Waiter<Delivery?>)
    case ended
  }

  /// The name under which the broker knows it.
  public let tag: Name
  public let channel: Channel
  private let state = Mutex(State())
  /// Used by the connection's thread alone, which delivers.
  nonisolated(unsafe) let memory = MessageMemory()

  init(_ channel: Channel, tag: Name) {
    self.channel = channel
    self.tag = tag
  }

  /// Tells the broker to send no more. What it has already sent can still be taken; then the sequence
  /// ends.
  public func cancel() async throws(ClientError) {
    try await channel.cancel(self)
  }

  /// The next delivery, when it comes; nil when the sequence has ended.
  public func next() async throws(ClientError) -> Delivery? {
    let step = try state.withLock { state throws(ClientError) -> Step in
      if let ready = Self.take(&state) { return ready }
      if state.hasEnded {
        guard let error = state.error else { return .ended }
        state.error = nil
        throw error
      }
      // Those whose task was cancelled would gather on a queue that stays empty.
      while !state.waiters.isEmpty, state.waiters[0].isFinished { _ = state.waiters.popFirst() }
      let waiter = Waiter<Delivery?>()
      state.waiters.append(waiter)
      return .wait(waiter)
    }
    switch step {
    case .ready(let delivery, let counted):
      channel.connection.countUndelivered(-counted)
      return delivery
    case .wait(let waiter): return try await waiter.value()
    case .ended: return nil
    }
  }

  /// The next delivery if it is here already; nil otherwise.
  public func nextIfReady() -> Delivery? {
    guard case .ready(let delivery, let counted) = state.withLock({ Self.take(&$0) }) else {
      return nil
    }
    channel.connection.countUndelivered(-counted)
    return delivery
  }

  public func makeAsyncIterator() -> Iterator { Iterator(consumer: self) }

  public struct Iterator: AsyncIteratorProtocol {
    let consumer: Consumer

    public mutating func next() async throws(ClientError) -> Delivery? {
      try await consumer.next()
    }

    public mutating func next(
      isolation actor: isolated (any Actor)?
    ) async throws(ClientError) -> Delivery? {
      try await consumer.next()
    }
  }

  // MARK: What the connection's thread does

  func isTagged(_ tag: RawSpan) -> Bool { tag.equals(self.tag.bytes) }

  /// Gives a delivery to a task that waits, or else puts it in the buffer.
  func deliver(_ delivery: Delivery) {
    let waiter: Waiter<Delivery?>? = state.withLock { state in
      while let waiter = state.waiters.popFirst() {
        if !waiter.isFinished { return waiter }
      }
      state.buffer.append(delivery)
      return nil
    }
    if let waiter {
      // A task that was cancelled at this moment does not take it; then it waits for the next one.
      if !waiter.finish(.success(delivery)) { deliver(delivery) }
    } else {
      channel.connection.countUndelivered(Self.weight(of: delivery))
    }
  }

  /// Ends the sequence behind what is in the buffer.
  func end(_ error: ClientError?) {
    let (waiters, counted) = state.withLock { state in
      guard !state.hasEnded else { return ([Waiter<Delivery?>](), 0) }
      state.hasEnded = true
      let waiters = state.waiters.takeAll()
      if waiters.isEmpty { state.error = error }
      let counted = (0..<state.buffer.count).reduce(0) { $0 + Self.weight(of: state.buffer[$1]) }
      return (waiters, counted)
    }
    channel.connection.countUndelivered(-counted)
    for waiter in waiters {
      waiter.finish(error.map { .failure($0) } ?? .success(nil))
    }
  }

  private static func take(_ state: inout State) -> Step? {
    guard let delivery = state.buffer.popFirst() else { return nil }
    return .ready(delivery, counted: state.hasEnded ? 0 : weight(of: delivery))
  }

  /// What a delivery is reckoned to take of the memory.
  private static func weight(of delivery: Delivery) -> Int { 256 + delivery.body.count }
}
