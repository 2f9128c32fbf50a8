import Base
import Glibc
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Queues whose messages are on disk: what they take of memory, and how they are served.
@Suite struct ColdQueueTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  private static var settings: Journal.Settings {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 512 << 10
    return settings
  }

  init() throws {
    broker = try TestBroker.moving(disk, settings: Self.settings)
    client = broker.connect()
    channel = client.open()
    try channel.declare("q", isDurable: true)
  }

  private func text(_ number: Int) -> String { "\(number):" + String(repeating: "x", count: 3000) }

  private func fill(_ range: Range<Int>, _ queue: Name = "q") throws {
    for number in range { try channel.publish(text(number), key: queue, isPersistent: true) }
  }

  /// Entries in memory of messages that wait.
  private func entryCount(_ queue: Queue) -> Int {
    var count = queue.lane.waiting.first == nil ? 0 : 1
    queue.lane.waiting.forEachUnmoved { _ in
      count += 1
      return true
    }
    return count
  }

  /// Turns until nothing is on its way, with what the client got.
  private func served() -> [Delivery] {
    broker.turns {
      !broker.broker.hasWaitingDeliveries && !broker.journal.isLoading
        && !broker.journal.hasUncommitted
    }
    return client.deliveries()
  }

  // MARK: Memory

  @Test func aBigBacklogTakesLittleMemory() throws {
    let empty: [UInt8] = []
    for round in 0..<60 {
      try broker.turn {
        for _ in 0..<1000 { try channel.publish(empty, key: "q", isPersistent: true) }
      }
      broker.drainWorkers()
      if round % 20 == 19 { broker.spillTurns() }
    }
    try broker.moveOut(channel)
    let queue = try #require(broker.queue("q"))
    #expect(queue.readyCount == 60_000)
    #expect(entryCount(queue) < 5000)
    #expect(broker.journal.memoryBytes < 2 << 20)
    let used = (0..<broker.journal.blockCapacity).count { broker.journal.blocks[$0].capacity > 0 }
    #expect(used < 60)
    #expect(try channel.take("q") != nil)
    #expect(queue.readyCount == 59_999)
    #expect(entryCount(queue) < 5000)
  }

  @Test func manyQueuesTakeLittleMemory() throws {
    let names = (0..<300).map { Name("q\($0)") }
    for name in names { try channel.declare(name, isDurable: true) }
    for name in names {
      try fill(0..<8, name)
      broker.turn()
      broker.drainWorkers()
    }
    try broker.moveOut(channel)
    #expect(broker.hasMoved)
    #expect(broker.journal.memoryBytes < 3 << 20)
    #expect(names.allSatisfy { name in broker.queue(name)?.readyCount == 8 })
    for name in [names[0], names[150], names[299]] {
      #expect(try channel.drain(name).map(\.text) == (0..<8).map(text))
    }
    #expect(broker.journal.memoryBytes < 4 << 20)
  }

  @Test func manyQueuesReadBackLittleAtATime() throws {
    let names = (0..<80).map { Name("q\($0)") }
    for name in names { try channel.declare(name, isDurable: true) }
    let body = [UInt8](repeating: 1, count: 200_000)
    for name in names {
      try broker.turn { try channel.publish(body, key: name, isPersistent: true) }
      broker.drainWorkers()
    }
    try broker.moveOut(channel)
    for name in names { try channel.consume(name) }
    broker.turn()
    var loadingMax = broker.journal.loadingBytes
    var count = 0
    broker.turns {
      loadingMax = max(loadingMax, broker.journal.loadingBytes)
      count += client.deliveries().count
      return count == names.count
    }
    #expect(loadingMax <= Journal.loadingBytesMax)
    #expect(broker.journal.memoryBytes < 2 * Journal.loadingBytesMax)
    try channel.acknowledge(0, isMultiple: true)
    broker.expectNothingHeld()
  }

  /// Those that wait for their turn to be read back are given up like others.
  @Test func whatIsPurgedWhileItWaitsToBeReadBackIsForgotten() throws {
    let names = (0..<80).map { Name("q\($0)") }
    let body = [UInt8](repeating: 1, count: 200_000)
    for name in names {
      try channel.declare(name, isDurable: true)
      try broker.turn { try channel.publish(body, key: name, isPersistent: true) }
      broker.drainWorkers()
    }
    try broker.moveOut(channel)
    for name in names { try channel.consume(name, isAutomatic: true) }
    broker.turn()
    for name in names { try channel.purge(name) }
    #expect(served().count == 0)
    #expect(!broker.journal.isLoading)
    for name in names { try channel.publish("new", key: name, isPersistent: true) }
    #expect(served().map(\.text) == names.map { _ in "new" })
    broker.expectNothingHeld()
  }

  // MARK: Getting

  @Test func aMessageIsGotFromAColdQueue() throws {
    try fill(0..<300)
    try broker.moveOut(channel)
    for number in 0..<300 {
      let got = try #require(try channel.take("q", isAutomatic: false))
      if got.text != text(number) { Issue.record("\(number)") }
      if number % 50 == 0 { broker.turn() }
    }
    #expect(try channel.take("q") == nil)
    #expect(broker.journal.memoryBytes < 2 << 20)
    channel.recover()
    #expect(try channel.drain("q").map(\.text) == (0..<300).map(text))
    broker.expectNothingHeld()
  }

  @Test func aBlockThatCannotBeReadIsReadLater() throws {
    try fill(0..<100)
    try broker.moveOut(channel)
    disk.fail(.read, ".lanes")
    let error = mistake { _ = try channel.take("q") }
    #expect(error == .unreadable(queue: "q"))
    #expect(broker.takeProblem()?.hasPrefix("messages could not be read back") == true)
    #expect(mistake { _ = try channel.take("q") } == .unreadable(queue: "q"))
    disk.set(nil)
    broker.advance(milliseconds: Broker.unreadableMilliseconds)
    broker.turn()
    #expect(try channel.drain("q").map(\.text) == (0..<100).map(text))
    broker.expectNothingHeld()
  }

  @Test func aQueueThatWasPurgedAfterItCouldNotBeReadIsReadable() throws {
    try fill(0..<100)
    try broker.moveOut(channel)
    disk.fail(.read, ".lanes")
    #expect(mistake { _ = try channel.take("q") } == .unreadable(queue: "q"))
    try channel.purge("q")
    try channel.publish("new", key: "q", isPersistent: true)
    #expect(try channel.take("q")?.text == "new")
  }

  @Test func consumersAreServedOnceABlockCanBeRead() throws {
    try fill(0..<100)
    try broker.moveOut(channel)
    disk.fail(.read, ".lanes")
    try channel.consume("q", tag: "c", isAutomatic: true)
    try channel.declare("p", isDurable: true)
    try channel.consume("p", tag: "d", isAutomatic: true)
    broker.work(3)
    try broker.turn { try channel.publish("m", key: "p") }
    #expect(served().map(\.text) == ["m"], "others are served")
    disk.set(nil)
    broker.advance(milliseconds: Broker.unreadableMilliseconds)
    broker.work()
    #expect(served().map(\.text) == (0..<100).map(text))
    broker.expectNothingHeld()
  }

  // MARK: Consuming

  @Test func aConsumerTakesOneAfterTheOther() throws {
    try fill(0..<150)
    try broker.moveOut(channel)
    channel.setPrefetch(1, isGlobal: false)
    try channel.consume("q", tag: "c")
    for number in 0..<150 {
      let got = served()
      if got.map(\.text) != [text(number)] { Issue.record("\(number): \(got.map(\.text.count))") }
      if got.isEmpty { break }
      try channel.acknowledge(got[0].tag, isMultiple: false)
    }
    #expect(served() == [])
    broker.expectNothingHeld()
  }

  @Test func consumersShareAColdQueueByPriority() throws {
    try fill(0..<200)
    try broker.moveOut(channel)
    channel.setPrefetch(30, isGlobal: false)
    try channel.consume("q", tag: "low", priority: -1)
    try channel.consume("q", tag: "a")
    try channel.consume("q", tag: "b")
    let got = served()
    #expect(got.map(\.text) == (0..<90).map(text))
    #expect(got.prefix(60).allSatisfy { $0.consumer != "low" })
    #expect(got.count { $0.consumer == "a" } == 30 && got.count { $0.consumer == "b" } == 30)
    try channel.acknowledge(0, isMultiple: true)
    var rest = served()
    while rest.count < 110, !rest.isEmpty {
      try channel.acknowledge(0, isMultiple: true)
      let more = served()
      if more.isEmpty { break }
      rest += more
    }
    #expect(rest.map(\.text) == (90..<200).map(text))
    try channel.acknowledge(0, isMultiple: true)
    broker.expectNothingHeld()
  }

  @Test func anAutomaticConsumerEmptiesAColdQueue() throws {
    try fill(0..<600)
    try broker.moveOut(channel)
    try fill(600..<620)
    try channel.consume("q", isAutomatic: true)
    #expect(served().map(\.text) == (0..<620).map(text))
    #expect(broker.journal.memoryBytes < 4 << 20)
    broker.expectNothingHeld()
    broker.work()
    #expect(try broker.files(".lanes") == [])
  }

  // MARK: Turns

  /// Nothing that is on disk stays in memory for longer than a turn.
  @Test(arguments: [1, 3])
  func whoWaitsForTheDiskKeepsItsTurnWithinASharedPrefetch(limit: Int) throws {
    var settings = Self.settings
    settings.cacheBytes = 0
    let broker = try TestBroker.moving(disk, settings: settings)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("cold", isDurable: true)
    try channel.declare("hot")
    for number in 0..<80 { try channel.publish(text(number), key: "cold", isPersistent: true) }
    try broker.moveOut(channel)
    for number in 0..<200 { try channel.publish("\(number)", key: "hot") }
    channel.setPrefetch(limit, isGlobal: true)
    let hot = try channel.consume("hot")
    let cold = try channel.consume("cold")
    var counts: [Name: Int] = [:]
    var taken = 0
    while taken < 120 {
      broker.turns {
        !broker.broker.hasWaitingDeliveries && !broker.journal.isLoading
          && !broker.journal.hasUncommitted
      }
      let deliveries = client.deliveries()
      #expect(!deliveries.isEmpty && deliveries.count <= limit)
      guard let last = deliveries.last else { return }
      for delivery in deliveries { counts[delivery.consumer, default: 0] += 1 }
      taken += deliveries.count
      try broker.turn { try channel.acknowledge(last.tag, isMultiple: true) }
    }
    // Whoever is first in the line has its turn: the other one in every second round. The log is told
    // what is delivered, which takes a few rounds at first.
    let rounds = 120 / limit
    #expect(counts[cold, default: 0] >= rounds / 2 - 4, "\(counts)")
    #expect(counts[hot, default: 0] >= rounds / 2 - 4, "\(counts)")
  }

  /// What is too large while slow readers hold too much memory is not read back again and again for those
  /// who ask for it.
  @Test func whatIsTooLargeForNowIsReadOnce() throws {
    var settings = Self.settings
    settings.cacheBytes = 0
    let broker = try TestBroker.moving(disk, settings: settings)
    let channel = broker.connect().open()
    try channel.declare("cold", isDurable: true)
    let body = [UInt8](repeating: 1, count: 2 * Broker.smallMessageBytes)
    try channel.publish(body, key: "cold", isPersistent: true)
    try channel.publish("small", key: "cold", isPersistent: true)
    try broker.moveOut(channel)
    broker.broker.exhaustOutput()
    let before = broker.journal.statistics.blocksReadBack
    for _ in 0..<20 {
      broker.drainWorkers()
      try broker.turn {
        let result = try channel.get("cold", isAutomatic: true) { _, _, _, _, _ in }
        #expect(result != .message && result != .empty)
      }
    }
    #expect(broker.journal.statistics.blocksReadBack - before <= 2)
    broker.broker.relieveOutput()
    #expect(try channel.take("cold")?.message.body == body)
    #expect(try channel.take("cold")?.text == "small")
  }

  /// The same for a consumer, each time when something is published behind it.
  @Test func whatIsTooLargeForNowIsReadOnceForAConsumer() throws {
    var settings = Self.settings
    settings.cacheBytes = 0
    let broker = try TestBroker.moving(disk, settings: settings)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("cold", isDurable: true)
    let body = [UInt8](repeating: 1, count: 2 * Broker.smallMessageBytes)
    try channel.publish(body, key: "cold", isPersistent: true)
    try broker.moveOut(channel)
    broker.broker.exhaustOutput()
    client.peer.roomMade()
    let before = broker.journal.statistics.blocksReadBack
    try channel.consume("cold")
    for _ in 0..<20 {
      broker.drainWorkers()
      try broker.turn { try channel.publish("small", key: "cold") }
    }
    let read = broker.journal.statistics.blocksReadBack - before
    #expect(read >= 1 && read <= 2, "\(read)")
    #expect(client.deliveries().isEmpty)
    broker.broker.relieveOutput()
    broker.work()
    #expect(client.deliveries().count == 21)
  }

  /// How a wait for the disk ends.
  enum End: CaseIterable {
    case read, cancelled, deleted, purged, unreadable
  }

  /// Nobody waits for what is kept for another one that no longer waits for the disk.
  @Test(arguments: End.allCases)
  func whatWasKeptForWhoWaitedForTheDiskIsGivenBack(_ end: End) throws {
    try fill(0..<40)
    // The log is told what is delivered, and of some more, so that nobody has to wait for that as well.
    for _ in 0..<10 { _ = try channel.take("q") }
    try broker.moveOut(channel)
    try channel.declare("hot")
    for number in 0..<3 { try channel.publish("\(number)", key: "hot") }
    channel.setPrefetch(1, isGlobal: true)
    let gate = try Gate(disk, .read, ".lanes", code: end == .unreadable ? EIO : nil)
    try channel.consume("q", tag: "cold")
    broker.turn()
    gate.waitUntilReached()
    try channel.consume("hot", tag: "hot")
    broker.turn()
    #expect(client.deliveries() == [])
    switch end {
    case .read: gate.open()
    case .cancelled: channel.cancel("cold")
    case .deleted: _ = try channel.delete("q")
    case .purged: try channel.purge("q")
    case .unreadable:
      disk.fail(.read, ".lanes")
      gate.open()
    }
    if end == .read || end == .unreadable { broker.work() }
    for _ in 0..<3 { broker.turn() }
    let first = client.deliveries()
    #expect(first.map(\.consumer) == [end == .read ? "cold" : "hot"])
    gate.open()
    broker.work()
    #expect(client.deliveries() == [])
    try channel.acknowledge(0, isMultiple: true)
    broker.turn()
    broker.turn()
    #expect(client.deliveries().map(\.consumer) == ["hot"])
  }
}
