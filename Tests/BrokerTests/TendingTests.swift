import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What the broker has to do by itself is done while no client says anything, and when nothing is to be done
/// there are no turns.
@Suite struct TendingTests {
  private static let hour: Int64 = 3_600_000
  private let disk = FaultyDisk()
  private let body = [UInt8](repeating: 1, count: 4000)

  /// Some messages wait, and what is older than the log's window is to be moved.
  private func backlog(_ settings: Journal.Settings = .moving) throws -> (TestBroker, Channel) {
    let broker = try TestBroker(settings: settings, disk: disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    for _ in 0..<20 { try channel.publish(body, key: "q", isPersistent: true) }
    broker.durableTurn()
    return (broker, channel)
  }

  @Test func nothingWakesABrokerThatHasNothingToDo() throws {
    let (broker, channel) = try backlog()
    try broker.moveOut(channel)
    for _ in 0..<20 { try channel.publish(body, key: "q", isPersistent: true) }
    broker.durableTurn()
    #expect(broker.rest(milliseconds: 10_000) < 20)
    #expect(broker.rest(milliseconds: Self.hour) == 0)
    #expect(broker.broker.nextDue == nil)
    #expect(broker.queue("q")?.readyCount == 40)
  }

  @Test func aRoundThatFailedIsTriedAgain() throws {
    let (broker, channel) = try backlog()
    disk.fail(.sync, ".lanes", count: 3)
    try broker.age(channel)
    let before = broker.journal.statistics.spills
    #expect(broker.rest(milliseconds: 5 * Journal.spillRetryMilliseconds) < 60)
    #expect(broker.takeProblem()?.hasPrefix("messages could not be moved") == true)
    #expect(broker.journal.statistics.spills > before && broker.hasMoved)
    #expect(broker.rest(milliseconds: Self.hour) == 0)
  }

  @Test func aCheckpointThatFailedIsTriedAgain() throws {
    let (broker, channel) = try backlog()
    try broker.moveOut(channel)
    _ = broker.rest(milliseconds: 10_000)
    let before = broker.journal.statistics
    disk.fail(.rename, ".checkpoint", count: 3)
    // The segments that this leaves behind go with a checkpoint alone.
    try broker.age(channel)
    #expect(broker.rest(milliseconds: 5 * Journal.checkpointRetryMilliseconds) < 60)
    #expect(broker.takeProblem()?.hasPrefix("a checkpoint could not be written") == true)
    #expect(broker.journal.statistics.checkpoints > before.checkpoints)
    #expect(!broker.journal.wantsCheckpoint(now: .max))
    #expect(broker.rest(milliseconds: Self.hour) == 0)
  }

  /// Tries become rare, and the end of the shortage is found.
  @Test func aBatchThatFoundNoSpaceIsTriedAgain() throws {
    let tries = FaultyDisk.Counter()
    disk.set { operation, _ in
      guard operation == .allocate else { return nil }
      tries.next()
      return 28
    }
    let broker = try TestBroker(settings: .moving, disk: disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    let turns = broker.rest(milliseconds: 60_000)
    #expect(broker.journal.stuckReason != nil)
    #expect((10...40).contains(tries.count), "\(tries.count) tries")
    #expect((60_000 / Journal.shortageLookMilliseconds...400).contains(Int64(turns)), "\(turns)")
    disk.set(nil)
    _ = broker.rest(milliseconds: 2 * Backoff.intervalMax)
    #expect(broker.journal.spaceProblem == nil && !broker.journal.hasUncommitted)
    #expect(broker.rest(milliseconds: Self.hour) == 0)
  }

  @Test func whatCouldNotBeReadIsTriedAgainNowAndThen() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    let (broker, channel) = try backlog(settings)
    try broker.moveOut(channel)
    _ = broker.rest(milliseconds: 10_000)
    disk.fail(.read, ".lanes")
    try broker.turn { try channel.consume("q", isAutomatic: true) }
    let turns = broker.rest(milliseconds: 10 * Broker.unreadableMilliseconds)
    #expect((10...60).contains(turns), "\(turns) turns")
    disk.set(nil)
    _ = broker.rest(milliseconds: Broker.unreadableMilliseconds)
    #expect(broker.queue("q")?.messageCount == 0)
    _ = broker.rest(milliseconds: 10_000)
    #expect(broker.rest(milliseconds: Self.hour) == 0)
  }

  @Test func holesAreMade() throws {
    let broker = try TestBroker.moving(disk)
    let channel = broker.connect().open()
    for name in ["a", "b"] as [Name] { try channel.declare(name, isDurable: true) }
    for _ in 0..<20 {
      try broker.durableTurn {
        for _ in 0..<60 { try channel.publish(body, key: "a", isPersistent: true) }
        try channel.publish(body, key: "b", isPersistent: true)
      }
    }
    try broker.moveOut(channel)
    let before = try broker.allocatedBytes(".lanes")
    try broker.turn { try channel.purge("a") }
    _ = broker.rest(milliseconds: Journal.holesMilliseconds / 2)
    #expect(try broker.allocatedBytes(".lanes") > before / 2)
    _ = broker.rest(milliseconds: Journal.holesMilliseconds)
    #expect(try broker.allocatedBytes(".lanes") < before / 2)
    _ = broker.rest(milliseconds: 10_000)
    #expect(broker.rest(milliseconds: Self.hour) == 0)
  }

  @Test func filesOfWhichLittleIsLeftAreMerged() throws {
    var settings = Journal.Settings.moving
    settings.sparseFilesMin = 4
    let broker = try TestBroker.moving(disk, settings: settings)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    for _ in 0..<6 {
      try channel.publish(body, key: "q", isPersistent: true)
      try broker.age(channel)
    }
    _ = broker.rest(milliseconds: 20_000)
    #expect(broker.journal.statistics.laneFilesMerged >= 4)
    #expect(try broker.files(".lanes").count <= 4)
    #expect(broker.rest(milliseconds: Self.hour) == 0)
  }

  @Test func emptyQueuesGiveTheirMemoryBack() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    for index in 0..<100 { try channel.declare(Name("i\(index)")) }
    try broker.turn {
      for index in 0..<100 { try channel.publish("m", key: Name("i\(index)")) }
    }
    for index in 0..<100 { _ = try channel.drain(Name("i\(index)")) }
    #expect(broker.queue("i7")?.lane.waiting.byteCount == 128)
    #expect(broker.rest(milliseconds: 10_000) < 10)
    for index in 0..<100 {
      #expect(broker.queue(Name("i\(index)"))?.lane.waiting.byteCount == 0)
    }
    #expect(broker.rest(milliseconds: Self.hour) == 0)
  }
}
