import AMQP
import Base

extension WireConnection {
  /// The opening of a connection: start, login, tune, open.
  func handshake(_ options: WireOptions, until deadline: Deadline) throws(ClientError) {
    let waiter = ReplyWaiter(channel: 0)
    output.append(Frame.protocolHeader)
    guard case .connectionStart(let start) = try next(waiter, deadline, "connection.start") else {
      throw .protocolViolation("it did not begin with connection.start")
    }
    try checkMechanisms(start)
    serverProperties = start.serverProperties
    send(
      .connectionStartOk(
        ConnectionStartOk(
          clientProperties: options.clientProperties, mechanism: "PLAIN",
          response: [0] + Array(url.user.utf8) + [0] + Array(url.password.utf8), locale: "en_US")),
      channel: 0)
    try negotiate(try tune(waiter, deadline))
    send(.connectionOpen(ConnectionOpen(virtualHost: Name(url.virtualHost))), channel: 0)
    guard case .connectionOpenOk = try next(waiter, deadline, "connection.open-ok") else {
      throw .protocolViolation("it did not answer connection.open with connection.open-ok")
    }
  }

  /// Waits for the answer to the login. Brokers that refuse it either say so or just hang up.
  private func tune(
    _ waiter: ReplyWaiter, _ deadline: Deadline
  ) throws(ClientError) -> ConnectionTune {
    let reply: Method
    do {
      reply = try next(waiter, deadline, "connection.tune")
    } catch .connectionClosed(let reason) where reason.code == ReplyCode.accessRefused.rawValue {
      throw .loginRefused(reason.text)
    } catch .disconnected {
      throw .loginRefused("it hung up after user and password of \(url)")
    }
    guard case .connectionTune(let tune) = reply else {
      throw .protocolViolation("it did not answer the login with connection.tune")
    }
    return tune
  }

  private func checkMechanisms(_ start: ConnectionStart) throws(ClientError) {
    let mechanisms = String(decoding: start.mechanisms, as: UTF8.self).split(separator: " ")
    guard mechanisms.contains("PLAIN") else {
      throw .unsupported(
        "the broker offers no PLAIN login, only \(mechanisms.joined(separator: ", "))")
    }
  }

  /// Agrees on the smaller of both wishes, where 0 wishes nothing.
  private func negotiate(_ tune: ConnectionTune) throws(ClientError) {
    let limit = Self.smaller(url.frameMax, tune.frameMax) ?? 131_072
    guard limit >= Frame.sizeMin else {
      throw .protocolViolation("it wants frames of at most \(limit) bytes")
    }
    let heartbeat: UInt16 =
      switch url.heartbeatSeconds {
      case nil: tune.heartbeat
      case 0: 0
      case let wish?: Self.smaller(wish, tune.heartbeat) ?? 0
      }
    agree(
      frameMax: Int(limit), channelMax: Self.smaller(url.channelMax, tune.channelMax) ?? .max,
      heartbeatSeconds: heartbeat)
    send(
      .connectionTuneOk(
        ConnectionTuneOk(channelMax: channelMax, frameMax: limit, heartbeat: heartbeat)),
      channel: 0)
  }

  private static func smaller<Number: FixedWidthInteger>(
    _ left: Number, _ right: Number
  ) -> Number? {
    if left == 0 { return right == 0 ? nil : right }
    return right == 0 ? left : min(left, right)
  }

  private func next(
    _ waiter: ReplyWaiter, _ deadline: Deadline, _ what: String
  ) throws(ClientError) -> Method {
    try awaitReply(waiter, until: deadline, what)
  }
}
