import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// The log and the lane files take no more space than what waits needs.
@Suite struct LogSpaceTests {
  enum Hostage: CaseIterable {
    case unacknowledged, waiting, returned, ofTransientQueue, ofDeletedQueue
  }

  private static var settings: Journal.Settings {
    var settings = Journal.Settings.moving
    settings.segmentBytes = 64 << 10
    settings.windowBytes = 128 << 10
    return settings
  }

  @Test(arguments: Hostage.allCases)
  func oneMessageDoesNotKeepTheLog(hostage: Hostage) throws {
    let broker = try TestBroker(settings: Self.settings, disk: FaultyDisk())
    let channel = broker.connect().open()
    let owner = broker.connect().open()
    try owner.declare("old", isDurable: hostage != .ofTransientQueue)
    for name in ["q", "other"] as [Name] { try channel.declare(name, isDurable: true) }
    try owner.bind("old", to: "amq.fanout")
    try owner.bind("other", to: "amq.fanout")
    try owner.publish("old", to: "amq.fanout", key: "", isPersistent: true)
    _ = try owner.drain("other")
    switch hostage {
    case .unacknowledged: _ = try owner.take("old", isAutomatic: false)
    case .returned:
      _ = try owner.take("old", isAutomatic: false)
      owner.recover()
    case .ofDeletedQueue:
      _ = try owner.take("old", isAutomatic: false)
      try owner.delete("old")
    case .waiting, .ofTransientQueue: break
    }
    var segmentsMax = 0
    let body = [UInt8](repeating: 1, count: 15_000)
    for round in 0..<300 {
      try broker.turn {
        for _ in 0..<4 { try channel.publish(body, key: "q", isPersistent: true) }
        try channel.purge("q")
      }
      broker.drainWorkers()
      if round % 10 == 0 { segmentsMax = max(segmentsMax, try broker.files(".segment").count) }
    }
    broker.spillTurns()
    #expect(broker.journal.statistics.segmentsRecycled > 250)
    #expect(segmentsMax < 14, "\(segmentsMax) segments")
    #expect(broker.takeProblem() == nil)
    try Self.expect(hostage, broker, owner)
  }

  private static func expect(
    _ hostage: Hostage, _ broker: TestBroker, _ owner: Channel
  ) throws {
    guard hostage != .ofDeletedQueue else { return }
    if hostage == .unacknowledged {
      try owner.acknowledge(0, isMultiple: true)
      #expect(try owner.take("old") == nil)
    } else {
      if hostage != .ofTransientQueue {
        broker.quietTurn()
        let again = try broker.crashed(settings: settings)
        #expect(try again.connect().open().drain("old").map(\.text) == ["old"])
      }
      #expect(try owner.take("old")?.text == "old")
    }
    broker.expectNothingHeld()
  }

