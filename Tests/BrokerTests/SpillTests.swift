import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages that wait move into lane files, and nothing else changes.
@Suite struct SpillTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving()
    channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.declare("p", isDurable: true)
  }

  private func afterCrash() throws -> (TestBroker, Channel) {
    broker.quietTurn()
    let crashed = try broker.crashed(settings: .moving)
    broker.atClose.append { crashed.close() }
    return (crashed, crashed.connect().open())
  }

  private func nextRun(_ name: Name) -> LaneRun? {
    guard let queue = broker.queue(name) else { return nil }
    return queue.lane.waiting.nextRun
  }

  @Test(arguments: [0, 1, 1000, 33_000, 261_000, 262_144, 300_000, 1 << 20, 3_500_000])
  func messagesOfAnySizeMove(size: Int) throws {
    func body(_ number: Int) -> [UInt8] {
      (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8) &+ number) }
    }
    let count = size > 1 << 20 ? 2 : 5
    for number in 0..<count {
      try channel.publish(body(number), key: "q", isPersistent: true)
      try channel.publish("\(number)", key: "p", isPersistent: true)
    }
    try broker.moveOut(channel)
    #expect(broker.journal.statistics.spills > 0)
    #expect(broker.hasMoved)
    #expect(broker.queue("q")?.readyCount == count)
    let (again, next) = try afterCrash()
    #expect(again.recoveredCount == 2 * count)
    for (broker, channel) in [(again, next), (broker, channel)] {
      #expect(try channel.drain("q").map(\.message.body) == (0..<count).map(body))
      #expect(try channel.drain("p").map(\.text) == (0..<count).map { "\($0)" })
      broker.expectNothingHeld()
      #expect(broker.takeProblem() == nil)
    }
  }

  @Test func eachQueueHasItsOwnCopyWithoutDestinations() throws {
    let names = (0..<40).map { Name("q\($0)") }
    for name in names {
      try channel.declare(name, isDurable: true)
      try channel.bind(name, to: "amq.fanout")
    }
    let texts = (0..<5).map { "\($0):" + String(repeating: "x", count: 500) }
    for text in texts { try channel.publish(text, to: "amq.fanout", key: "k", isPersistent: true) }
    try broker.moveOut(channel)
    // A record has 32 bytes before its names; each destination had 12 behind the body.
    let size = Record.padded(32 + 12 + 2 + 15 + 503)
    let expected = names.count * (16 + 5 * (16 + size))
    #expect(broker.journal.statistics.bytesSpilled < expected + 1000)
    let run = try #require(nextRun("q3"))
    #expect(run.count == 5 && run.first == 1 && run.last == 5)
    broker.journal.load(run.block)
    broker.turns { broker.journal.isResident(run.block) }
    broker.journal.forEachInLane(run.block, from: 0) { entry in
      let record = broker.journal.pointer(entry.location)
      #expect(record.map { MessageView($0).destinationCount } == 0)
    }
    for name in names[1...] { try channel.purge(name) }
    let (again, next) = try afterCrash()
    #expect(try next.drain("q0").map(\.text) == texts)
    #expect(try next.drain("q1").map(\.text) == [])
    again.expectNothingHeld()
    #expect(try channel.drain("q0").map(\.message.key) == Array(repeating: "k", count: 5))
    broker.expectNothingHeld()
  }

  @Test func messagesThatNeedNotSurviveStandBetweenThoseThatDo() throws {
    for number in 0..<100 {
      try channel.publish("\(number)", key: "q", isPersistent: number % 3 != 0)
    }
    try broker.moveOut(channel)
    #expect(broker.hasMoved)
    #expect(broker.queue("q")?.readyCount == 100)
    let (again, next) = try afterCrash()
    let durable = (0..<100).filter { $0 % 3 != 0 }.map { "\($0)" }
    #expect(again.queue("q")?.readyCount == durable.count)
    #expect(try next.drain("q").map(\.text) == durable)
    again.expectNothingHeld()
    #expect(try channel.drain("q").map(\.text) == (0..<100).map { "\($0)" })
    broker.expectNothingHeld()
  }

  @Test func whatIsPublishedMeanwhileComesBehind() throws {
    var expected: [String] = []
    for round in 0..<6 {
      for number in 0..<50 {
        expected.append("\(round):\(number)")
        try channel.publish(expected[expected.count - 1], key: "q", isPersistent: true)
      }
      try broker.moveOut(channel)
      if round % 2 == 1 {
        for _ in 0..<70 { #expect(try channel.take("q")?.text == expected.removeFirst()) }
      }
      #expect(broker.queue("q")?.readyCount == expected.count)
    }
    #expect(broker.journal.laneFiles.count > 1)
    let (again, next) = try afterCrash()
    #expect(try next.drain("q").map(\.text) == expected)
    again.expectNothingHeld()
    #expect(try channel.drain("q").map(\.text) == expected)
    broker.expectNothingHeld()
    broker.work()
    #expect(try broker.files(".lanes") == [], "nothing of them is needed")
  }

  @Test func transientMessagesMoveAboveTheirLimit() throws {
    var settings = Journal.Settings.moving
    settings.transientBytesMax = 512 << 10
    let broker = try TestBroker(settings: settings, disk: FaultyDisk())
    let channel = broker.connect().open()
    try channel.declare("q")
    let texts = (0..<400).map { "\($0):" + String(repeating: "x", count: 10_000) }
    for text in texts {
      try broker.turn { try channel.publish(text, key: "q") }
      broker.drainWorkers()
    }
    broker.spillTurns()
    #expect(try broker.files(".scratch").count > 0)
    #expect(try broker.files(".lanes") == [])
    #expect(broker.journal.transientBytes <= 1 << 20)
    #expect(broker.journal.memoryBytes < 3 << 20)
    let copy = try broker.crashed(settings: settings)
    #expect(try copy.files(".scratch") == [], "nothing after a restart")
    #expect(try channel.drain("q").map(\.text) == texts)
    broker.durableTurn()
    broker.work()
    #expect(try broker.files(".scratch") == [])
    broker.expectNothingHeld()
  }

  // MARK: Failures

  @Test(arguments: [
    (FaultyDisk.Operation.open, ".lanes"), (.write, ".lanes"), (.sync, ".lanes"),
    (.rename, ".lanes"), (.read, ".segment"),
  ])
  func aRoundThatFailsIsTriedAgainLater(operation: FaultyDisk.Operation, part: String) throws {
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    let texts = (0..<300).map { "\($0):" + String(repeating: "x", count: 1000) }
    broker.durableTurn()
    disk.fail(operation, part, code: 28)
    for text in texts { try channel.publish(text, key: "q", isPersistent: true) }
    try broker.age(channel)
    broker.work(2)
    let problem = try #require(broker.takeProblem())
    #expect(problem.hasPrefix("messages could not be moved out of the log"))
    #expect(problem.hasSuffix("No space left on device"))
    #expect(broker.journal.statistics.spills == 0)
    broker.work(3)
    #expect(broker.takeProblem() == nil, "it is told once and not tried again at once")
    #expect(broker.queue("q")?.readyCount == texts.count)
    #expect(!broker.journal.isCongested(for: broker.journal.endPosition))
    let orphaned = try broker.crashed(settings: .moving)
    #expect(try orphaned.files(".new") == [])
    #expect(try orphaned.connect().open().drain("q").map(\.text) == texts)
    disk.set(nil)
    broker.advance(milliseconds: Journal.spillRetryMilliseconds + 1)
    broker.spillTurns()
    #expect(broker.journal.statistics.spills > 0)
    #expect(broker.hasMoved)
    #expect(broker.takeProblem() == nil)
    #expect(try channel.drain("q").map(\.text) == texts)
    broker.expectNothingHeld()
  }

  @Test func aFileThatCouldNotBeTakenBackIsGoneAfterTheNextStart() throws {
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    for number in 0..<100 { try channel.publish("\(number)", key: "q", isPersistent: true) }
    disk.set { operation, path in
      FaultyDisk.contains(path, ".lanes") && [.sync, .remove].contains(operation) ? 5 : nil
    }
    try broker.age(channel)
    broker.work()
    #expect(try broker.files(".new").count == 1)
    disk.set(nil)
    broker.advance(milliseconds: Journal.spillRetryMilliseconds + 1)
    broker.spillTurns()
    #expect(try broker.files(".lanes").count == 1, "the next round's file is another")
    let again = try broker.restarted(settings: .moving)
    #expect(try again.files(".new") == [])
    #expect(
      try again.connect().open().drain("q").map(\.text) == (0..<100).map { "\($0)" })
  }

  /// The queue stays where it is from the damage on, which is said once; all else moves, and what it
  /// has in the log is kept for the repair.
  @Test func whatIsDamagedIsSetAside() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    let broker = try TestBroker.moving(settings: settings)
    let channel = broker.connect().open()
    for name in ["q", "p"] as [Name] { try channel.declare(name, isDurable: true) }
    try channel.publish("before", key: "q", isPersistent: true)
    broker.durableTurn()
    let position = broker.journal.endPosition
    try channel.publish([UInt8](repeating: 9, count: 4000), key: "q", isPersistent: true)
    try channel.publish("behind", key: "q", isPersistent: true)
    try channel.publish("other", key: "p", isPersistent: true)
    broker.durableTurn()
    // Not its header, so that only the checksum can tell.
    try damage(
      broker.directory.path + "/" + SegmentFiles.name(0),
      at: SegmentHeader.pageBytes + position + 2000)
    try broker.moveOut(channel)
    #expect(
      broker.takeProblem()
        == "queue 'q' is stopped where the record at log position \(position), in "
        + broker.directory.path + "/" + SegmentFiles.name(0) + ", is damaged; stop the broker and"
        + " run `martlet journal repair`")
    for _ in 0..<5 {
      try channel.publish("another", key: "p", isPersistent: true)
      try broker.moveOut(channel)
    }
    #expect(broker.takeProblem() == nil, "it is said once")
    #expect(broker.journal.statistics.spills > 3, "others go on")
    #expect(!broker.journal.isCongested(for: broker.journal.endPosition))
    #expect(broker.journal.segments.first == 0)
    #expect(try channel.drain("p").count == 6)
    #expect(try channel.take("q")?.text == "before")
    #expect(mistake { _ = try channel.take("q") } == .unreadable(queue: "q"))
    #expect(broker.queue("q")?.readyCount == 2)
    broker.durableTurn()
    let error = #expect(throws: JournalError.self) { _ = try broker.crashed(settings: settings) }
    #expect(error?.isDamage == true)
    // The medium can have been read wrongly.
    try damage(
      broker.directory.path + "/" + SegmentFiles.name(0),
      at: SegmentHeader.pageBytes + position + 2000)
    let again = try broker.crashed(settings: settings)
    #expect(try again.connect().open().drain("q").map(\.message.body.count) == [4000, 6])
    try channel.purge("q")
    try broker.moveOut(channel)
    #expect(broker.journal.segments.first > 0, "nothing keeps it")
  }

  /// A block of the log that was open when the round began is read from memory; it may be dropped
  /// when the round is over, like others.
  @Test func whatARoundReadFromMemoryLeavesItAfterwards() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    settings.transientBytesMax = 0
    settings.windowBytes = 8 << 20
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk, settings: settings)
    let channel = broker.connect().open()
    for name in ["q", "p"] as [Name] { try channel.declare(name, isDurable: true) }
    let gate = try Gate(disk, .rename, ".lanes")
    try broker.turn {
      try channel.publish("first", key: "q", isPersistent: true)
      try channel.publish("other", key: "p", isPersistent: true)
      for _ in 0..<30 { try channel.publish([UInt8](repeating: 1, count: 20_000), key: "q") }
    }
    gate.waitUntilReached()
    let queue = try #require(broker.queue("p"))
    let next = queue.lane.waiting.first
    let block = try #require(next).location.block
    #expect(broker.journal.isResident(block))
    try broker.age(channel)
    gate.open()
    broker.spillTurns()
    #expect(broker.journal.statistics.spills == 1)
    #expect(!broker.journal.isResident(block))
    #expect(try channel.drain("q").count == 31)
    #expect(try channel.drain("p").map(\.text) == ["other"])
    broker.expectNothingHeld()
  }

  // MARK: Expiry

  /// By the property that messages come with; nobody acts on it yet.
  @Test func aBlockKnowsWhenTheFirstOfItsMessagesExpires() throws {
    var properties = BasicProperties()
    let now = UInt64(broker.broker.now)
    for life in ["60000", "5000", nil, "70000"] as [Name?] {
      properties.expiration = life
      try channel.publish("m", key: "q", properties: properties, isPersistent: true)
    }
    try channel.publish("stays", key: "p", isPersistent: true)
    try broker.moveOut(channel)
    #expect(nextRun("q")?.earliestExpiry == now + 5000)
    #expect(nextRun("p")?.earliestExpiry == LaneBlock.neverExpires)
    let (again, _) = try afterCrash()
    #expect(again.queue("q")?.lane.waiting.nextRun?.earliestExpiry == now + 5000)
    #expect(again.queue("p")?.lane.waiting.nextRun?.earliestExpiry == LaneBlock.neverExpires)
  }

  // MARK: Congestion

  @Test func publishersWaitWhileTooMuchHasNotMoved() throws {
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    let gate = try Gate(disk, .rename, ".lanes")
    try channel.publish("old", key: "q", isPersistent: true)
    try broker.age(channel)
    gate.waitUntilReached()
    #expect(broker.journal.isSpilling)
    #expect(broker.journal.isCongested(for: broker.journal.endPosition))
    #expect(!broker.journal.isCongested(for: 0), "who has nothing in the log does not wait for it")
    gate.open()
    broker.spillTurns()
    #expect(!broker.journal.isCongested(for: broker.journal.endPosition))
    #expect(try channel.drain("q").map(\.text) == ["old"])
  }

  @Test func publishersDoNotWaitWhileRoundsFail() throws {
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    disk.fail(.sync, ".lanes")
    try channel.publish("old", key: "q", isPersistent: true)
    try broker.age(channel)
    broker.work()
    broker.advance(milliseconds: Journal.spillRetryMilliseconds + 1)
    broker.turn()
    #expect(broker.journal.isSpilling)
    #expect(!broker.journal.isCongested(for: broker.journal.endPosition))
    broker.work()
  }
}
