import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What happens to messages while they move, and after they have.
@Suite struct SpillOutstandingTests {
  enum Moment: CaseIterable { case during, after }

  enum Change: CaseIterable {
    case acknowledge, acknowledgeAll, drop, requeueOne, requeueAll, recover, closeChannel
    case purge, delete, takeAll
  }

  /// Ten messages, of which the first six are unacknowledged, the second and fourth not any more.
  @Test(arguments: Moment.allCases, Change.allCases)
  func movedMessagesAreSettledLikeOthers(moment: Moment, change: Change) throws {
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk)
    let client = broker.connect()
    let channel = client.open()
    let publisher = client.open(2)
    try publisher.declare("q", isDurable: true)
    for number in 0..<10 { try publisher.publish("\(number)", key: "q", isPersistent: true) }
    var tags: [UInt64] = []
    for _ in 0..<6 { tags.append(try #require(try channel.take("q", isAutomatic: false)).tag) }
    try channel.acknowledge(tags[1], isMultiple: false)
    try channel.acknowledge(tags[3], isMultiple: false)
    broker.durableTurn()
    if moment == .during {
      let gate = try Gate(disk, .rename, ".lanes")
      try broker.age(publisher)
      gate.waitUntilReached()
      #expect(broker.journal.isSpilling)
      try Self.make(change, channel, tags)
      broker.turn()
      gate.open()
      broker.spillTurns()
    } else {
      try broker.moveOut(publisher)
      try Self.make(change, channel, tags)
      broker.durableTurn()
    }
    #expect(broker.journal.statistics.spills > 0)
    try Self.expect(change, broker, client)
  }

  private static func make(_ change: Change, _ channel: Channel, _ tags: [UInt64]) throws {
    switch change {
    case .acknowledge: try channel.acknowledge(tags[2], isMultiple: false)
    case .acknowledgeAll: try channel.acknowledge(tags[5], isMultiple: true)
    case .drop: try channel.reject(tags[2], isMultiple: false, requeues: false)
    case .requeueOne: try channel.reject(tags[4], isMultiple: false, requeues: true)
    case .requeueAll: try channel.reject(tags[5], isMultiple: true, requeues: true)
    case .recover: channel.recover()
    case .closeChannel: channel.close()
    case .purge: try channel.purge("q")
    case .delete: try channel.delete("q")
    case .takeAll: _ = try channel.drain("q")
    }
  }

  private static func expect(_ change: Change, _ broker: TestBroker, _ client: TestClient) throws {
    // What is ready, and what a crash leaves: the unacknowledged first.
    var ready = (6..<10).map { "\($0)" }
    var left = ["0", "2", "4", "5"]
    switch change {
    case .acknowledge, .drop: left = ["0", "4", "5"]
    case .acknowledgeAll: left = []
    case .requeueOne:
      ready = ["4"] + ready
      left = ["0", "2", "5"]
    case .requeueAll, .recover, .closeChannel:
      ready = left + ready
      left = []
    case .purge, .takeAll: ready = []
    case .delete: (ready, left) = ([], [])
    }
    broker.quietTurn()
    let again = try broker.crashed(settings: .moving)
    if change == .delete {
      #expect(again.queue("q") == nil)
    } else {
      let taken = try again.connect().open().drain("q")
      #expect(taken.map(\.text) == (left + ready).sorted())
      #expect(taken.filter { Int($0.text)! < 6 }.allSatisfy { $0.isRedelivered })
    }
    again.expectNothingHeld()
    let reader = client.open(3)
    if change != .delete {
      #expect(broker.queue("q")?.readyCount == ready.count)
      let taken = try reader.drain("q")
      #expect(taken.map(\.text) == ready)
      #expect(taken.allSatisfy { $0.isRedelivered == (Int($0.text)! < 6) })
    }
    client.close()
    if change != .delete {
      #expect(try broker.connect().open().drain("q").map(\.text) == left)
    }
    broker.expectNothingHeld()
    broker.work()
    #expect(try broker.files(".lanes") == [])
    #expect(broker.takeProblem() == nil)
  }

  @Test func aDeletedQueueWithUnacknowledgedMessagesDoesNotKeepTheLog() throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.publish("old", key: "q", isPersistent: true)
    let old = try #require(try channel.take("q", isAutomatic: false))
    try channel.delete("q")
    try broker.moveOut(channel)
    try broker.moveOut(channel)
    #expect(broker.hasMoved)
    #expect(try broker.files(".segment").count < 8)
    #expect(broker.takeProblem() == nil, "nothing is wrong")
    try channel.acknowledge(old.tag, isMultiple: false)
    #expect(broker.journal.blocks[Int(broker.journal.forgotten)].references == 1)
  }

  @Test func aMessageOfAQueueThatNeedNotSurviveLeavesTheLogToo() throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declare("durable", isDurable: true)
    try channel.declare("not")
    for name in ["durable", "not"] as [Name] { try channel.bind(name, to: "amq.fanout") }
    let texts = (0..<20).map { "\($0)" }
    for text in texts { try channel.publish(text, to: "amq.fanout", key: "", isPersistent: true) }
    #expect(try channel.drain("durable").map(\.text) == texts)
    try broker.moveOut(channel)
    #expect(broker.hasMoved)
    #expect(try broker.files(".scratch").count == 1)
    #expect(try broker.files(".lanes") == [])
    #expect(try channel.drain("not").map(\.text) == texts)
    broker.expectNothingHeld()
  }
}
