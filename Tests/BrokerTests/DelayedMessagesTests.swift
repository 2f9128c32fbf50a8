import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages that wait for their time are listed and cancelled, wherever they are.
@Suite struct DelayedMessagesTests {
  private final class Box<Value> {
    var value: Value?
  }

  private func declare(_ broker: TestBroker, _ channel: Channel) throws {
    for exchange in ["later", "other"] as [Name] {
      try broker.vhost.declare(
        exchange: exchange, "x-delayed-message", isDurable: true,
        arguments: ["x-delayed-type": .string("topic")])
    }
    try channel.declare("q", isDurable: true)
    try channel.bind("q", to: "later", key: "#")
    try channel.bind("q", to: "other", key: "#")
  }

  private func publish(
    _ body: String, delay: Int64, to exchange: Name = "later", key: Name = "k",
    on channel: Channel, isPersistent: Bool = true
  ) throws {
    var properties = BasicProperties()
    properties.headers = ["x-delay": .int64(delay)]
    try channel.publish(
      body, to: exchange, key: key, properties: properties, isPersistent: isPersistent)
  }

  private func page(
    _ broker: TestBroker, _ peer: Peer, _ selection: DelayedSelection = DelayedSelection(),
    from cursor: DelayedCursor = DelayedCursor(), limit: Int = 1000
  ) throws -> DelayedPage {
    let box = Box<DelayedPage>()
    broker.vhost.listDelayed(selection, from: cursor, atMost: limit, for: peer) { box.value = $0 }
    // Blocks are read back by a thread of the log.
    while box.value == nil { broker.work(1) }
    return try #require(box.value)
  }

