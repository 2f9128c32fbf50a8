import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Checkpoints and rounds of spilling are done in slices between turns, and what happens between the
/// slices is not lost.
@Suite struct SlicedTests {
  private static func broker(
    steps: Int, settings: Journal.Settings = .moving, disk: FaultyDisk = FaultyDisk()
  ) throws -> TestBroker {
    var limits = BrokerLimits()
    limits.choreStepsPerTurn = steps
    limits.walkStepsPerTurn = steps
    return try TestBroker(settings: settings, limits: limits, disk: disk)
  }

  private func begin(_ broker: TestBroker) {
    broker.durableTurn()
    broker.turns { broker.broker.mover == nil }
    // The broker may have begun one itself.
    guard broker.journal.pendingCheckpoint == nil else { return }
    broker.broker.beginCheckpoint()
  }

  private func finish(_ broker: TestBroker) {
    broker.turns { broker.broker.snapshot == nil && broker.journal.pendingCheckpoint == nil }
  }

  @Test func aSliceTakesNoMoreThanItsSteps() throws {
    let broker = try Self.broker(steps: 64)
    let channel = broker.connect().open()
    for number in 0..<400 {
      let name = Name("q\(number)")
      try channel.declare(name, isDurable: true)
      for key in 0..<3 { try channel.bind(name, to: "amq.direct", key: Name("\(key)")) }
      if number % 10 == 0 { broker.durableTurn() }
    }
    begin(broker)
    var turns = 0
    var bytes = 0
    while broker.broker.snapshot != nil {
      broker.turn()
      turns += 1
      bytes = broker.journal.pendingCheckpoint?.bytes ?? bytes
    }
    // 400 queues of 9 steps or so, with 3 bindings each.
    #expect(turns > 400 * 12 / 64)
    #expect(turns < 400 * 30 / 64)
    finish(broker)
    #expect(broker.journal.statistics.checkpoints > 0)
    let again = try broker.crashed(settings: .moving)
    #expect(again.vhost.destinationCount == 400)
    #expect(again.vhost.bindings == 1200)
  }

