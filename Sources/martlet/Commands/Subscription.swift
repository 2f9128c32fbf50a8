import Client
import Server
import Synchronization

/// The work of `martlet subscribe`. Messages gather in the output while more are here already; then
/// they are written, and only then settled.
struct Subscription: ~Copyable {
  private enum Ending {
    /// As many as were asked for.
    case complete
    /// The consumer has ended, since it was cancelled for want of messages.
    case timedOut
    case interrupted
    case failed(Failure)

    var isFailure: Bool {
      if case .failed = self { true } else { false }
    }
  }

  private let session: Session
  private let consumer: Consumer
  private let format: MessageFormat
  private let mode: AckMode
  private let countMax: Int?
  private let timeoutMilliseconds: Int?
  /// What the broker was told; 0 is no limit.
  private let prefetch: Int
  /// What a member of a stream's group acknowledges behind its end means nothing to the group.
  private let settlesBeforeTheEnd: Bool
  private let progress: Progress
  private let watchdog: Watchdog
  private var output = StandardOutput()
  /// Messages appended to the output.
  private var taken = 0
  /// The delivery that was appended last, was written last, was settled last. The channel has one
  /// consumer, so these count its messages.
  private var appendedTag: UInt64 = 0
  private var writtenTag: UInt64 = 0
  private var settledTag: UInt64 = 0

  /// Subscribes.
  init(_ invocation: Invocation, _ session: Session) async throws(Failure) {
    self.session = session
    format = invocation[MessageFormat.option]
    countMax = invocation[Subscribe.count]
    timeoutMilliseconds = invocation[Subscribe.timeout]
    // The broker would send more than the count if it did not wait for acknowledgements.
    let asked = invocation[AckMode.option]
    mode = asked == .auto && countMax != nil ? .manual : asked
    prefetch = Self.prefetch(invocation, mode, countMax)
    settlesBeforeTheEnd = invocation[Subscribe.arguments]["x-stream-group"] != nil
    let (mode, prefetch) = (mode, prefetch)
    let (queue, title, arguments) = try await Self.source(invocation, session)
    consumer = try await session.ask { channel throws(ClientError) in
      try await channel.consume(
        queue, prefetch: UInt16(prefetch), withoutAck: mode == .auto,
        exclusive: invocation[Subscribe.exclusive], arguments: arguments)
    }
    progress = Progress("received", session.notes)
    watchdog = Watchdog()
    session.notes.say("subscribed to \(title)")
  }

  /// Prints messages until there is a reason to end.
  consuming func run() async throws(Failure) -> ExitCode {
    var subscription = self
    let (progress, watchdog, consumer) = (
      subscription.progress, subscription.watchdog, subscription.consumer
    )
    let timer = subscription.timeoutMilliseconds.map {
      watchdog.start(milliseconds: $0, consumer)
    }
    let ending = await progress.shown { await subscription.deliver() }
    timer?.cancel()
    return try await subscription.finish(ending)
  }

  private mutating func deliver() async -> Ending {
    do throws(Failure) {
      while taken < countMax ?? .max {
        if let delivery = consumer.nextIfReady() {
          append(delivery)
          if output.isFull { try await write() }
          continue
        }
        try await write()
        do throws(ClientError) {
          guard let delivery = try await consumer.next() else { return .timedOut }
          append(delivery)
        } catch .cancelled {
          return .interrupted
        } catch {
          throw Failure(error)
        }
        if Task.isCancelled { return .interrupted }
      }
      return .complete
    } catch {
      return .failed(error)
    }
  }

  private mutating func append(_ delivery: Delivery) {
    output.append(format.bytes(of: delivery))
    appendedTag = delivery.tag
    taken += 1
    progress.add()
    watchdog.feed()
  }

  private mutating func write() async throws(Failure) {
    guard appendedTag > writtenTag else { return }
    try output.flush()
    writtenTag = appendedTag
    watchdog.feed()
    try await settle(upTo: settleable)
  }

  /// How far deliveries can be settled while more are to come. With a count, what is settled and what
  /// may be under way must not exceed it, so that nothing comes that is not printed.
  private var settleable: UInt64 {
    if mode == .requeue { return 0 }
    guard let countMax else { return writtenTag }
    return min(writtenTag, UInt64(max(0, countMax - prefetch)))
  }

  private mutating func settle(upTo tag: UInt64) async throws(Failure) {
    guard tag > settledTag else { return }
    let mode = mode
    try await session.ask { channel throws(ClientError) in
      try mode.settle(upTo: tag, on: channel)
    }
    settledTag = tag
  }