  private func list(
    _ broker: TestBroker, _ peer: Peer, _ selection: DelayedSelection = DelayedSelection(),
    limit: Int = 1000
  ) throws -> [DelayedMessage] {
    var messages: [DelayedMessage] = []
    var cursor: DelayedCursor? = DelayedCursor()
    while let from = cursor {
      let page = try page(broker, peer, selection, from: from, limit: limit)
      #expect(page.messages.count <= limit && !page.isIncomplete)
      messages += page.messages
      cursor = try page.next.map { try #require(DelayedCursor($0.text)) }
    }
    return messages
  }

  private func cancel(
    _ broker: TestBroker, _ peer: Peer, _ change: (inout DelayedSelection) -> Void = { _ in }
  ) throws -> DelayedCancellation {
    var selection = DelayedSelection()
    change(&selection)
    let box = Box<DelayedCancellation>()
    broker.vhost.cancelDelayed(selection, for: peer) { box.value = $0 }
    while box.value == nil { broker.work(1) }
    return try #require(box.value)
  }

  private func waiting(_ broker: TestBroker) -> Int { broker.queue("amq.delayed")?.readyCount ?? 0 }

  private static let delays: [Int64] = [
    40, 40, 200, 300, 900, 20_000, 30_000, 40_000, 3_000_000, 7_200_000, 86_400_000, 2_592_000_000,
    31_536_000_000, 315_360_000_000,
  ]

  @Test func allAreListedInTheOrderOfTheirTimes() throws {
    let broker = try TestBroker()
    let client = broker.connect()
    let channel = client.open()
    #expect(try list(broker, client.peer).isEmpty)
    try declare(broker, channel)
    broker.turn()
    let now = broker.broker.now
    for delay in Self.delays.reversed() {
      try publish(String(repeating: "x", count: 5), delay: delay, on: channel)
    }
    try publish("1", delay: 500, to: "other", key: "a.b", on: channel, isPersistent: false)
    for limit in [1, 2, 3, 1000] {
      let found = try list(broker, client.peer, limit: limit).filter { $0.exchange == "later" }
      #expect(found.map { $0.id.due - now } == Self.delays, "limit \(limit)")
      #expect(Set(found.map(\.id)).count == Self.delays.count)
      #expect(found.allSatisfy { $0.key == "k" && $0.bodySize == 5 && $0.isPersistent })
    }
    var selection = DelayedSelection()
    selection.key = "a.b"
    let other = try list(broker, client.peer, selection)
    #expect(other.map(\.exchange) == ["other"] && other[0].bodySize == 1 && !other[0].isPersistent)
    selection.exchange = "later"
    #expect(try list(broker, client.peer, selection).isEmpty)
    #expect(try page(broker, client.peer).waitingCount == Self.delays.count + 1)
  }

  @Test func anIDStaysWhileItsMessageMovesAndOverARestart() throws {
    let broker = try TestBroker()
    let client = broker.connect()
    let channel = client.open()
    try declare(broker, channel)
    try broker.turn { try publish("a", delay: 7_200_000, on: channel) }
    let id = try #require(list(broker, client.peer).first).id
    #expect(DelayedID(id.text) == id)
    for wait in [3_600_000, 3_500_000, 99_000, 900] as [Int64] {
      _ = broker.rest(milliseconds: wait)
      #expect(try list(broker, client.peer).map(\.id) == [id])
    }
    broker.close()
    // Before it is due, if the clock stands still meanwhile.
    let again = try TestBroker(
      in: broker.directory, date: id.due - 50)
    let reader = again.connect()
    #expect(try list(again, reader.peer).map(\.id) == [id])
    #expect(try cancel(again, reader.peer) { $0.ids = [id] }.count == 1)
    _ = again.rest(milliseconds: 1000)
    #expect(again.queue("q")?.readyCount == 0 && waiting(again) == 0)
    again.expectNothingHeld()
  }

  /// What has moved to a nearer place between two pages may come twice, and is never missed.
  @Test func nothingIsMissedThatMovesBetweenPages() throws {
    let broker = try TestBroker()
    let client = broker.connect()
    let channel = client.open()
    try declare(broker, channel)
    let count = 400
    try broker.turn {
      for number in 0..<count {
        try publish("\(number)", delay: 8_000_000 + Int64(number % 40) * 1000, on: channel)
      }
    }
    let all = Set(try list(broker, client.peer).map(\.id))
    #expect(all.count == count)
    var seen: [DelayedID] = []
    var cursor: DelayedCursor? = DelayedCursor()
    while let from = cursor {
      let page = try page(broker, client.peer, from: from, limit: 10)
      seen += page.messages.map(\.id)
      cursor = page.next
      // Their place comes near when half of them were listed.
      _ = broker.rest(milliseconds: seen.count <= count / 2 ? 300_000 : 10_000)
    }
    #expect(seen.count > count, "none has moved")
    #expect(Set(seen) == all && waiting(broker) == count)
  }

  @Test func onlyWhatIsMeantIsCancelled() throws {
    let broker = try TestBroker()
    let client = broker.connect()
    let channel = client.open()
    try declare(broker, channel)
    try broker.turn {
      for number in 0..<30 {
        try publish(
          "\(number)", delay: Int64(number / 3) * 90_000 + 60_000,
          to: number % 3 == 0 ? "other" : "later", key: number % 2 == 0 ? "even" : "odd",
          on: channel, isPersistent: number % 5 != 0)
      }
    }
    let all = try list(broker, client.peer)
    #expect(all.count == 30)
    let some = Set([all[3].id, all[17].id, all[29].id])
    var result = try cancel(broker, client.peer) { $0.ids = some }
    #expect(result.count == 3 && result.missing.isEmpty && result.failure == nil)
    result = try cancel(broker, client.peer) { $0.ids = [all[3].id, all[4].id] }
    #expect(result.count == 1 && result.missing == [all[3].id])
    let left = try list(broker, client.peer)
    #expect(Set(left.map(\.id)) == Set(all.map(\.id)).subtracting(some.union([all[4].id])))
    let wanted = left.count { $0.exchange == "other" && $0.key == "even" }
    result = try cancel(broker, client.peer) {
      $0.exchange = "other"
      $0.key = "even"
    }
    #expect(result.count == wanted && waiting(broker) == left.count - wanted)
    _ = broker.rest(milliseconds: 2_000_000)
    #expect(broker.queue("q")?.readyCount == left.count - wanted)
    try channel.purge("q")
    broker.expectNothingHeld()
  }

  @Test func allAreCancelled() throws {
    let broker = try TestBroker()
    let client = broker.connect()
    let channel = client.open()
    #expect(try cancel(broker, client.peer).count == 0)
    try declare(broker, channel)
    try broker.turn {
      for delay in Self.delays { try publish("x", delay: delay, on: channel) }
    }
    #expect(try cancel(broker, client.peer).count == Self.delays.count)
    #expect(waiting(broker) == 0)
    let again = try broker.crashed()
    #expect(waiting(again) == 0)
    try broker.turn { try publish("new", delay: 10, on: channel) }
    _ = broker.rest(milliseconds: 10)
    #expect(broker.queue("q")?.readyCount == 1)
  }

  /// In the log, or in blocks on disk, of which some are read back; some are cancelled before they moved there.
  @Test(arguments: [false, true], Seeds.all)
  func whatIsCancelledStaysGoneWhereverItWas(isMoved: Bool, seed: UInt64) throws {
    var random = SeededRandom(seed)
    let broker = try TestBroker.moving()
    let client = broker.connect()
    let channel = client.open()
    try declare(broker, channel)
    var bodies: Set<String> = []
    func cancelSome() throws {
      let all = try list(broker, client.peer)
      #expect(all.count == bodies.count)
      let gone = all.filter { _ in random.isOne(in: 4) }
      let result = try cancel(broker, client.peer) { $0.ids = Set(gone.map(\.id)) }
      #expect(result.count == gone.count && result.missing.isEmpty)
      bodies.subtract(gone.map { $0.key.description })
      #expect(waiting(broker) == bodies.count)
    }
    for round in 0..<3 {
      try broker.durableTurn {
        for number in 0..<300 {
          let name = "\(round).\(number)"
          bodies.insert(name)
          try publish(
            String(repeating: "x", count: random.number(0..<1000)),
            delay: 30_000_000 + Int64(random.number(0..<500_000)), key: Name(name), on: channel)
        }
      }
      try cancelSome()
      if isMoved { try broker.moveOut(channel) }
      try cancelSome()
    }
    func expectLeft(_ broker: TestBroker) throws {
      _ = broker.rest(milliseconds: 40_000_000)
      let keys = try broker.connect().open().drain("q").map { $0.message.key.description }
      #expect(keys.count == bodies.count && Set(keys) == bodies, "seed \(seed)")
      broker.expectNothingHeld()
    }
    try expectLeft(try broker.crashed(settings: .moving))
    try cancelSome()
    try expectLeft(try broker.crashed(settings: .moving))
    try expectLeft(try broker.restarted(settings: .moving))
  }

  /// While a round of moving messages to disk is under way.
  @Test(arguments: Seeds.all)
  func whatIsCancelledWhileItMovesToDiskStaysGone(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let broker = try TestBroker.moving()
    let client = broker.connect()
    let channel = client.open()
    try declare(broker, channel)
    var left: Set<String> = []
    for round in 0..<12 {
      try broker.turn {
        for number in 0..<100 {
          let name = "\(round).\(number)"
          left.insert(name)
          try publish(
            String(repeating: "x", count: 1000), delay: 30_000_000, key: Name(name), on: channel)
        }
      }
      let all = try list(broker, client.peer).filter { _ in random.isOne(in: 5) }
      let result = try cancel(broker, client.peer) { $0.ids = Set(all.map(\.id)) }
      #expect(result.count == all.count)
      left.subtract(all.map { $0.key.description })
      #expect(waiting(broker) == left.count, "seed \(seed), round \(round)")
    }
    func expectLeft(_ broker: TestBroker) throws {
      _ = broker.rest(milliseconds: 40_000_000)
      let keys = try broker.connect().open().drain("q").map { $0.message.key.description }
      #expect(keys.count == left.count && Set(keys) == left, "seed \(seed)")
      broker.expectNothingHeld()
    }
    try expectLeft(try broker.crashed(settings: .moving))
    broker.spillTurns()
    try expectLeft(try broker.crashed(settings: .moving))
    try expectLeft(try broker.restarted(settings: .moving))
  }
}
