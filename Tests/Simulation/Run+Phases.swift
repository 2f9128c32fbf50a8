import Base

/// The beginning of a life, and the end of a run: one client that looks at everything.
extension Run {
  private static let waitTurnsMax = 600

  /// Asks for every queue what is in it, and has all be there that the clients use.
  func restoreTopology(_ life: Life) throws(Interruption) {
    let topology = world.scenario.topology
    let connection = life.connect("control")
    connection.send(.connect(), on: 0)
    for (index, queue) in topology.queues.enumerated() {
      connection.send(.openChannel, on: UInt16(index + 1))
      connection.send(.inspect(queue: queue), on: UInt16(index + 1))
    }
    let channel: UInt16 = 100
    connection.send(.openChannel, on: channel)
    let isUncertain = world.oracle.isTopologyUncertain
    for exchange in topology.exchangeNames {
      connection.send(.declareExchange(exchange), on: channel)
    }
    let declared = topology.queues.filter {
      topology.isDurable($0) ? isUncertain : topology.kind($0) == .lasting
    }
    for queue in declared { connection.send(.declare(queue: queue), on: channel) }
    for binding in topology.bindings where isUncertain || !topology.isDurable(binding) {
      guard
        binding.isToExchange || declared.contains(binding.destination)
          || world.oracle.queue(binding.destination).exists
      else { continue }
      connection.send(.bind(binding), on: channel)
    }
    try wait(life, for: connection) { connection.isAnswered }
    world.oracle.topologyRestored()
    try life.drop(connection)
  }

  /// Turns until `isDone`, and no more trouble if that takes long. A broker whose log failed is
  /// killed.
  private func wait(
    _ life: Life, for connection: SimulatedConnection, until isDone: () -> Bool
  ) throws(Interruption) {
    // Publishers wait until the rounds that are due have been taken, which may be many behind a restart.
    let turns = world.scenario.isSlow ? Life.slowRestTurnsMax : Self.waitTurnsMax
    for turn in 0..<turns {
      if isDone() { return }
      if connection.isOver || life.journal.failure != nil {
        world.disk.crashNow(.kill)
        throw .crashed
      }
      if turn == 30 { endEpisode() }
      if turn == 100 { life.hurry() }
      try life.turn()
      connection.receive(.max) { _ in }
    }
    throw .broken(BrokenPromise("the broker answers", "the control connection waits for ever"))
  }

  // MARK: The end

  /// After the last restart everything that should be there comes out of the queues, and nothing
  /// else; then nothing is left, in memory or on the disk or after one more restart.
  func finish() throws(BrokenPromise) {
    endEpisode()
    isFinishing = true
    heal()
    // What waits for its time has waited when the broker starts.
    world.guests.finish()
    world.now = max(world.now, world.guests.latestDue + 1)
    var isDrained = false
    while !isDrained {
      try live { () throws(Interruption) in
        guard let life else { return }
        try restoreTopology(life)
        endEpisode()
        life.hurry()
        let limit = world.random.oneIn(3) ? world.random.number(1...3) : nil
        try confirmAll(life, for: limit)
        if world.may(.clockSteps) { life.setClock() }
        try emptyGuests(life)
        try drain(life, limit)
        try settle(life)
        isDrained = true
        try stop(life, isCut: false)
      }
    }
    try live { () throws(Interruption) in
      guard let life else { return }
      try restoreTopology(life)
      try stop(life, isCut: false)
    }
    world.coverage.note(.drained)
  }

  private static let guestTurnsMax = 3000

  /// The guests get all that they wait for.
  private func emptyGuests(_ life: Life) throws(Interruption) {
    for _ in 0..<Self.guestTurnsMax where world.guests.firstMissing != nil {
      try actGuests()
      try life.turn()
    }
    try actGuests()
    guard let (guest, parcel) = world.guests.firstMissing else { return }
    throw .broken(
      BrokenPromise("what guests wait for comes", "p\(parcel.id) of \(guest) does not"))
  }

  /// What is published now is confirmed. It is more when the queues are to be served in turns.
  private func confirmAll(_ life: Life, for limit: Int?) throws(Interruption) {
    let connection = life.connect("confirmer")
    connection.send(.connect(), on: 0)
    connection.send(.openChannel)
    connection.send(.confirmSelect)
    let queues = world.scenario.topology.queues
    for queue in queues + (limit == nil ? [] : (1...80).flatMap { _ in queues.prefix(2) }) {
      connection.send(
        .publish(
          world.oracle.makeMessage {
            Message(
              id: $0, exchange: "", key: queue, isPersistent: true, isMandatory: false, size: 100,
              isVerbose: false)
          }))
    }
    try wait(life, for: connection) { connection.isAnswered }
    try life.drop(connection)
  }

  /// Nothing is in the queues: the log and the memory shrink to what an empty broker needs.
  private func settle(_ life: Life) throws(Interruption) {
    for attempt in 0..<3 {
      for _ in 0..<300 where !(life.isIdle && isSmall(life)) {
        // What a crash left open may still come to guests.
        try actGuests()
        try life.turn()
      }
      if isSmall(life) { return }
      // What a crash left of a checkpoint's cleaning up goes with the next one, which comes when the
      // log has gone on.
      if attempt < 2 { try goOn(life) }
    }
    guard isSmall(life) else {
      throw .broken(
        BrokenPromise(
          "an empty broker is small",
          "\(world.disk.usedBytes) bytes of journal, \(life.journal.memoryBytes) bytes of memory;"
            + " \(world.disk.listing)"))
    }
  }

  /// The log goes on for more than a segment.
  private func goOn(_ life: Life) throws(Interruption) {
    let connection = life.connect("pusher")
    connection.send(.connect(), on: 0)
    connection.send(.openChannel)
    connection.send(.confirmSelect)
    let queue = world.scenario.topology.durableQueues[0]
    connection.send(.declare(queue: queue))
    for _ in 0..<2 * world.scenario.settings.segmentBytes / 30_000 {
      connection.send(
        .publish(
          world.oracle.makeMessage {
            Message(
              id: $0, exchange: "", key: queue, isPersistent: true, isMandatory: false,
              size: 30_000, isVerbose: false)
          }))
    }
    connection.send(.purge(queue: queue))
    try wait(life, for: connection) { connection.isAnswered }
    try life.drop(connection)
  }

  private func isSmall(_ life: Life) -> Bool {
    let segment = world.scenario.settings.segmentBytes + 4096
    return world.disk.usedBytes <= 8 * segment + 100_000 + life.waitingBytes
      && life.journal.memoryBytes <= 2 << 20
  }
}
