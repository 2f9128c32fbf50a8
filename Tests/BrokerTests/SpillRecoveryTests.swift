import Base
import IO
import Synchronization
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What a crash leaves of messages that have moved, or were about to.
@Suite struct SpillRecoveryTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving(disk)
    channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.declare("p", isDurable: true)
    try channel.declare("junk", isDurable: true)
  }

  private func publish(_ texts: [String], to queue: Name = "q") throws {
    for text in texts { try channel.publish(text, key: queue, isPersistent: true) }
  }

  private func texts(_ range: Range<Int>) -> [String] {
    range.map { "\($0):" + String(repeating: "x", count: 2000) }
  }

  private func afterCrash() throws -> (TestBroker, Channel) {
    broker.quietTurn()
    let crashed = try broker.crashed(settings: .moving)
    broker.atClose.append { crashed.close() }
    return (crashed, crashed.connect().open())
  }

  // MARK: Gone from the middle

  /// A start knows what is left of a block without reading it, also at the second time.
  @Test func messagesThatLeftFromTheMiddleOfABlockStayAway() throws {
    try publish(texts(0..<90))
    try broker.moveOut(channel)
    var tags: [UInt64] = []
    for _ in 0..<60 { tags.append(try #require(try channel.take("q", isAutomatic: false)).tag) }
    for index in stride(from: 1, to: 60, by: 2) {
      try channel.acknowledge(tags[index], isMultiple: false)
    }
    broker.durableTurn()
    let (again, _) = try afterCrash()
    let lane = try #require(again.queue("q")?.lane)
    #expect(lane.waiting.nextRun?.hasExceptions == true)
    #expect(lane.waiting.first == nil)
    #expect(again.queue("q")?.readyCount == 60)
    again.quietTurn()
    let third = try again.crashed(settings: .moving)
    broker.atClose.append { third.close() }
    let next = third.connect().open()
    let taken = try next.drain("q")
    #expect(
      taken.map(\.text)
        == texts(0..<90).enumerated().filter { $0.offset >= 60 || $0.offset % 2 == 0 }
        .map(\.element))
    #expect(taken.prefix(30).count { $0.isRedelivered } == 30)
    third.durableTurn()
    third.work(3)
    third.expectNothingHeld()
    #expect(try third.files(".lanes") == [])
  }

  // MARK: Every moment

  /// Copies of the directory, each before an operation that renames, removes or ends something. The
  /// threads that make them take turns, and are drained before they are looked at.
  private final class Crashes: @unchecked Sendable {
    var copies: [(moment: String, directory: TemporaryDirectory)] = []
    private let turn = Mutex(())

    func watch(_ disk: FaultyDisk, _ directory: TemporaryDirectory) {
      nonisolated(unsafe) let directory = directory
      disk.set { [self] operation, path in
        guard [.rename, .remove, .syncDirectory, .punch].contains(operation) else { return nil }
        let name = String(path.utf8.split(separator: UInt8(ascii: "/")).last!) ?? ""
        let kind = name.prefix { $0 != "-" }.drop { $0 != "." && $0 != "s" }
        turn.withLock { _ in
          if let copy = try? directory.copy() {
            copies.append(("\(operation.rawValue) \(kind)", copy))
          }
        }
        return nil
      }
    }

    var moments: Set<String> { Set(copies.map(\.moment)) }
  }

  /// What a queue must have, and nothing else.
  private func expect(
    _ copies: Crashes, _ contents: [Name: [String]], isRedelivered: (Int) -> Bool
  ) throws {
    broker.drainWorkers()
    disk.set(nil)
    for (moment, directory) in copies.copies {
      let again = try TestBroker(in: directory, settings: .moving, disk: FaultyDisk())
      let comment: Comment = "before \(moment)"
      let next = again.connect().open()
      for (name, texts) in contents {
        #expect(again.queue(name)?.readyCount == texts.count, comment)
        let taken = try next.drain(name)
        #expect(taken.map(\.text) == texts, comment)
        if name == "q" {
          for (index, delivery) in taken.enumerated() where isRedelivered(index) {
            #expect(delivery.isRedelivered, comment)
          }
        }
      }
      again.durableTurn()
      again.work(3)
      #expect(try next.drain("junk").isEmpty, comment)
      again.expectNothingHeld()
      #expect(try again.files(".lanes.new") == [], comment)
      #expect(try again.files(".lanes") == [], comment)
    }
  }

  @Test func aCrashAtAnyMomentOfMovingLosesAndDoublesNothing() throws {
    try publish(texts(0..<300))
    try publish(texts(300..<340), to: "p")
    var tags: [UInt64] = []
    for _ in 0..<150 { tags.append(try #require(try channel.take("q", isAutomatic: false)).tag) }
    // Every third one is settled, the others are unacknowledged.
    for index in stride(from: 0, to: 150, by: 3) {
      try channel.acknowledge(tags[index], isMultiple: false)
    }
    broker.durableTurn()
    let left = texts(0..<300).enumerated().filter { $0.offset >= 150 || $0.offset % 3 != 0 }
      .map(\.element)
    let crashes = Crashes()
    crashes.watch(disk, broker.directory)
    try broker.moveOut(channel)
    #expect(
      crashes.moments.isSuperset(of: [
        "rename .lanes", "rename .checkpoint", "rename spare",
      ]), "\(crashes.moments)")
    try expect(crashes, ["q": left, "p": texts(300..<340)]) { $0 < 100 }
    try expectAfterSettling(tags, left)
  }

  /// Most of what moved is settled; its space comes back.
  private func expectAfterSettling(_ tags: [UInt64], _ left: [String]) throws {
    for index in 0..<150 where index % 3 != 0 && index != 100 {
      try channel.acknowledge(tags[index], isMultiple: false)
    }
    for _ in 150..<290 { _ = try channel.take("q") }
    _ = try channel.drain("p")
    broker.durableTurn()
    let crashes = Crashes()
    crashes.watch(disk, broker.directory)
    broker.advance(milliseconds: Journal.holesMilliseconds + 1)
    broker.work()
    try broker.moveOut(channel)
    #expect(crashes.moments.contains("punch .lanes"), "\(crashes.moments)")
    try expect(crashes, ["q": texts(100..<101) + texts(290..<300), "p": []]) { $0 < 1 }
    try channel.acknowledge(tags[100], isMultiple: false)
    _ = try channel.drain("q")
    broker.durableTurn()
    let ends = Crashes()
    ends.watch(disk, broker.directory)
    broker.work()
    try broker.moveOut(channel)
    try expect(ends, ["q": [], "p": []]) { _ in false }
    #expect(try broker.files(".lanes") == [])
    broker.expectNothingHeld()
  }

  // MARK: Damage

  /// Messages in lane files that a checkpoint names; the broker has stopped.
  private func stoppedWithLanes() throws -> [String] {
    try publish(texts(0..<300))
    try publish(texts(300..<320), to: "p")
    try broker.moveOut(channel)
    broker.quietTurn()
    let names = try broker.files(".lanes")
    #expect(names.count > 1 && broker.journal.statistics.checkpoints > 0)
    broker.close()
    return names.map { broker.directory.path + "/" + $0 }
  }

  private func failure() -> String? {
    do {
      _ = try TestBroker(in: broker.directory, settings: .moving, disk: FaultyDisk())
      return nil
    } catch {
      return "\(error)"
    }
  }

  @Test func aMissingLaneFileStopsTheStartWithItsName() throws {
    let path = try stoppedWithLanes()[0]
    try FileSystem.remove(path)
    #expect(failure()?.contains(path) == true)
  }

  @Test func aDamagedHeaderOrTableStopsTheStartWithItsName() throws {
    let path = try stoppedWithLanes()[0]
    let size = try FileSystem.readWhole(path).count
    for offset in [20, size - 10] {
      try damage(path, at: offset)
      #expect(failure()?.contains(path) == true, "offset \(offset)")
      try damage(path, at: offset)
    }
    try File(path, .readWrite).write(at: 8, [9])
    #expect(failure()?.contains(path) == true)
    try File(path, .readWrite).write(at: 8, [5])
    #expect(failure() == nil)
  }

  @Test func aLaneFileOfAnotherLogStopsTheStart() throws {
    let path = try stoppedWithLanes()[0]
    let other = try TestBroker.moving()
    let channel = other.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.publish("m", key: "q", isPersistent: true)
    try other.moveOut(channel)
    let foreign = try FileSystem.readWhole(other.directory.path + "/" + other.files(".lanes")[0])
    try FileSystem.remove(path)
    try File(path, .readWrite, creates: true).write(at: 0, foreign)
    #expect(failure()?.contains("of another log") == true)
  }

  /// The first block that has messages of "q" and no message before this one, and its file. How many
  /// messages a block or a file has depends on how rounds are cut.
  private func block(_ paths: [String], from sequence: UInt64) throws -> (String, LaneBlock) {
    let lane = try #require(broker.queue("q")?.lane.id)
    let blocks = try paths.flatMap { path in
      try LaneTable(FaultyDisk(), path).blocks
        .filter { $0.lane == lane && $0.first >= sequence }.map { (path, $0) }
    }
    return try #require(blocks.min { $0.1.first < $1.1.first })
  }

  @Test func aDamagedBlockIsToldWhenItIsReadAndOthersAreServed() throws {
    let (path, block) = try block(stoppedWithLanes(), from: 100)
    let offset = block.offset + block.size / 2
    try damage(path, at: offset)
    let again = try TestBroker(in: broker.directory, settings: .moving, disk: FaultyDisk())
    let client = again.connect()
    let next = client.open()
    #expect(again.queue("q")?.readyCount == 300)
    #expect(again.takeProblem() == nil)
    var taken: [String] = []
    let error = mistake { while let delivery = try next.take("q") { taken.append(delivery.text) } }
    #expect(error == .unreadable(queue: "q"))
    #expect(taken == texts(0..<Int(block.first) - 1))
    again.turn()
    let problem = try #require(again.takeProblem())
    #expect(problem.contains(path) && problem.contains("is damaged"))
    #expect(try next.drain("p").map(\.text) == texts(300..<320))
    #expect(again.queue("q")?.readyCount == 300 - taken.count)
    // The disk gives the right bytes again; what is damaged is not read again before a start.
    again.close()
    try damage(path, at: offset)
    let repaired = try TestBroker(in: broker.directory, settings: .moving, disk: FaultyDisk())
    let last = repaired.connect().open()
    #expect(try last.drain("q").map(\.text) == Array(texts(0..<300).dropFirst(taken.count)))
    repaired.expectNothingHeld()
  }

  // MARK: What comes back

  @Test func redeliveredIsTheTruthForMovedMessages() throws {
    try publish(texts(0..<40))
    _ = try channel.take("q", isAutomatic: false)
    _ = try channel.take("q", isAutomatic: false)
    try broker.moveOut(channel)
    _ = try channel.take("q", isAutomatic: false)
    let (again, next) = try afterCrash()
    let crashed = try next.drain("q")
    #expect(crashed.map(\.text) == texts(0..<40))
    #expect(crashed.prefix(3).allSatisfy { $0.isRedelivered })
    again.expectNothingHeld()
    let restarted = try broker.restarted(settings: .moving)
    let rest = try restarted.connect().open().drain("q")
    #expect(rest.map(\.text) == texts(0..<40))
    #expect(rest.map(\.isRedelivered) == (0..<40).map { $0 < 3 })
    restarted.expectNothingHeld()
  }

  @Test func whatWasAcknowledgedDurablyDoesNotComeBack() throws {
    try publish(texts(0..<40))
    var tags: [UInt64] = []
    for _ in 0..<20 { tags.append(try #require(try channel.take("q", isAutomatic: false)).tag) }
    try channel.acknowledge(tags[4], isMultiple: false)
    try broker.moveOut(channel)
    for index in [7, 19] { try channel.acknowledge(tags[index], isMultiple: false) }
    let left = texts(0..<40).enumerated().filter { ![4, 7, 19].contains($0.offset) }.map(\.element)
    // Once from the log's records, once from a checkpoint.
    for _ in 0..<2 {
      let (again, next) = try afterCrash()
      #expect(again.queue("q")?.readyCount == left.count)
      #expect(try next.drain("q").map(\.text) == left)
      again.expectNothingHeld()
      try broker.moveOut(channel)
    }
  }

  @Test func aPurgedAndADeletedQueueWithAMovedMiddleStayEmpty() throws {
    try publish(texts(0..<60))
    try publish(texts(0..<60), to: "p")
    try broker.moveOut(channel)
    try publish(texts(60..<70))
    #expect(try channel.purge("q") == 70)
    try channel.delete("p")
    try publish(["new"])
    for _ in 0..<2 {
      let (again, next) = try afterCrash()
      #expect(again.queue("p") == nil)
      #expect(try next.drain("q").map(\.text) == ["new"])
      again.expectNothingHeld()
      try broker.moveOut(channel)
    }
    #expect(try channel.drain("q").map(\.text) == ["new"])
    broker.work()
    #expect(try broker.files(".lanes") == [])
    broker.expectNothingHeld()
  }

  /// A block of which only a message that need not survive was left dies while it is recovered, and the
  /// next one gets its slot; a merge that comes before the log was told must take that one once.
  @Test func aMergeBehindAStartTakesEachBlockOnce() throws {
    var settings = Journal.Settings.moving
    settings.windowBytes = 512 << 10
    let broker = try TestBroker.moving(settings: settings)
    let channel = broker.connect().open()
    for queue in ["q", "p"] as [Name] { try channel.declare(queue, isDurable: true) }
    let large = String(repeating: "x", count: 200_000)
    for text in ["first", "fleeting", "left"] {
      let isFleeting = text == "fleeting"
      try channel.publish(
        isFleeting ? text : text + large, key: "q", isPersistent: !isFleeting)
    }
    try broker.moveOut(channel)
    try channel.publish("other", key: "p", isPersistent: true)
    try broker.moveOut(channel)
    #expect(try broker.files(".lanes").count == 2, "two blocks of q are in one")
    #expect(try #require(try channel.take("q")).text == "first" + large)
    broker.durableTurn()

    settings.sparseFilesMin = 2
    let again = try broker.crashed(settings: settings)
    #expect(again.queue("q")?.readyCount == 1)
    again.turns { again.journal.statistics.laneFilesMerged == 2 && !again.journal.isSpilling }
    try again.moveOut(again.connect().open())
    again.drainWorkers()
    #expect(try again.files(".lanes").count == 1)
    let last = try again.crashed(settings: settings)
    #expect(last.queue("q")?.readyCount == 1)
    let next = last.connect().open()
    #expect(try next.drain("q").map(\.text) == ["left" + large])
    #expect(try next.drain("p").map(\.text) == ["other"])
    last.expectNothingHeld()
  }

  /// One message of each block is left, as slow consumers leave them.
  @Test func recoveryReadsBlocksWithinTheCache() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 256 << 10
    let all = texts(0..<1600)
    try publish(all)
    try broker.moveOut(channel)
    for index in 0..<1600 {
      let tag = try #require(try channel.take("q", isAutomatic: false)).tag
      if index % 80 != 0 { try channel.acknowledge(tag, isMultiple: false) }
    }
    broker.quietTurn()
    let again = try broker.crashed(settings: settings)
    #expect(again.queue("q")?.readyCount == 20)
    #expect(again.journal.memoryBytes <= 1 << 20)
    let left = try again.connect().open().drain("q").map(\.text)
    #expect(left == stride(from: 0, to: 1600, by: 80).map { all[$0] })
    again.expectNothingHeld()
  }
}