  @Test func theNextIsBegunWhenTheLogHasGrownByTimesTheLast() throws {
    var settings = Journal.Settings.moving
    settings.windowBytes = 64 << 20
    let broker = try Self.broker(steps: 8192, settings: settings)
    let channel = broker.connect().open()
    for number in 0..<3000 {
      try channel.declare(Name("queue-with-a-long-name-\(number)"), isDurable: true)
      if number % 100 == 0 { broker.durableTurn() }
    }
    for _ in 0..<300 {
      try broker.turn {
        try channel.publish([UInt8](repeating: 1, count: 60_000), key: "x", isPersistent: true)
        try channel.publish(
          [UInt8](repeating: 1, count: 60_000), key: "queue-with-a-long-name-1",
          isPersistent: true)
        try channel.purge("queue-with-a-long-name-1")
      }
      broker.turns { !broker.journal.isCommitting && !broker.journal.hasUncommitted }
      broker.drainWorkers()
    }
    let statistics = broker.journal.statistics
    #expect(statistics.checkpoints > 3)
    #expect(
      Journal.checkpointGrowth * (statistics.checkpointBytes - broker.journal.lastCheckpointBytes)
        <= broker.journal.endPosition)
    #expect(broker.journal.segmentCount <= 3 + 5 * broker.journal.lastCheckpointBytes / (256 << 10))
  }

  /// What is deleted while a checkpoint is made gives its place in the catalog to another one, which was
  /// seen. What the checkpoint had twice would come back after it was deleted, too.
  @Test(arguments: 0..<16)
  func whatTakesThePlaceOfTheDeletedIsThereOnce(turns: Int) throws {
    let broker = try Self.broker(steps: 12)
    let channel = broker.connect().open()
    for number in 0..<8 {
      try channel.declare(Name("q\(number)"), isDurable: true)
      try broker.vhost.declare(exchange: Name("x\(number)"), isDurable: true)
    }
    begin(broker)
    for _ in 0..<turns { broker.turn() }
    try channel.delete("q0")
    try broker.vhost.delete(exchange: "x0")
    finish(broker)
    broker.durableTurn()
    let again = try broker.crashed(settings: .moving)
    let next = again.connect().open()
    for number in 1..<8 {
      try next.delete(Name("q\(number)"))
      try again.vhost.delete(exchange: Name("x\(number)"))
    }
    begin(again)
    finish(again)
    again.durableTurn()
    let last = try again.crashed(settings: .moving)
    #expect(last.vhost.destinationCount == 0)
    #expect(last.vhost.exchanges.values.filter { !$0.isPredeclared }.isEmpty)
  }

  /// An exchange is deleted while its bindings, or those of another one, are being written.
  @Test(arguments: 0..<24, ["x0", "x1", "x2"] as [Name])
  func bindingsOfOtherExchangesAreThereAfterACrash(turns: Int, deleted: Name) throws {
    let broker = try Self.broker(steps: 12)
    for number in 0..<3 {
      let name = Name("x\(number)")
      try broker.vhost.declare(exchange: name, isDurable: true)
      for key in 0..<12 {
        try broker.vhost.bind(exchange: name, to: "amq.direct", key: Name("\(key)"))
      }
    }
    begin(broker)
    for _ in 0..<turns { broker.turn() }
    try broker.vhost.delete(exchange: deleted)
    finish(broker)
    broker.finishChores()
    broker.durableTurn()
    #expect(broker.vhost.bindings == 24)
    #expect(try broker.crashed(settings: .moving).vhost.bindings == 24)
  }

  /// A queue is deleted while others are looked at for a round of spilling: one that was seen takes its
  /// place, and its messages must not move twice.
  @Test(arguments: 0..<8)
  func whatTakesThePlaceOfTheDeletedMovesOnce(turns: Int) throws {
    let broker = try Self.broker(steps: 4)
    let channel = broker.connect().open()
    try channel.declare("junk", isDurable: true)
    let names = (0..<8).map { Name("q\($0)") }
    for name in names {
      try channel.declare(name, isDurable: true)
      for text in ["a", "b", "c"] { try channel.publish(text, key: name, isPersistent: true) }
    }
    broker.durableTurn()
    while broker.broker.selector == nil {
      try broker.durableTurn {
        try channel.publish([UInt8](repeating: 0, count: 30_000), key: "junk", isPersistent: true)
        try channel.purge("junk")
      }
    }
    for _ in 0..<turns { broker.turn() }
    try channel.delete("q0")
    broker.spillTurns()
    #expect(broker.journal.statistics.spills > 0)
    let again = try broker.crashed(settings: .moving)
    let next = again.connect().open()
    for name in names.dropFirst() {
      #expect(try next.drain(name).map(\.text) == ["a", "b", "c"], "\(name)")
      #expect(try channel.drain(name).map(\.text) == ["a", "b", "c"], "\(name)")
    }
    broker.spillTurns()
    broker.expectNothingHeld()
  }

  /// A round is over while a checkpoint is made. What moved behind the turn of its queue would stand in a
  /// file that others need, come from the log after a crash, move once more, and then be there twice.
  @Test(arguments: 0..<16)
  func aRoundThatEndsMeanwhileIsThereOnceAfterTwoCrashes(turns: Int) throws {
    let disk = FaultyDisk()
    let broker = try Self.broker(steps: 6, disk: disk)
    let channel = broker.connect().open()
    for name in ["junk", "p", "q"] as [Name] { try channel.declare(name, isDurable: true) }
    let texts = ["a", "b", "c"]
    for text in texts {
      for name in ["p", "q"] as [Name] { try channel.publish(text, key: name, isPersistent: true) }
    }
    let gate = try Gate(disk, .rename, ".lanes")
    while broker.journal.pendingSpill == nil {
      try broker.durableTurn {
        try channel.publish([UInt8](repeating: 0, count: 30_000), key: "junk", isPersistent: true)
        try channel.purge("junk")
      }
    }
    gate.waitUntilReached()
    broker.broker.beginCheckpoint()
    for _ in 0..<turns { broker.turn() }
    gate.open()
    broker.drainWorkers()
    finish(broker)
    broker.turns { !broker.journal.isSpilling && broker.broker.mover == nil }

    let again = try broker.crashed(settings: .moving)
    try again.moveOut(again.connect().open())
    let last = try again.crashed(settings: .moving)
    let next = last.connect().open()
    for name in ["p", "q"] as [Name] {
      #expect(last.queue(name)?.readyCount == 3, "\(name)")
      #expect(try next.drain(name).map(\.text) == texts, "\(name)")
      #expect(try channel.drain(name).map(\.text) == texts, "\(name)")
    }
    last.expectNothingHeld()
    broker.expectNothingHeld()
  }

  /// Whatever is declared, bound and deleted while a checkpoint is made: a crash behind it finds what
  /// there was.
  @Test(arguments: Seeds.all)
  func whatChangesMeanwhileIsThereAfterACrash(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let broker = try Self.broker(steps: random.number(1..<60))
    let channel = broker.connect().open()
    func change() throws {
      let name = Name("q\(random.number(0..<12))")
      let exchange = Name("x\(random.number(0..<4))")
      let key = Name("\(random.number(0..<3))")
      switch random.number(0..<8) {
      case 0: if broker.queue(name) != nil { try channel.delete(name) }
      case 1:
        if broker.vhost.exchanges[exchange] != nil, random.isOne(in: 4) {
          try broker.vhost.delete(exchange: exchange)
        }
      case 2...3: try channel.declare(name, isDurable: true)
      case 4:
        try broker.vhost.declare(exchange: exchange, isDurable: true)
        try broker.vhost.bind(exchange: exchange, to: "amq.fanout", key: key)
      case 5:
        if broker.queue(name) != nil, broker.vhost.exchanges[exchange] != nil {
          try channel.unbind(name, from: exchange, key: key)
        }
      default:
        if broker.queue(name) != nil, broker.vhost.exchanges[exchange] != nil {
          try channel.bind(name, to: exchange, key: key)
        }
      }
    }
    func picture(_ broker: TestBroker) -> [String] {
      let queues = broker.vhost.destinations.values.map { "queue \($0.name) \($0.id)" }
      let exchanges = broker.vhost.exchanges.values.map { "exchange \($0.name) \($0.id)" }
      return (queues + exchanges).sorted() + ["\(broker.vhost.bindings) bindings"]
    }
    for _ in 0..<40 { try change() }
    for round in 0..<8 {
      begin(broker)
      while broker.broker.snapshot != nil { try broker.turn { try change() } }
      finish(broker)
      for _ in 0..<random.number(0..<3) { try broker.turn { try change() } }
      // Bindings of what was deleted count until they were taken out.
      broker.finishChores()
      broker.durableTurn()
      let again = try broker.crashed(settings: .moving)
      #expect(picture(again) == picture(broker), "round \(round)")
      again.close()
    }
    #expect(broker.journal.statistics.checkpoints >= 8)
  }

  /// Messages are taken, given back, acknowledged and published while rounds and checkpoints go on in
  /// the smallest slices: after a crash each that is left is there once.
  @Test(arguments: Seeds.all)
  func whatMovesMeanwhileIsThereOnceAfterACrash(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let broker = try Self.broker(steps: random.number(1..<6))
    var channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.declare("junk", isDurable: true)
    var waiting: Set<String> = []
    var out: [(tag: UInt64, text: String)] = []
    var number = 0
    func act() throws {
      switch random.number(0..<10) {
      case 0...4:
        for _ in 0..<random.number(1..<10) {
          number += 1
          let text = "\(number)"
          waiting.insert(text)
          try channel.publish(text, key: "q", isPersistent: true)
        }
      case 5...6:
        // So many that a walk over them takes several turns.
        for _ in 0..<random.number(1..<12) {
          guard let delivery = try channel.take("q", isAutomatic: false) else { return }
          out.append((delivery.tag, delivery.text))
        }
      case 7:
        for _ in 0..<random.number(1..<6) {
          guard let index = out.indices.randomElement(using: &random) else { return }
          let delivery = out.remove(at: index)
          try channel.reject(delivery.tag, isMultiple: false, requeues: true)
        }
      case 8:
        guard let index = out.indices.randomElement(using: &random) else { return }
        let delivery = out.remove(at: index)
        try channel.acknowledge(delivery.tag, isMultiple: false)
        waiting.remove(delivery.text)
      default:
        if random.isOne(in: 10) {
          channel.close()
          channel = broker.connect().open()
          out = []
        }
        try channel.publish([UInt8](repeating: 0, count: 30_000), key: "junk", isPersistent: true)
        try channel.purge("junk")
      }
    }
    for round in 0..<6 {
      for _ in 0..<150 {
        try broker.turn { try act() }
        if broker.broker.snapshot == nil, broker.journal.pendingCheckpoint == nil,
          random.isOne(in: 10)
        {
          begin(broker)
        }
      }
      finish(broker)
      broker.durableTurn()
      let again = try broker.crashed(settings: .moving)
      let found = try again.connect().open().drain("q").map(\.text)
      #expect(found.count == waiting.count, "round \(round)")
      #expect(Set(found) == waiting, "round \(round)")
      again.close()
    }
    #expect(broker.journal.statistics.spills > 0)
    channel.close()
    #expect(Set(try broker.connect().open().drain("q").map(\.text)) == waiting)
    broker.spillTurns()
    broker.expectNothingHeld()
  }
}