  @Test func spaceOfWhatWasConsumedComesBackWhileTheRestLives() throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    for name in ["a", "b"] as [Name] { try channel.declare(name, isDurable: true) }
    let body = [UInt8](repeating: 1, count: 4000)
    for _ in 0..<20 {
      try broker.durableTurn {
        for _ in 0..<60 { try channel.publish(body, key: "a", isPersistent: true) }
        for _ in 0..<3 { try channel.publish(body, key: "b", isPersistent: true) }
      }
    }
    try broker.moveOut(channel)
    let before = try broker.allocatedBytes(".lanes")
    #expect(before > 4_800_000)
    #expect(try channel.drain("a").count == 1200)
    try broker.age(channel)
    broker.work()
    broker.advance(milliseconds: Journal.holesMilliseconds + 1)
    broker.work()
    let after = try broker.allocatedBytes(".lanes")
    #expect(after < 1_000_000, "\(before) bytes became \(after)")
    #expect(try broker.crashed(settings: .moving).queue("b")?.readyCount == 60)
    #expect(try channel.drain("b").map(\.message.body) == Array(repeating: body, count: 60))
    broker.durableTurn()
    broker.work()
    #expect(try broker.files(".lanes") == [])
    broker.expectNothingHeld()
  }

  @Test(arguments: [FaultyDisk.Operation.punch, .remove])
  func whatCouldNotBeGivenBackIsTriedAgain(operation: FaultyDisk.Operation) throws {
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk)
    let channel = broker.connect().open()
    let names = ["a", "b"] as [Name]
    for name in names { try channel.declare(name, isDurable: true) }
    let body = [UInt8](repeating: 1, count: 4000)
    for _ in 0..<50 {
      for name in names { try channel.publish(body, key: name, isPersistent: true) }
    }
    try broker.moveOut(channel)
    let before = try broker.allocatedBytes(".lanes")
    #expect(before > 400_000)
    disk.fail(operation, ".lanes")
    for name in operation == .punch ? ["a"] : names {
      #expect(try channel.drain(name).count == 50)
    }
    broker.durableTurn()
    broker.work()
    broker.advance(milliseconds: Journal.holesMilliseconds + 1)
    broker.work()
    #expect(try #require(broker.takeProblem()).hasPrefix("space could not be given back"))
    #expect(try broker.allocatedBytes(".lanes") == before)
    disk.set(nil)
    broker.advance(milliseconds: Journal.holesMilliseconds + 1)
    broker.work()
    #expect(broker.takeProblem() == nil)
    #expect(try broker.allocatedBytes(".lanes") < before / 3 * 2)
    if operation == .remove { #expect(try broker.files(".lanes") == []) }
  }

  @Test func littleThatIsLeftOfManyFilesBecomesOne() throws {
    var settings = Journal.Settings.moving
    settings.sparseFilesMin = 4
    let broker = try TestBroker(settings: settings, disk: FaultyDisk())
    let channel = broker.connect().open()
    let owner = broker.connect().open()
    try channel.declare("q", isDurable: true)
    var expected: [String] = []
    for round in 0..<12 {
      expected.append("\(round):" + String(repeating: "x", count: 2000))
      try channel.publish(expected[round], key: "q", isPersistent: true)
      _ = try owner.take("q", isAutomatic: false)
      try broker.moveOut(channel)
    }
    broker.work()
    broker.spillTurns()
    broker.work()
    #expect(broker.journal.statistics.laneFilesMerged >= 4)
    #expect(try broker.files(".lanes").count <= 4)
    let again = try broker.crashed(settings: settings)
    #expect(try again.connect().open().drain("q").map(\.text) == expected)
    again.expectNothingHeld()
    owner.recover()
    #expect(try channel.drain("q").map(\.text) == expected)
    broker.expectNothingHeld()
    broker.work()
    #expect(try broker.files(".lanes") == [])
  }

  @Test func aMergeThatFailsOrFindsDamageChangesNothing() throws {
    var settings = Journal.Settings.moving
    settings.sparseFilesMin = 4
    settings.cacheBytes = 0
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk, settings: settings)
    let channel = broker.connect().open()
    let names = (0..<4).map { Name("q\($0)") }
    let body = [UInt8](repeating: 7, count: 3000)
    for name in names { try channel.declare(name, isDurable: true) }
    for (index, name) in names.enumerated() {
      try channel.publish(body, key: name, isPersistent: true)
      if index == 3 { disk.fail(.sync, ".lanes", first: 2) }
      try broker.moveOut(channel)
    }
    broker.work()
    #expect(broker.takeProblem()?.hasPrefix("lane files could not be merged") == true)
    #expect(try broker.files(".lanes").count == 4)
    disk.set(nil)
    let second = try #require(try broker.files(".lanes").dropFirst().first)
    try damage(broker.directory.path + "/" + second, at: 1500)
    broker.advance(milliseconds: Journal.mergeRetryMilliseconds + 1)
    broker.work()
    broker.spillTurns()
    broker.work()
    #expect(
      broker.takeProblem()
        == "\(broker.directory.path)/\(second) is damaged and was not merged with others")
    #expect(broker.journal.statistics.laneFilesMerged == 3)
    #expect(try broker.files(".lanes").count == 2, "nothing has to be logged for the others to go")
    #expect(mistake { _ = try channel.take("q1") } == .unreadable(queue: "q1"))
    for name in names where name != "q1" {
      #expect(try channel.drain(name).map(\.message.body) == [body])
    }
    let again = try broker.restarted(settings: settings)
    #expect(again.queue("q1")?.readyCount == 1)
  }

  @Test func whatIsConsumedGoesThoughNothingIsLogged() throws {
    var settings = Journal.Settings.moving
    settings.isSynced = false
    let broker = try TestBroker(settings: settings, disk: FaultyDisk())
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    for number in 0..<40 {
      try channel.declare(Name("another-queue-\(number)"), isDurable: true)
      try channel.publish([UInt8](repeating: 1, count: 4000), key: "q", isPersistent: true)
    }
    try broker.moveOut(channel)
    broker.advance(milliseconds: 2 * Journal.checkpointRetryMilliseconds)
    broker.work()
    #expect(try broker.files(".lanes").count > 0)
    let checkpoints = broker.journal.statistics.checkpoints
    try channel.purge("q")
    for _ in 0..<4 {
      broker.advance(milliseconds: 2 * Journal.checkpointRetryMilliseconds)
      broker.work()
    }
    #expect(try broker.files(".lanes") == [])
    #expect(broker.journal.statistics.checkpoints <= checkpoints + 2)
    broker.expectNothingHeld()
  }

  // MARK: Write amplification

  @Test func whatIsConsumedPromptlyIsWrittenOnce() throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.consume("q", isAutomatic: true)
    let body = [UInt8](repeating: 1, count: 4000)
    for _ in 0..<100 {
      try broker.durableTurn {
        for _ in 0..<10 { try channel.publish(body, key: "q", isPersistent: true) }
      }
    }
    #expect(broker.queue("q")?.readyCount == 0)
    #expect(broker.journal.statistics.bytesCommitted > 4_000_000)
    #expect(broker.journal.statistics.writeAmplification == 1)
  }

  @Test func aBacklogIsWrittenTwice() throws {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    let body = [UInt8](repeating: 1, count: 4000)
    for _ in 0..<100 {
      try broker.turn {
        for _ in 0..<10 { try channel.publish(body, key: "q", isPersistent: true) }
      }
      broker.drainWorkers()
    }
    broker.spillTurns()
    let amplification = broker.journal.statistics.writeAmplification
    #expect(amplification > 1.7 && amplification < 2.1, "\(amplification)")
  }
}
