import AMQP
import Base

extension Channel {
  /// Publishes a message and does not wait for the broker. It is sent soon, together with what else
  /// there is to send; this waits only while too much is unsent or, in confirm mode, while as many
  /// messages as the window allows are unconfirmed. `mandatory` asks for the message back, in
  /// `returnedMessages`, if no queue wants it; otherwise it is dropped. If the exchange does not
  /// exist, the broker closes the channel.
  public func publish(
    _ body: [UInt8], to exchange: Name = "", key: Name,
    properties: BasicProperties = BasicProperties(), mandatory: Bool = false
  ) async throws(ClientError) {
    let publish = BasicPublish(
      exchange: exchange, routingKey: key, mandatory: mandatory, immediate: false)
    try await enqueue(publish, properties, body, nil)
  }

  /// Publishes text.
  public func publish(
    _ text: String, to exchange: Name = "", key: Name,
    properties: BasicProperties = BasicProperties(), mandatory: Bool = false
  ) async throws(ClientError) {
    try await publish(
      Array(text.utf8), to: exchange, key: key, properties: properties, mandatory: mandatory)
  }

  /// Publishes a message and waits until the broker has taken responsibility for it. Throws
  /// `refused` if the broker could not, and `returned` if the message was mandatory and no queue
  /// wanted it. Puts the channel into confirm mode.
  public func publishConfirmed(
    _ body: [UInt8], to exchange: Name = "", key: Name,
    properties: BasicProperties = BasicProperties(), mandatory: Bool = false
  ) async throws(ClientError) {
    let confirmation = try await publishTracked(
      body, to: exchange, key: key, properties: properties, mandatory: mandatory)
    try await confirmation.value()
  }

  /// Publishes text and waits until the broker has taken responsibility for it.
  public func publishConfirmed(
    _ text: String, to exchange: Name = "", key: Name,
    properties: BasicProperties = BasicProperties(), mandatory: Bool = false
  ) async throws(ClientError) {
    try await publishConfirmed(
      Array(text.utf8), to: exchange, key: key, properties: properties, mandatory: mandatory)
  }

  /// Publishes a message whose confirmation can be waited for later, so that many can be on their
  /// way. Puts the channel into confirm mode.
  public func publishTracked(
    _ body: [UInt8], to exchange: Name = "", key: Name,
    properties: BasicProperties = BasicProperties(), mandatory: Bool = false
  ) async throws(ClientError) -> PublishConfirmation {
    try await enableConfirms()
    let publish = BasicPublish(
      exchange: exchange, routingKey: key, mandatory: mandatory, immediate: false)
    let confirmation = PublishConfirmation(
      connection, mandatory: mandatory ? (exchange, key, body) : nil)
    try await enqueue(publish, properties, body, confirmation)
    return confirmation
  }

  /// Puts the channel into confirm mode: the broker confirms every message that is published from
  /// now on, and `publish` waits while `window` of them are unconfirmed. What is already in confirm
  /// mode stays as it is.
  public func enableConfirms(window: Int = 8192) async throws(ClientError) {
    let isEnabled = state.withLock { state in
      if state.confirms != nil { return true }
      state.confirms = ConfirmLedger(window: window)
      return false
    }
    if isEnabled { return }
    let reply = try await call(.confirmSelect(ConfirmSelect(noWait: false)))
    guard case .method(.confirmSelectOk) = reply else {
      throw unexpected(reply, to: "confirm.select")
    }
  }

  /// Waits until everything published so far is confirmed. Throws `refused` with the number of
  /// messages that the broker refused since the last time.
  public func waitForConfirms() async throws(ClientError) {
    let barrier = try state.withLock { state throws(ClientError) in
      try state.check()
      return state.confirms?.barrier()
    }
    if let barrier {
      connection.beginExpecting()
      defer { connection.endExpecting() }
      try await barrier.value()
    }
    let refused = state.withLock { $0.confirms?.takeRefused() } ?? 0
    if refused > 0 { throw .refused(count: refused) }
  }

  /// Messages published and not yet confirmed; 0 outside of confirm mode.
  public var unconfirmedCount: Int { state.withLock { $0.confirms?.outstanding } ?? 0 }

  /// Mandatory messages that come back from now on. For one task; if it does not look at them, the
  /// oldest are dropped. Ends with the channel.
  public var returnedMessages: AsyncStream<ReturnedMessage> {
    AsyncStream(bufferingPolicy: .bufferingNewest(connection.options.returnedMax)) { stream in
      let isOpen = state.withLock { state in
        guard state.ended == nil else { return false }
        state.returnStreams.append(stream)
        return true
      }
      if !isOpen { stream.finish() }
    }
  }

  private func enqueue(
    _ publish: BasicPublish, _ properties: BasicProperties, _ body: [UInt8],
    _ confirmation: PublishConfirmation?
  ) async throws(ClientError) {
    try await connection.waitForRoom()
    while true {
      let room = try state.withLock { state throws(ClientError) -> Waiter<Void>? in
        try state.check()
        if let room = state.confirms?.room() { return room }
        try connection.send { buffer, scratch in
          append(publish, properties, body, to: &buffer, scratch: &scratch)
        }
        state.confirms?.add(confirmation)
        return nil
      }
      guard let room else { return }
      connection.beginExpecting()
      defer { connection.endExpecting() }
      try await room.value()
    }
  }

  private func append(
    _ publish: BasicPublish, _ properties: BasicProperties, _ body: [UInt8],
    to buffer: inout ByteBuffer, scratch: inout ByteBuffer
  ) {
    buffer.append(.basicPublish(publish), channel: number)
    scratch.removeAll()
    properties.encode(into: &scratch)
    body.withUnsafeBytes { bytes in
      buffer.appendContent(
        channel: number, properties: scratch.readable, body: bytes,
        frameMax: connection.frameMax)
    }
  }
}
