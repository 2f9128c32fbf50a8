import Base

// What the thread of the connection and its channels do with the state they share.

extension Connection {
  /// Lets `write` append whole frames to what will be sent. Not if the connection has ended.
  func send(
    _ write: (inout ByteBuffer, _ scratch: inout ByteBuffer) -> Void
  ) throws(ClientError) {
    let mustWake = try state.withLock { state throws(ClientError) in
      try state.check()
      write(&state.outbound, &state.scratch)
      defer { state.isLoopAwake = true }
      return !state.isLoopAwake
    }
    if mustWake { wakeup.signal() }
  }

  /// Waits until less than the limit is unsent.
  func waitForRoom() async throws(ClientError) {
    while true {
      let waiter = try state.withLock { state throws(ClientError) -> Waiter<Void>? in
        try state.check()
        guard state.outbound.count > options.unsentMaxBytes else { return nil }
        let waiter = Waiter<Void>()
        state.roomWaiters.append(waiter)
        return waiter
      }
      guard let waiter else { return }
      beginExpecting()
      defer { endExpecting() }
      try await waiter.value()
    }
  }

  /// Gives the frames that wait to the thread of the connection, whose buffer is empty.
  func takeOutbound(into buffer: inout ByteBuffer) {
    let waiters = state.withLock { state in
      swap(&state.outbound, &buffer)
      defer { state.roomWaiters = [] }
      return state.roomWaiters
    }
    for waiter in waiters { waiter.finish(.success(())) }
  }

  /// Whether the thread may sleep: not if there is something to send that it could send now.
  func prepareToWait(hasUnsent: Bool) -> Bool {
    state.withLock { state in
      guard state.outbound.isEmpty || hasUnsent else { return false }
      state.isLoopAwake = hasUnsent
      return true
    }
  }

  func checkCloseDeadline() throws(ClientError) {
    let hasPassed = state.withLock { $0.closeDeadline?.hasPassed } ?? false
    if hasPassed { throw .timedOut("the broker to say goodbye") }
  }

  func setBlocked(_ reason: String?) {
    let streams = state.withLock { state in
      state.blockedReason = reason
      return state.blockedStreams
    }
    for stream in streams { stream.yield(reason) }
  }

  /// Forgets a channel, whose number is free again.
  func remove(_ channel: Channel, dropsOutbound: Bool) {
    state.withLock { state in
      if dropsOutbound { state.dropOutbound(channel: channel.number) }
      state.channels[channel.number] = nil
    }
  }

  /// The connection is no more: everybody who waits for something learns why.
  func end(_ error: ClientError) {
    let (channels, waiters, streams) = state.withLock { state in
      state.ended = error
      defer {
        state.channels = [:]
        state.roomWaiters = []
        state.endWaiters = []
        state.blockedStreams = []
      }
      return (
        Array(state.channels.values), state.roomWaiters + state.endWaiters, state.blockedStreams
      )
    }
    for channel in channels { channel.end(error) }
    for waiter in waiters { waiter.finish(.success(())) }
    for stream in streams { stream.finish() }
  }
}
