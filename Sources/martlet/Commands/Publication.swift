import Client
import Server
import Synchronization

/// The work of `martlet publish`.
struct Publication {
  private let invocation: Invocation
  private let session: Session
  /// Nil where each message says its own.
  private let exchange: Name?
  private let key: Name?
  private let properties: BasicProperties
  private let isMandatory: Bool
  private let isConfirmed: Bool
  private let progress: Progress

  init(_ invocation: Invocation, _ session: Session) {
    self.invocation = invocation
    self.session = session
    let isOwn = invocation[Publish.format] == .json
    exchange = isOwn && !invocation.has(Publish.exchange) ? nil : invocation[Publish.exchange]
    key = isOwn && !invocation.has(Publish.key) ? nil : invocation[Publish.key]
    properties = PropertyOptions.properties(invocation)
    isMandatory = invocation[Publish.mandatory]
    isConfirmed = invocation[Publish.confirm] || invocation.has(Publish.confirmWindow)
    progress = Progress("published", session.notes)
  }

  func run() async throws(Failure) -> ExitCode {
    let window = invocation[Publish.confirmWindow]
    if isConfirmed {
      try await session.ask { channel throws(ClientError) in
        try await channel.enableConfirms(window: window)
      }
    }
    let source = try await MessageSource(invocation, session.notes)
    let returned = collectReturned()
    let blocking = reportBlocking()
    defer { blocking.cancel() }
    let (failure, settled) = await progress.shown {
      let failure = await publishWhileOpen(source)
      // What was sent before an interruption is not forgotten.
      return (failure, await session.inOrder { await settle() })
    }
    switch settled {
    case .success(let refused):
      let code = conclude(refused: refused, returned: await returned.value)
      if let failure { throw failure }
      return code
    case .failure(let failure):
      if session.connection.isClosed || failure.code == .interrupted { sayHowFar() }
      throw failure
    }
  }

  /// What is known when the broker could not be asked to the end.
  private func sayHowFar() {
    guard progress.count > 0 else { return }
    let sent = HumanWords.count(progress.count, "message")
    let confirmed = HumanWords.grouped(progress.count - session.channel.unconfirmedCount)
    session.notes.say(
      isConfirmed && !session.connection.isClosed
        ? "\(sent) had been sent, \(confirmed) of them were confirmed"
        : "\(sent) had been sent; how many of them arrived is not known")
  }

  /// Sends everything. Does not wait for more input once the channel has ended: then `settle` says
  /// why it has.
  private func publishWhileOpen(_ source: MessageSource) async -> Failure? {
    let publishing = Task { await publish(source) }
    let watching = Task {
      _ = await session.channel.waitUntilClosed()
      publishing.cancel()
    }
    defer { watching.cancel() }
    return await withTaskCancellationHandler {
      await publishing.value
    } onCancel: {
      publishing.cancel()
    }
  }

  /// Sends everything; what came in between, if not all could be sent.
  private func publish(_ source: MessageSource) async -> Failure? {
    let rate = invocation[Publish.rate].map { PublishRate(perSecond: $0) }
    let count = invocation[Publish.count]
    var source = source
    do throws(Failure) {
      while let item = try await source.next() {
        let properties =
          item.properties.map { PropertyOptions.properties(invocation, over: $0) } ?? properties
        for _ in 0..<count {
          if Task.isCancelled { throw Failure(.cancelled) }
          if let rate { try await rate.wait(forNumber: progress.count) }
          try await session.ask { channel throws(ClientError) in
            try await channel.publish(
              item.body, to: exchange ?? item.exchange ?? "", key: key(of: item),
              properties: properties, mandatory: isMandatory)
          }
          progress.add()
        }
      }
      return nil
    } catch {
      return error
    }
  }

  /// With `--key-from-line` the line's counts, otherwise the command line's.
  private func key(of item: MessageSource.Item) -> Name {
    invocation[Publish.keyFromLine] ? item.key ?? "" : key ?? item.key ?? ""
  }

  /// Waits until the broker has taken everything; how many it has refused. The channel is closed
  /// afterwards: what was wrong with a publish is known then, and what was returned has come.
  private func settle() async -> Result<Int, Failure> {
    do throws(Failure) {
      let refused = try await session.ask { channel throws(ClientError) in
        var refused = 0
        if isConfirmed {
          do throws(ClientError) {
            try await channel.waitForConfirms()
          } catch .refused(let count) {
            refused = count
          }
        }
        try await channel.close()
        return refused
      }
      return .success(refused)
    } catch {
      return .failure(error)
    }
  }

  /// What comes back until the channel is closed.
  private func collectReturned() -> Task<Returned, Never> {
    let messages = session.channel.returnedMessages
    return Task {
      await messages.reduce(into: Returned()) { returned, message in
        returned.count += 1
        returned.first = returned.first ?? message
      }
    }
  }

  private struct Returned {
    var count = 0
    var first: ReturnedMessage?
  }

  private func conclude(refused: Int, returned: Returned) -> ExitCode {
    let notes = session.notes
    let target = exchange.map { exchange in
      exchange.isEmpty ? "the default exchange" : #"exchange "\#(exchange)""#
    }
    let through = key.map { $0.isEmpty ? "" : #" with key "\#($0)""# } ?? ""
    let place = target.map { $0 + through } ?? (key.map { #"key "\#($0)""# })
    let verb = isConfirmed && refused == 0 ? "published and confirmed" : "published"
    notes.say("\(verb) \(progress.summary(to: place))")
    if refused > 0 {
      Console.complain(
        "the broker refused \(HumanWords.count(refused, "message"))", path: invocation.path)
    }
    if let first = returned.first {
      let all = HumanWords.count(returned.count, "message")
      let example = #"key "\#(first.message.routingKey)": \#(first.reason)"#
      Console.complain("no queue took \(all) (\(example))", path: invocation.path)
    }
    return refused > 0 || returned.count > 0 ? .undelivered : .success
  }

  /// Tells when the broker takes no messages for a while.
  private func reportBlocking() -> Task<Void, Never> {
    let (reasons, notes) = (session.connection.blockedReasons, session.notes)
    return Task {
      for await reason in reasons {
        notes.say(
          reason.map { "the broker takes no messages at the moment (\($0)); waiting" }
            ?? "the broker takes messages again")
      }
    }
  }
}

/// Spreads messages evenly over time.
private struct PublishRate {
  private let perSecond: Int
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant

  init(perSecond: Int) {
    self.perSecond = perSecond
    start = clock.now
  }

  /// Waits until message `number`, counted from 0, is due.
  func wait(forNumber number: Int) async throws(Failure) {
    let due = start + .seconds(1) * Double(number) / Double(perSecond)
    // Timers are not finer than that; messages due within it go together.
    guard due - clock.now > .milliseconds(1) else { return }
    do {
      try await clock.sleep(until: due)
    } catch {
      throw Failure(.cancelled)
    }
  }
}
