import IO

/// What can go wrong between a client and its broker.
public enum ClientError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The connection URL cannot be understood; the text says what is wrong with it.
  case malformedURL(String)
  /// Something that Martlet's client does not do, such as TLS.
  case unsupported(String)
  /// The operating system refused: no route, connection refused, reset by the peer. `code` is the
  /// value of `errno`.
  case system(operation: String, code: Int32)
  /// The broker refused the user or the password.
  case loginRefused(String)
  /// The broker closed the connection and said why.
  case connectionClosed(CloseReason)
  /// The broker closed a channel and said why; the connection and its other channels go on.
  case channelClosed(channel: UInt16, CloseReason)
  /// The broker ended the stream without a word.
  case disconnected
  /// The broker sent what the protocol does not allow; the text says what.
  case protocolViolation(String)
  /// Nothing came in time; the text says what was waited for.
  case timedOut(String)
  /// The connection was closed before, by this side or after an error.
  case notConnected
  /// The channel was closed before, by this side.
  case channelNotOpen
  /// As many channels are open as were agreed with the broker.
  case channelsExhausted(Int)
  /// The broker ended a consumer, most likely because its queue was deleted.
  case consumerCancelled(String)
  /// The broker refused so many published messages.
  case refused(count: Int)
  /// A mandatory message came back since no queue wanted it.
  case returned(code: UInt16, reason: String)
  /// Nothing of a transaction has happened, since no queue takes one of its mandatory messages, and the
  /// connection was opened with `wantsRollback`. The next one can begin.
  case rolledBack
  /// The task that waited was cancelled.
  case cancelled

  public init(_ error: SystemError) {
    self = .system(operation: error.operation, code: error.code)
  }

  public var description: String {
    switch self {
    case .malformedURL(let reason): "malformed connection URL: \(reason)"
    case .unsupported(let reason): reason
    case .system(let operation, let code):
      SystemError(operation, code: code).description
    case .loginRefused(let reason): "the broker refused the login: \(reason)"
    case .connectionClosed(let reason): "the broker closed the connection: \(reason)"
    case .channelClosed(let channel, let reason):
      "the broker closed channel \(channel): \(reason)"
    case .disconnected: "the broker closed the connection without giving a reason"
    case .protocolViolation(let reason): "the broker broke the protocol: \(reason)"
    case .timedOut(let what): "timed out waiting for \(what)"
    case .notConnected: "the connection is closed"
    case .channelNotOpen: "the channel is closed"
    case .channelsExhausted(let count): "all \(count) channels of the connection are open"
    case .consumerCancelled(let tag):
      "the broker ended the consumer \(tag), most likely because its queue was deleted"
    case .refused(let count): "the broker refused \(count) published messages"
    case .returned(let code, let reason): "the message was returned: \(code) \(reason)"
    case .rolledBack: "the transaction was rolled back: no queue takes one of its messages"
    case .cancelled: "cancelled"
    }
  }
}

/// Why the broker closed a connection or a channel.
public struct CloseReason: Equatable, Sendable, CustomStringConvertible {
  /// AMQP's reply code, such as 404.
  public let code: UInt16
  /// The broker's own words, such as `NOT_FOUND - no queue 'q' in vhost '/'`.
  public let text: String
  /// The method that caused it, such as `queue.declare`; nil if no method did.
  public let method: String?

  public init(code: UInt16, text: String, method: String? = nil) {
    self.code = code
    self.text = text
    self.method = method
  }

  public var description: String {
    let cause = method.map { " (caused by \($0))" } ?? ""
    return "\(code) \(text)\(cause)"
  }
}
