import AMQP
import Base
import Glibc
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A queue whose next message is damaged says so, and passes nothing over.
@Suite struct StoppedQueueTests {
  @Test func consumersOfADamagedBlockAreTold() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    let broker = try TestBroker.moving(settings: settings)
    let client = broker.connect()
    let channel = client.open()
    for name in ["q", "p"] as [Name] { try channel.declare(name, isDurable: true) }
    for number in 0..<10 { try channel.publish("\(number)", key: "q", isPersistent: true) }
    try broker.moveOut(channel)
    let name = try #require(try broker.files(".lanes").first)
    try damage(broker.directory.path + "/" + name, at: LaneTable.headerBytes + 300)
    broker.advance(milliseconds: 1)
    try channel.consume("q", tag: "c")
    for _ in 0..<10 { broker.work() }
    #expect(client.events() == [.cancelled("c", on: 1)])
    let problem = try #require(broker.takeProblem())
    #expect(problem.hasPrefix("queue 'q' is stopped where the block at offset 64 of "))
    #expect(problem.contains(name))
    #expect(problem.hasSuffix("stop the broker and run `martlet journal repair`"))
    #expect(mistake { _ = try channel.take("q") } == .unreadable(queue: "q"))
    try channel.consume("q", tag: "d")
    try channel.consume("p", tag: "e")
    try channel.publish("m", key: "p", isPersistent: true)
    broker.advance(milliseconds: 10_000)
    for _ in 0..<10 { broker.work() }
    let events = client.events()
    #expect(events.contains(.cancelled("d", on: 1)))
    #expect(events.count == 2, "others are served")
    #expect(broker.takeProblem() == nil, "it is said once")
    #expect(broker.queue("q")?.readyCount == 10)
    try channel.purge("q")
    try channel.publish("next", key: "q", isPersistent: true)
    try channel.consume("q", tag: "f")
    broker.durableTurn()
    broker.work()
    #expect(client.bodies() == ["next"], "it goes on behind a purge")
  }

  /// What the disk does not give, however often it is asked, ends the waiting as well.
  @Test(arguments: [ENOENT, EIO])
  func consumersOfWhatCannotBeReadAreTold(code: Int32) throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk, settings: settings)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("q", isDurable: true)
    for number in 0..<10 { try channel.publish("\(number)", key: "q", isPersistent: true) }
    try broker.moveOut(channel)
    let name = try #require(try broker.files(".lanes").first)
    let tries = FaultyDisk.Counter()
    disk.set { operation, path in
      guard operation == .open, FaultyDisk.contains(path, name) else { return nil }
      tries.next()
      return code
    }
    try channel.consume("q", tag: "c")
    while tries.count < Journal.readTriesMax {
      #expect(client.events() == [], "try \(tries.count)")
      let before = tries.count
      for _ in 0..<20 where tries.count == before {
        broker.advance(milliseconds: Broker.unreadableMilliseconds)
        broker.work(1)
      }
      try #require(tries.count == before + 1, "it is tried again, once")
    }
    broker.work(2)
    #expect(client.events() == [.cancelled("c", on: 1)])
    let problems = broker.journal.takeProblems()
    #expect(problems.count == 2, "\(problems)")
    #expect(
      problems.last?.hasPrefix("queue 'q' is stopped where messages could not be read") == true)
    #expect(problems.last?.contains(name) == true)
    #expect(problems.last?.hasSuffix("stop the broker and run `martlet journal repair`") == true)
    #expect(mistake { _ = try channel.take("q") } == .unreadable(queue: "q"))
    #expect(broker.queue("q")?.readyCount == 10)
  }

  /// That too many files are open says nothing of any.
  @Test func whatPassesIsTriedForEver() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    let disk = FaultyDisk()
    let broker = try TestBroker.moving(disk, settings: settings)
    let client = broker.connect()
    let channel = client.open()
    try channel.declare("q", isDurable: true)
    try channel.publish("m", key: "q", isPersistent: true)
    try broker.moveOut(channel)
    disk.fail(.open, ".lanes", code: EMFILE)
    try channel.consume("q", tag: "c")
    for _ in 0..<2 * Journal.readTriesMax {
      for _ in 0..<3 { broker.work() }
      broker.advance(milliseconds: Broker.unreadableMilliseconds + 1)
    }
    #expect(client.events() == [])
    #expect(broker.journal.takeProblems().count == 1, "it is told once")
    disk.fail(.open, ".lanes", count: 1)
    broker.advance(milliseconds: Broker.unreadableMilliseconds + 1)
    broker.work(1)
    #expect(client.events() == [], "what passes is no try")
    disk.set(nil)
    broker.advance(milliseconds: Broker.unreadableMilliseconds + 1)
    for _ in 0..<3 { broker.work() }
    #expect(client.bodies() == ["m"])
  }

  /// What is found when transient messages move, and nothing of the log does, too.
  @Test(arguments: [false, true])
  func othersMoveOnBehindADamagedRecord(isFoundInMemory: Bool) throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    settings.windowBytes = 256 << 10
    settings.transientBytesMax = 256 << 10
    let broker = try TestBroker.moving(settings: settings)
    let channel = broker.connect().open()
    for name in ["q", "p"] as [Name] { try channel.declare(name, isDurable: true) }
    try broker.durableTurn { try channel.publish("first", key: "q", isPersistent: true) }
    let segment = try #require(try broker.files(".segment").first)
    let body = [UInt8](repeating: 1, count: 20_000)
    try broker.durableTurn {
      for _ in 0..<14 { try channel.publish(body, key: "q", isPersistent: true) }
    }
    broker.work()
    try damage(
      broker.directory.path + "/" + segment, at: SegmentHeader.pageBytes + (100 << 10))
    for _ in 0..<60 {
      try broker.durableTurn {
        for key in ["q", "p"] as [Name] {
          try channel.publish(body, key: key, isPersistent: false)
          if !isFoundInMemory || broker.queue("q")!.lane.staysInLog {
            try channel.publish(body, key: key, isPersistent: true)
          }
        }
      }
      broker.work(2)
    }
    broker.advance(milliseconds: 1)
    broker.work(20)
    #expect(broker.queue("q")?.lane.staysInLog == true)
    let problem = try #require(broker.takeProblem())
    #expect(problem.hasPrefix("queue 'q' is stopped where the record at log position "))
    #expect(!problem.contains("nothing can be moved"))
    let journal = broker.journal
    #expect(journal.spillCutoff(now: .max) == nil, "no round is due")
    #expect(journal.aliveLogBytes < 2 * settings.windowBytes)
    #expect(journal.transientBytes - journal.stayingBytes < 2 * settings.transientBytesMax)
    #expect(journal.laneBytes > 80 * body.count, "most of what others have has moved")
    #expect(try channel.drain("p").allSatisfy { $0.message.body == body })
    try channel.purge("q")
    broker.durableTurn()
    broker.work()
    #expect(journal.stayingBytes == 0)
  }
}
