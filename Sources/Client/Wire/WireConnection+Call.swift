import AMQP
import Base

extension WireConnection {
  /// Sends a method and waits for its answer. What comes meanwhile, on whatever channel, goes to
  /// `sink`; without one it is dropped. Throws `channelClosed` if the broker answers by closing the
  /// channel. The message that comes with `basic.get-ok` goes to the sink before this returns.
  @discardableResult
  public func call(
    _ method: Method, channel: UInt16, sink: (any WireSink)? = nil,
    timeoutMilliseconds: Int32 = 30_000
  ) throws(ClientError) -> Method {
    let waiter = ReplyWaiter(channel: channel, for: method.id, forward: sink)
    send(method, channel: channel)
    return try awaitReply(
      waiter, until: Deadline(milliseconds: timeoutMilliseconds), "the answer to \(method.id)")
  }

  /// Opens a channel of the caller's choice, from 1.
  public func openChannel(
    _ channel: UInt16, sink: (any WireSink)? = nil
  ) throws(ClientError) {
    try call(.channelOpen(ChannelOpen()), channel: channel, sink: sink)
  }

  /// Says goodbye, waits for the broker's answer, and closes the socket, whatever happens. Messages
  /// that come meanwhile are dropped.
  public func close(
    code: ReplyCode = .replySuccess, text: String = "goodbye", timeoutMilliseconds: Int32 = 5000
  ) throws(ClientError) {
    guard isConnected else { return }
    defer { disconnect() }
    let close = ConnectionClose(
      replyCode: code.rawValue, replyText: Name(text), classId: 0, methodId: 0)
    try call(.connectionClose(close), channel: 0, timeoutMilliseconds: timeoutMilliseconds)
  }

  /// Flushes and receives until `waiter` has its method.
  func awaitReply(
    _ waiter: ReplyWaiter, until deadline: Deadline, _ what: String
  ) throws(ClientError) -> Method {
    waiter.result = nil
    try flushAvailable()
    while true {
      try receive(into: waiter, until: deadline) { waiter.result != nil }
      if let result = waiter.result { return try result.get() }
      if deadline.hasPassed { throw .timedOut(what) }
    }
  }
}

/// Takes the answer to one call, and hands everything else on.
final class ReplyWaiter: WireSink {
  private let channel: UInt16
  /// What the answer may be; any method if it is empty.
  private let expected: [MethodID]
  private let forward: (any WireSink)?
  /// The answer, or that the broker closed the channel instead.
  var result: Result<Method, ClientError>?

  /// Waits for the next method on a channel.
  init(channel: UInt16) {
    self.channel = channel
    expected = []
    forward = nil
  }

  /// Waits for the answer to `request`.
  init(channel: UInt16, for request: MethodID, forward: (any WireSink)?) {
    self.channel = channel
    self.forward = forward
    expected = Self.answers(to: request)
  }

  func received(_ message: borrowing WireMessage) {
    forward?.received(message)
    if message.kind == .answer, message.channel == channel, expected.contains(BasicGetOk.id) {
      let answer = BasicGetOk(
        deliveryTag: message.deliveryTag, redelivered: message.isRedelivered,
        exchange: Name(copying: message.exchange),
        routingKey: Name(copying: message.routingKey), messageCount: message.messageCount)
      result = .success(.basicGetOk(answer))
    }
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {
    forward?.confirmed(
      tag: tag, isMultiple: isMultiple, isAccepted: isAccepted, channel: channel)
  }

  func received(_ method: Method, channel: UInt16) {
    if channel == self.channel, expected.isEmpty || expected.contains(method.id) {
      result = .success(method)
      return
    }
    forward?.received(method, channel: channel)
    if case .channelClose(let close) = method, channel == self.channel {
      result = .failure(.channelClosed(channel: channel, CloseReason(close)))
    }
  }

  /// Answers have the number after their request's, but for `basic.get`, which has two, and
  /// `exchange.unbind-ok`, which history has put elsewhere.
  private static func answers(to request: MethodID) -> [MethodID] {
    switch request {
    case BasicGet.id: [BasicGetOk.id, BasicGetEmpty.id]
    case ExchangeUnbind.id: [ExchangeUnbindOk.id]
    default: [MethodID(classID: request.classID, methodID: request.methodID + 1)]
    }
  }
}

extension CloseReason {
  init(_ close: ConnectionClose) {
    self.init(close.replyCode, close.replyText, close.classId, close.methodId)
  }

  init(_ close: ChannelClose) {
    self.init(close.replyCode, close.replyText, close.classId, close.methodId)
  }

  private init(_ code: UInt16, _ text: Name, _ classID: UInt16, _ methodID: UInt16) {
    let id = MethodID(classID: classID, methodID: methodID)
    self.init(
      code: code, text: text.description, method: id == .none ? nil : id.description)
  }
}