  /// Writes and settles what remains, in any case, and says what it all came to.
  private mutating func finish(_ ending: Ending) async throws(Failure) -> ExitCode {
    // A failure comes when everything is written, or because writing failed.
    if !ending.isFailure {
      try output.flush()
      writtenTag = appendedTag
    }
    let (session, consumer, mode) = (session, consumer, mode)
    let settlesFirst = settlesBeforeTheEnd
    let tag = writtenTag > settledTag ? writtenTag : nil
    let settling = await session.inOrder { () async -> Result<Void, Failure> in
      do throws(Failure) {
        try await session.ask { channel throws(ClientError) in
          if settlesFirst, let tag { try mode.settle(upTo: tag, on: channel) }
          try await consumer.cancel()
          if !settlesFirst, let tag { try mode.settle(upTo: tag, on: channel) }
          try await channel.close()
        }
        return .success(())
      } catch {
        return .failure(error)
      }
    }
    if case .failed(let failure) = ending {
      if taken > 0 { session.notes.say("received \(progress.summary())") }
      throw failure
    }
    try settling.get()
    return conclude(ending)
  }

  private func conclude(_ ending: Ending) -> ExitCode {
    switch ending {
    case .complete, .interrupted, .failed:
      session.notes.say("received \(progress.summary())")
      return .success
    case .timedOut:
      let limit = Quantity.words(milliseconds: timeoutMilliseconds ?? 0)
      let wanted = countMax.map { " of \(HumanWords.grouped($0))" } ?? ""
      let received = HumanWords.count(taken, "message")
      session.notes.say("received \(received)\(wanted), then none for \(limit)")
      return countMax == nil ? .success : .empty
    }
  }

  private static func prefetch(
    _ invocation: Invocation, _ mode: AckMode, _ countMax: Int?
  ) -> Int {
    let asked = invocation[Subscribe.prefetch]
    // Nothing is settled before the end, so the limit would be the end.
    let wanted = mode == .requeue && !invocation.has(Subscribe.prefetch) ? 0 : asked
    guard let countMax, countMax <= 65_535 else { return wanted }
    return wanted == 0 ? countMax : min(wanted, countMax)
  }

  /// The queue to consume, what to call it, and the consumer's arguments. A filter is one of those, unless it is in
  /// the bindings of a queue that listens to an exchange.
  private static func source(
    _ invocation: Invocation, _ session: Session
  ) async throws(Failure) -> (queue: Name, title: String, arguments: FieldTable) {
    guard let exchange = invocation[Subscribe.exchange] else {
      let queue = invocation[Subscribe.queue]
      let arguments = try FilterOption.adding(to: invocation[Subscribe.arguments], invocation)
      return (queue, #"queue "\#(queue)""#, arguments)
    }
    let keys = invocation[Subscribe.keys].isEmpty ? ["#"] : invocation[Subscribe.keys]
    let bound = try FilterOption.adding(invocation)
    let queue = try await session.ask { channel throws(ClientError) in
      let queue = try await channel.declareQueue(exclusive: true, autoDelete: true)
      for key in keys {
        try await channel.bindQueue(queue.name, to: exchange, key: key, arguments: bound)
      }
      return queue.name
    }
    let list = keys.map { #""\#($0)""# }.joined(separator: ", ")
    let title = #"exchange "\#(exchange)" with key\#(keys.count == 1 ? "" : "s") \#(list)"#
    return (queue, title, invocation[Subscribe.arguments])
  }
}

/// Ends a consumer when nothing has come for a while.
private final class Watchdog: Sendable {
  private let clock = ContinuousClock()
  private let lastFed: Mutex<ContinuousClock.Instant>

  init() {
    lastFed = Mutex(clock.now)
  }

  func feed() {
    let now = clock.now
    lastFed.withLock { $0 = now }
  }

  func start(milliseconds: Int, _ consumer: Consumer) -> Task<Void, Never> {
    feed()
    return Task {
      while true {
        let deadline = lastFed.withLock { $0 } + .milliseconds(milliseconds)
        if clock.now >= deadline { break }
        // Being cancelled while asleep means that nobody waits any more.
        do { try await clock.sleep(until: deadline) } catch { return }
      }
      // If the consumer cannot be cancelled, it has ended.
      do throws(ClientError) { try await consumer.cancel() } catch {}
    }
  }
}
