/// One client that takes all that is in the queues.
extension Run {
  private static let drainTurnsMax = 4000

  /// `limit`: one channel has all consumers, which together have at most so many deliveries out;
  /// otherwise each has its own.
  func drain(_ life: Life, _ limit: Int?) throws(Interruption) {
    let connection = life.connect("drain")
    connection.send(.connect(), on: 0)
    let queues = world.scenario.topology.queues.filter { world.oracle.queue($0).exists }
    var automatic: Set<UInt16> = []
    if let limit {
      consumeTogether(queues, limit, connection)
    } else {
      automatic = consumeApart(queues, connection)
    }
    /// What was got, and is acknowledged at last: it must not hold the consumers back.
    var got: [UInt64] = []
    var turns = ServiceTurns(queues: queues, limit: limit ?? 0)
    for _ in 0..<Self.drainTurnsMax {
      try life.turn()
      var unfair: BrokenPromise?
      connection.receive(.max) { event in
        guard case .content(let content) = event else { return }
        switch content.kind {
        case .returned: break
        case .got(let tag, _, _): got.append(tag)
        case .delivery(let tag, _, let consumer):
          if limit != nil { turns.served(consumer, world.oracle, &unfair) }
          guard !automatic.contains(content.channel) else { break }
          connection.send(.acknowledge(tag: tag, isMultiple: false), on: content.channel)
        }
      }
      if let unfair { throw .broken(unfair) }
      guard connection.isAnswered, world.oracle.backlog == got.count else { continue }
      if got.isEmpty { break }
      for tag in got { connection.send(.acknowledge(tag: tag, isMultiple: false)) }
      got = []
    }
    for name in world.scenario.topology.queues {
      if let missing = world.oracle.queue(name).firstCertain {
        throw .broken(
          BrokenPromise(
            "what is in a queue comes out of it", "m\(missing.message.id) in \(name) does not"))
      }
    }
    try life.drop(connection)
  }

  private func consumeTogether(
    _ queues: [String], _ limit: Int, _ connection: SimulatedConnection
  ) {
    world.coverage.note(.sharedDrains)
    connection.send(.openChannel)
    connection.send(.prefetch(limit, isShared: true))
    for queue in queues.prefix(limit) {
      connection.send(.get(queue: queue, isAutomatic: false))
    }
    for queue in queues {
      connection.send(.consume(queue: queue, tag: queue, isAutomatic: false, priority: 0))
    }
  }

  /// Returns the channels that need not acknowledge.
  private func consumeApart(
    _ queues: [String], _ connection: SimulatedConnection
  ) -> Set<UInt16> {
    var automatic: Set<UInt16> = []
    for (index, queue) in queues.enumerated() {
      let channel = UInt16(index + 1)
      let isAutomatic = world.random.flag()
      connection.send(.openChannel, on: channel)
      if !isAutomatic {
        connection.send(
          .prefetch(world.random.number(1...20), isShared: world.random.oneIn(3)), on: channel)
      }
      connection.send(
        .consume(queue: queue, tag: queue, isAutomatic: isAutomatic, priority: 0), on: channel)
      if isAutomatic { automatic.insert(channel) }
    }
    return automatic
  }
}

/// Whether consumers that share a limit are served in turns: none waits for long while others get
/// messages, though its queue has some.
private struct ServiceTurns {
  /// For each queue how many messages the others gave since it gave one, or had none.
  private var waits: [String: Int] = [:]
  private let waitMax: Int

  /// A queue may first have to read messages back, or to tell the log what it will deliver.
  init(queues: [String], limit: Int) {
    for queue in queues { waits[queue] = 0 }
    waitMax = 20 * limit + 20
  }

  mutating func served(_ name: String, _ oracle: Oracle, _ unfair: inout BrokenPromise?) {
    for (queue, count) in waits.sorted(by: { $0.key < $1.key }) {
      let isWaiting = queue != name && oracle.queue(queue).readyCount ?? 0 > 0
      waits[queue] = isWaiting ? count + 1 : 0
      guard isWaiting, count >= waitMax else { continue }
      unfair = BrokenPromise(
        "consumers that share a limit are served in turns",
        "\(queue) gave nothing while others gave \(count)")
    }
  }
}
