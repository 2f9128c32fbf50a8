import Client
import Glibc

import struct Server.OptionsParser

/// What every command that talks to a broker takes.
enum BrokerOptions {
  static let url = Option.value(
    "url", short: "u", "URL", as: .text, default: "amqp://guest:guest@localhost:5672/",
    shown: "amqp://guest:guest@localhost:5672/", variable: OptionsParser.urlVariable,
    "Broker and virtual host: amqp://USER:PASSWORD@HOST:PORT/VHOST.")
  static let quiet = Option.flag("quiet", short: "q", "Say nothing but errors.")
  static let all: [any AnyOption] = [url, quiet]
}

/// A connection with one channel, for the time of one command.
struct Session: Sendable {
  let connection: Connection
  let channel: Channel
  let notes: Notes

  /// Connects, does the work, and closes everything in order, whatever the work came to.
  static func run(
    _ invocation: Invocation, wantsRollback: Bool = false,
    _ work: (Session) async throws(Failure) -> ExitCode
  ) async throws(Failure) -> ExitCode {
    let session = try await open(invocation, wantsRollback: wantsRollback)
    let result: Result<ExitCode, Failure>
    do throws(Failure) {
      let code = try await work(session)
      try await session.ask { channel throws(ClientError) in try await channel.close() }
      result = .success(code)
    } catch {
      result = .failure(error)
    }
    // The work is done or has failed: what closing comes to changes nothing any more.
    await session.inOrder {
      do throws(ClientError) { try await session.connection.close() } catch {}
    }
    return try result.get()
  }

  /// How long the broker may take to end things in order once the command was interrupted.
  private static let patience = Duration.seconds(2)

  /// Does what ends things in order, even when the command was interrupted; but then not for longer
  /// than the broker may be expected to answer, which it does not while it takes no messages.
  func inOrder<Value: Sendable>(_ work: @escaping @Sendable () async -> Value) async -> Value {
    let task = Task { await work() }
    return await withTaskCancellationHandler {
      await task.value
    } onCancel: {
      Task {
        if connection.blockedReason == nil {
          // Nobody cancels this sleep, so that it cannot fail.
          do { try await Task.sleep(for: Self.patience) } catch {}
        }
        task.cancel()
      }
    }
  }

  /// Asks something of the broker; its refusal is the command's failure.
  func ask<Answer>(
    _ question: (Channel) async throws(ClientError) -> Answer
  ) async throws(Failure) -> Answer {
    do throws(ClientError) {
      return try await question(channel)
    } catch {
      throw Failure(error)
    }
  }

  private static let notFound: UInt16 = 404

  /// Whether what `question` asks for passively is there. On a channel of its own, since "no" closes
  /// it; any other refusal leaves the answer to whoever goes on.
  func exists(
    _ question: (Channel) async throws(ClientError) -> Void
  ) async throws(Failure) -> Bool {
    do throws(ClientError) {
      let channel = try await connection.openChannel()
      try await question(channel)
      try await channel.close()
      return true
    } catch .channelClosed(_, let reason) {
      return reason.code != Self.notFound
    } catch {
      throw Failure(error)
    }
  }

  private static func open(
    _ invocation: Invocation, wantsRollback: Bool
  ) async throws(Failure) -> Session {
    let url: ConnectionURL
    do throws(ClientError) {
      url = try ConnectionURL(invocation[BrokerOptions.url])
    } catch {
      throw Failure("--url or MARTLET_URL: \(error)", code: .usage)
    }
    do throws(ClientError) {
      var options = ConnectionOptions(name: invocation.path.joined(separator: " "))
      options.wantsRollback = wantsRollback
      let connection = try await Connection.open(url, options: options)
      return Session(
        connection: connection, channel: try await connection.openChannel(),
        notes: Notes(isQuiet: invocation[BrokerOptions.quiet]))
    } catch {
      throw Failure(error, openingAt: url)
    }
  }
}

/// What a command tells about its work, on standard error.
struct Notes: Sendable {
  let isQuiet: Bool

  func say(_ text: String) {
    if !isQuiet { Console.say(text) }
  }

  /// Whether somebody watches, so that progress is worth showing.
  var isWatched: Bool { !isQuiet && Console.isWatched }
}

extension Failure {
  init(_ error: ClientError) {
    switch error {
    case .connectionClosed(let reason), .channelClosed(_, let reason):
      self.init("the broker refused: \(Self.words(of: reason))")
    case .cancelled: self.init("interrupted", code: .interrupted)
    case .consumerCancelled:
      self.init("the broker ended the subscription; most likely the queue was deleted")
    case .system(_, let code):
      self.init("the connection was lost: \(String(cString: strerror(code)))")
    case .disconnected: self.init("the connection was lost: the broker ended it without a word")
    case .timedOut: self.init("the connection was lost: \(error)")
    default: self.init(error.description)
    }
  }

  /// A connection could not be opened.
  init(_ error: ClientError, openingAt url: ConnectionURL) {
    switch error {
    case .cancelled: self.init(error)
    case .loginRefused(let reason):
      let reason = CloseReason(code: 403, text: reason)
      self.init("\(url) refused the login: \(Self.words(of: reason))")
    case .connectionClosed(let reason):
      self.init("\(url) refused the connection: \(Self.words(of: reason))")
    case .system(let operation, _) where operation.hasPrefix("resolve "):
      self.init("cannot \(operation)")
    case .system(_, let code):
      let hint =
        code == ECONNREFUSED
        ? #"; no broker is there: start one with "martlet serve", or name another with --url"# : ""
      self.init("cannot connect to \(url): \(String(cString: strerror(code)))\(hint)")
    default: self.init("cannot connect to \(url): \(error)")
    }
  }

  /// `no queue 'q' in vhost '/' (404 NOT_FOUND)`.
  private static func words(of reason: CloseReason) -> String {
    let separator: [Character] = [" ", "-", " "]
    let text = Array(reason.text)
    let start = text.indices.first { text[$0...].starts(with: separator) }
    guard let start, text[..<start].allSatisfy({ $0.isUppercase || $0 == "_" }) else {
      return "\(reason.text) (\(reason.code))"
    }
    return "\(String(text[(start + 3)...])) (\(reason.code) \(String(text[..<start])))"
  }
}
