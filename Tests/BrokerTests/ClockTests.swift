import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Somebody sets the clock: what is done from time to time goes on.
@Suite struct ClockTests {
  private static let hour: Int64 = 3_600_000
  private let body = [UInt8](repeating: 1, count: 4000)

  private func publish(_ count: Int, _ key: Name, _ channel: Channel, _ broker: TestBroker) throws {
    for _ in 0..<count {
      try broker.durableTurn {
        for _ in 0..<30 { try channel.publish(body, key: key, isPersistent: true) }
      }
    }
  }

  @Test(arguments: [-hour, hour])
  func checkpointsAndRoundsGoOn(step: Int64) throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try publish(10, "q", channel, broker)
    broker.spillTurns()
    let before = broker.journal.statistics
    #expect(before.spills > 0 && before.checkpoints > 0)
    broker.setClock(by: step)
    try publish(10, "q", channel, broker)
    broker.spillTurns()
    let after = broker.journal.statistics
    #expect(after.spills > before.spills)
    #expect(after.checkpoints > before.checkpoints)
    #expect(after.segmentsRecycled > before.segmentsRecycled)
    #expect(try channel.drain("q").count == 600)
  }

  @Test(arguments: [-hour, hour])
  func holesAreMade(step: Int64) throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    for name in ["a", "b"] as [Name] { try channel.declare(name, isDurable: true) }
    for _ in 0..<2 {
      for _ in 0..<10 {
        try broker.durableTurn {
          for _ in 0..<60 { try channel.publish(body, key: "a", isPersistent: true) }
          try channel.publish(body, key: "b", isPersistent: true)
        }
      }
      try broker.moveOut(channel)
      let before = try broker.allocatedBytes(".lanes")
      #expect(try channel.drain("a").count == 600)
      try broker.age(channel)
      broker.setClock(by: step)
      broker.advance(milliseconds: Journal.holesMilliseconds + 1)
      broker.work()
      let after = try broker.allocatedBytes(".lanes")
      #expect(after < before / 2, "\(before) bytes became \(after)")
    }
  }

  @Test(arguments: [-hour, hour])
  func filesAreMerged(step: Int64) throws {
    var settings = Journal.Settings.moving
    settings.sparseFilesMin = 4
    let broker = try TestBroker(settings: settings, disk: FaultyDisk())
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    for round in 1...3 {
      for _ in 0..<6 {
        try channel.publish(body, key: "q", isPersistent: true)
        try broker.moveOut(channel)
      }
      broker.work()
      broker.spillTurns()
      broker.work()
      #expect(broker.journal.statistics.laneFilesMerged >= 4 * round)
      broker.setClock(by: step)
    }
    #expect(try channel.drain("q").count == 18)
  }

  @Test(arguments: [-hour, hour])
  func whatCouldNotBeReadIsTriedAgain(step: Int64) throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk, settings: settings)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.publish(body, key: "q", isPersistent: true)
    try broker.moveOut(channel)
    disk.fail(.read, ".lanes")
    try channel.consume("q", isAutomatic: true)
    broker.work(3)
    broker.advance(milliseconds: Broker.unreadableMilliseconds)
    broker.work(3)
    broker.setClock(by: step)
    disk.set(nil)
    broker.advance(milliseconds: Broker.unreadableMilliseconds)
    broker.work()
    #expect(broker.queue("q")?.messageCount == 0)
  }
}
