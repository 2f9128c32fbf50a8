import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A commit is found whole or not at all, wherever the log ends.
@Suite struct TransactionRecoveryTests {
  private static let queues: [Name] = ["work", "a", "b", "dead", "short"]

  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    var settings = Journal.Settings.quick
    settings.segmentBytes = 64 << 10
    broker = try TestBroker(settings: settings)
    client = broker.connect()
    channel = client.open()
    try channel.startTransactions()
    let letters: FieldTable = [
      "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("dead"),
    ]
    try channel.declare("work", isDurable: true, arguments: letters)
    try channel.declare(
      "short", isDurable: true,
      arguments: FieldTable(
        letters.entries + [.init(name: "x-max-length", value: .int64(1))]))
    for name in ["a", "b", "dead"] as [Name] { try channel.declare(name, isDurable: true) }
    for name in ["a", "b"] as [Name] { try channel.bind(name, to: "amq.fanout") }
  }

  private func counts(_ broker: TestBroker) -> [Int?] {
    Self.queues.map { broker.queue($0)?.messageCount }
  }

  /// What is found wherever the log ends from here to the end of the commit.
  private func found(after begin: Int, every step: Int = 1) throws -> Set<[Int?]> {
    var found: Set<[Int?]> = []
    let end = broker.journal.durablePosition
    for position in Array(stride(from: begin, to: end, by: step)) + [end] {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      found.insert(counts(other))
      other.close()
    }
    return found
  }

  private func fill(_ count: Int) throws -> [UInt64] {
    let other = broker.connect().open()
    try broker.durableTurn {
      for _ in 0..<count { try other.publish("w", key: "work", isPersistent: true) }
    }
    let tags = try (0..<count).map { _ in
      try #require(try channel.take("work", isAutomatic: false)).tag
    }
    broker.durableTurn()
    return tags
  }

  /// Messages to several queues, an acknowledgement, a dead letter, and one that another message has driven
  /// out of its queue.
  @Test func aCommitIsWholeWhereverTheLogEnds() throws {
    let tags = try fill(2)
    let begin = broker.journal.durablePosition
    try broker.durableTurn {
      try channel.publish("1", to: "amq.fanout", key: "", isPersistent: true)
      try channel.acknowledge(tags[0], isMultiple: false)
      try channel.reject(tags[1], isMultiple: false, requeues: false)
      try channel.publish("2", key: "a", isPersistent: true)
      for _ in 0..<2 { try channel.publish("3", key: "short", isPersistent: true) }
      _ = try channel.commit()
    }
    #expect(try found(after: begin) == [[2, 0, 0, 0, 0], [0, 2, 1, 2, 1]])
  }

  /// Its records are in many blocks and segments.
  @Test func aLargeCommitIsWholeWhereverTheLogEnds() throws {
    let tags = try fill(20)
    let begin = broker.journal.endPosition
    let body = [UInt8](repeating: 7, count: 20_000)
    try broker.durableTurn {
      for tag in tags { try channel.acknowledge(tag, isMultiple: false) }
      for _ in 0..<10 { try channel.publish(body, to: "amq.fanout", key: "", isPersistent: true) }
      try channel.publishLarge(
        [UInt8](repeating: 8, count: 100_000), to: "amq.fanout", key: "", isPersistent: true)
      _ = try channel.commit()
    }
    #expect(
      try found(after: begin, every: 9000) == [[20, 0, 0, 0, 0], [0, 11, 11, 0, 0]])
  }

  /// What was acknowledged and committed stays away, also if another commit is cut off.
  @Test func aRollbackLeavesNothingInTheLog() throws {
    let tags = try fill(2)
    try channel.acknowledge(tags[0], isMultiple: false)
    try channel.publish("1", key: "a", isPersistent: true)
    let end = broker.journal.endPosition
    try channel.rollback()
    #expect(broker.journal.endPosition == end)
    try broker.durableTurn {
      try channel.acknowledge(tags[1], isMultiple: false)
      _ = try channel.commit()
    }
    let again = try broker.crashed()
    #expect(counts(again) == [1, 0, 0, 0, 0])
  }

  /// Messages that have moved to lane files and left memory are read back before they are sent on.
  @Test func deadLettersOfMessagesOnDiskBelongToTheCommit() throws {
    let broker = try TestBroker.moving(FaultyDisk())
    let channel = broker.connect().open()
    let publisher = broker.connect().open()
    try channel.startTransactions()
    try channel.declare(
      "work", isDurable: true,
      arguments: [
        "x-dead-letter-exchange": .string(""), "x-dead-letter-routing-key": .string("dead"),
      ])
    try channel.declare("dead", isDurable: true)
    try publisher.declare("q", isDurable: true)
    // The last stays, and with it the lane file.
    for number in 0..<4 { try publisher.publish("\(number)", key: "work", isPersistent: true) }
    broker.durableTurn()
    for _ in 0..<3 { _ = try channel.take("work", isAutomatic: false) }
    try broker.moveOut(publisher)
    #expect(broker.journal.statistics.spills > 0)
    try channel.reject(0, isMultiple: true, requeues: false)
    let begin = broker.journal.endPosition
    try broker.turn { _ = try channel.commit() }
    broker.turns { !broker.broker.hasChores }
    broker.durableTurn()
    #expect(broker.queue("work")?.messageCount == 1)
    #expect(broker.broker.account[.transactions] < 64 << 10)
    // No file is to come or go while the directory is copied.
    broker.drainWorkers()
    for position in stride(from: begin, through: broker.journal.durablePosition, by: 7) {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      let both = (other.queue("work")?.messageCount, other.queue("dead")?.messageCount)
      #expect(both == (4, 0) || both == (1, 3), "at \(position): \(both)")
      other.close()
    }
    #expect(try channel.drain("dead").map(\.text) == ["0", "1", "2"])
  }

  @Test func aCommitOnALogThatHasFailedDoesNothing() throws {
    let disk = FaultyDisk()
    let broker = try TestBroker(disk: disk)
    let channel = broker.connect().open()
    try channel.startTransactions()
    try channel.declare("q", isDurable: true)
    try channel.declare("r")
    try broker.durableTurn {
      try channel.publish("1", key: "q", isPersistent: true)
      _ = try channel.commit()
    }
    let tag = try #require(try channel.take("q", isAutomatic: false)).tag
    broker.durableTurn()
    disk.fail(.write, ".segment", code: 5)
    try broker.turn {
      try channel.publish("lost", key: "q", isPersistent: true)
      _ = try channel.commit()
    }
    broker.turns { false }
    let reason = try #require(broker.journal.failure)
    try channel.rollback()
    try channel.publish("2", key: "r")
    try channel.acknowledge(tag, isMultiple: false)
    broker.turn {
      #expect(mistake { _ = try channel.commit() } == .journalFailed(reason: reason))
    }
    #expect(broker.queue("r")?.messageCount == 0)
    #expect(broker.queue("q")?.messageCount == 2, "with what may not be in the log")
    #expect(broker.queue("q")?.unacknowledgedCount == 1)
    try channel.rollback()
    try channel.publish("3", key: "r")
    try broker.turn { _ = try channel.commit() }
    #expect(broker.queue("r")?.messageCount == 1, "what the log does not have goes on")
  }
}
