import Server

/// The loop waits only when nobody waits for it.
extension Life {
  /// When nothing will happen by itself, nobody may be left who could be served: no message that a
  /// consumer could take, no request that could be answered.
  func expectNobodyForgotten() throws(Interruption) {
    guard isQuiet, journal.failure == nil else { return }
    world.coverage.note(.quietTurns)
    if isSound { note { () throws(BrokenPromise) in try world.guests.rested() } }
    try check()
    if let forgotten = forgotten() {
      throw .broken(BrokenPromise("nobody waits for a turn that does not come", forgotten))
    }
  }

  /// All that is on the disk can be read.
  var isSound: Bool {
    world.disk.failureCount == failuresBefore && !world.oracle.isRotten
  }

  private func forgotten() -> String? {
    for connection in connections where !connection.isOver {
      if let request = forgottenRequest(of: connection) { return request }
    }
    // What could not be read is tried again after a while; what is damaged is not given to anybody;
    // large messages wait while slow readers take too much memory.
    guard isSound, !broker.isOutputExhausted else { return nil }
    for name in world.scenario.topology.queues {
      let queue = world.oracle.queue(name)
      guard queue.exists, let copy = queue.ready.first(where: { !$0.isUncertain }),
        let consumer = queue.consumers.first(where: \.isReady)
      else { continue }
      return "m\(copy.message.id) is in \(name), and \(consumer.tag) could take it"
    }
    return nil
  }

  private func forgottenRequest(of simulated: SimulatedConnection) -> String? {
    let connection = simulated.connection!
    let settings = world.scenario.sessionSettings
    let unsent = connection.unsentCount
    // There is less room when slow readers take much memory together.
    if connection.isOutputFull, unsent < min(settings.outputMax, 64 << 10) / 2 {
      return "\(simulated.model.name) has room, and nobody was told"
    }
    guard simulated.waitingBytes > 0, broker.alarm == nil, !connection.isOutputFull,
      !connection.isHeldForMemory, unsent < 4 * settings.outputMax
    else { return nil }
    // A large message that is asked for waits, too.
    if broker.isOutputExhausted, simulated.isGetting { return nil }
    return "\(simulated.model.name) has sent a request that nobody takes"
  }
}
