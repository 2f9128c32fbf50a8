import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A queue with `x-max-length-bytes` knows right after a start how many bytes it has, wherever they stand.
@Suite struct ByteCountRecoveryTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving()
    channel = broker.connect().open()
  }

  private func declare(
    _ broker: TestBroker, bytesMax: Int = 1 << 30, _ more: FieldTable = [:]
  ) throws {
    var arguments: FieldTable = ["x-max-length-bytes": .int64(Int64(bytesMax))]
    arguments.entries += more.entries
    try broker.connect().open().declare("q", isDurable: true, arguments: arguments)
  }

  /// Every message says its number, and has another size than its neighbours.
  private func text(_ number: Int) -> String {
    "\(number):" + String(repeating: "x", count: number * 7919 % 211)
  }

  private func bytes(_ numbers: some Sequence<Int>) -> Int {
    numbers.reduce(0) { $0 + text($1).utf8.count }
  }

  private func fill(_ numbers: Range<Int>, isPersistent: (Int) -> Bool = { _ in true }) throws {
    var next = numbers.lowerBound
    while next < numbers.upperBound {
      let end = min(next + 1000, numbers.upperBound)
      try broker.turn {
        for number in next..<end {
          try channel.publish(text(number), key: "q", isPersistent: isPersistent(number))
        }
      }
      broker.drainWorkers()
      next = end
    }
  }

  private func expect(
    _ broker: TestBroker, _ left: some Collection<Int>,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(broker.queue("q")?.readyCount == left.count, sourceLocation: sourceLocation)
    #expect(broker.queue("q")?.readyBytes == bytes(left), sourceLocation: sourceLocation)
  }

  /// What a crash leaves is exact, and stays so until the last one was taken.
  private func expectAfterCrash(
    _ left: [Int], sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> TestBroker {
    broker.quietTurn()
    let again = try broker.crashed(settings: .moving)
    broker.atClose.append { again.close() }
    expect(again, left, sourceLocation: sourceLocation)
    return again
  }

  private func expectDrained(
    _ broker: TestBroker, _ left: [Int], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let next = broker.connect().open()
    var rest = bytes(left)
    for number in left {
      let taken = try #require(try next.take("q"), sourceLocation: sourceLocation)
      #expect(taken.text == text(number), sourceLocation: sourceLocation)
      rest -= taken.text.utf8.count
      guard broker.queue("q")?.readyBytes == rest else {
        Issue.record("\(number) left another sum", sourceLocation: sourceLocation)
        return
      }
    }
    #expect(try next.take("q") == nil, sourceLocation: sourceLocation)
    broker.expectNothingHeld(sourceLocation: sourceLocation)
  }

  // MARK: The sum

  @Test func bytesAreExactRightAfterACrash() throws {
    try declare(broker)
    try fill(0..<30_000)
    try broker.moveOut(channel)
    var tags: [UInt64] = []
    for _ in 0..<2500 { tags.append(try #require(try channel.take("q", isAutomatic: false)).tag) }
    try channel.acknowledge(tags[999], isMultiple: true)
    for index in stride(from: 1000, to: 2500, by: 3) {
      try channel.acknowledge(tags[index], isMultiple: false)
    }
    broker.durableTurn()
    let left = Array(1000..<30_000).filter { $0 >= 2500 || $0 % 3 != 1000 % 3 }
    let again = try expectAfterCrash(left)
    // Only blocks of which a part is left were read.
    let blocks = try again.files(".lanes").flatMap {
      try LaneTable(FaultyDisk(), again.directory.path + "/" + $0).blocks
    }
    let count = blocks.count
    let partial = blocks.count { $0.first <= 2500 && $0.last > 1000 }
    #expect(count > 10 && again.journal.statistics.blocksReadBack <= partial)
    #expect(again.takeProblem() == nil)
    try expectDrained(again, left)
  }

  @Test func aStopInOrderAndASecondCrashChangeNothing() throws {
    try declare(broker)
    try fill(0..<5000)
    try broker.moveOut(channel)
    try fill(5000..<5100)
    for _ in 0..<700 { _ = try channel.take("q") }
    broker.durableTurn()
    let again = try broker.restarted(settings: .moving)
    expect(again, 700..<5100)
    let third = try again.crashed(settings: .moving)
    expect(third, 700..<5100)
    try expectDrained(third, Array(700..<5100))
  }

  /// Transient messages stand between durable ones, in the same blocks.
  @Test func whatNeedNotSurviveDoesNotCount() throws {
    try declare(broker)
    try fill(0..<4000) { $0 % 5 != 2 }
    try broker.moveOut(channel)
    for _ in 0..<1001 { _ = try channel.take("q") }
    broker.durableTurn()
    let left = Array(1001..<4000).filter { $0 % 5 != 2 }
    try expectDrained(try expectAfterCrash(left), left)
  }

  @Test func allLanesOfAQueueCount() throws {
    try declare(broker, ["x-max-priority": .int64(3)])
    for number in 0..<3000 {
      var properties = BasicProperties()
      properties.priority = UInt8(number % 4)
      try channel.publish(
        Array(text(number).utf8), key: "q", properties: properties, isPersistent: true)
    }
    broker.durableTurn()
    try broker.moveOut(channel)
    for _ in 0..<10 { _ = try channel.take("q") }
    broker.durableTurn()
    let order = [3, 2, 1, 0].flatMap { priority in (0..<3000).filter { $0 % 4 == priority } }
    let left = Array(order.dropFirst(10))
    try expectDrained(try expectAfterCrash(left), left)
  }

  @Test func aPurgeOfWhatStandsInLaneFilesLeavesNoBytes() throws {
    try declare(broker)
    try fill(0..<2000)
    try broker.moveOut(channel)
    for _ in 0..<10 { _ = try channel.take("q") }
    broker.durableTurn()
    let again = try expectAfterCrash(Array(10..<2000))
    let next = again.connect().open()
    #expect(try next.purge("q") == 1990)
    again.finishChores()
    #expect(again.queue("q")?.readyBytes == 0)
    try next.publish("new", key: "q", isPersistent: true)
    #expect(again.queue("q")?.readyBytes == 3)
    again.durableTurn()
    let third = try again.crashed(settings: .moving)
    #expect(third.queue("q")?.readyBytes == 3)
  }

  // MARK: The limit

  @Test func theOldestLeaveForTheNextMessageAfterACrash() throws {
    let limit = bytes(0..<6000)
    try declare(broker, bytesMax: limit)
    try fill(0..<6000)
    try broker.moveOut(channel)
    let again = try expectAfterCrash(Array(0..<6000))
    let next = again.connect().open()
    for number in 6000..<6003 {
      try next.publish(text(number), key: "q", isPersistent: true)
      // What is to leave is read back before.
      again.turns { (again.queue("q")?.readyBytes ?? .max) <= limit && !again.journal.isLoading }
    }
    var first = 0
    while bytes(first..<6003) > limit { first += 1 }
    #expect(first > 0)
    expect(again, first..<6003)
    again.durableTurn()
    try expectDrained(again, Array(first..<6003))
  }

  @Test func aFullQueueRefusesTheNextMessageAfterACrash() throws {
    try declare(
      broker, bytesMax: bytes(0..<3000) + 1, ["x-overflow": .string("reject-publish")])
    try fill(0..<3000)
    try broker.moveOut(channel)
    let again = try expectAfterCrash(Array(0..<3000))
    let next = again.connect().open()
    try next.publish("ab", key: "q", isPersistent: true)
    expect(again, 0..<3000)
    try next.publish("a", key: "q", isPersistent: true)
    #expect(again.queue("q")?.readyCount == 3001)
  }

  // MARK: Damage

  /// Its queue stops there, and all others are served: no reason not to start.
  @Test func aBlockThatCannotBeReadCountsWhole() throws {
    try declare(broker)
    try fill(0..<3000)
    try broker.moveOut(channel)
    for _ in 0..<10 { _ = try channel.take("q") }
    broker.quietTurn()
    let lane = try #require(broker.queue("q")?.lane.id)
    broker.close()
    let found = try broker.files(".lanes").flatMap { name in
      let path = broker.directory.path + "/" + name
      return try LaneTable(FaultyDisk(), path).blocks.map { (path, $0) }
    }
    let (path, block) = try #require(
      found.filter { $0.1.lane == lane }.min { $0.1.first < $1.1.first })
    #expect(block.first == 1)
    try damage(path, at: block.offset + block.size / 2)
    let again = try TestBroker(in: broker.directory, settings: .moving, disk: FaultyDisk())
    #expect(again.queue("q")?.readyCount == 2990)
    #expect(again.queue("q")?.readyBytes == bytes(0..<3000))
    #expect(again.takeProblem()?.contains(path) == true)
  }

  // MARK: Leaving from the middle

  /// Those that are over are read before they leave, since nobody knows their size.
  @Test(arguments: [Journal.Settings.quick, .moving])
  func whatExpiresInTheMiddleIsCountedOff(settings: Journal.Settings) throws {
    let broker = try TestBroker.moving(settings: settings)
    let channel = broker.connect().open()
    try declare(broker)
    for number in 0..<200 {
      var properties = BasicProperties()
      if number % 3 == 1 { properties.expiration = "60000" }
      try channel.publish(
        Array(text(number).utf8), key: "q", properties: properties, isPersistent: true)
    }
    broker.durableTurn()
    if settings.windowBytes == Journal.Settings.moving.windowBytes {
      try broker.moveOut(channel)
    }
    let again = try broker.restarted(settings: settings)
    expect(again, 0..<200)
    _ = again.rest(milliseconds: 120_000)
    let left = (0..<200).filter { $0 % 3 != 1 }
    expect(again, left)
    try expectDrained(again, left)
  }
}
