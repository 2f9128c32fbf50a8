import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What a restart knows of deliveries: how often messages came back, and which a client may have seen.
@Suite struct DeliveryCountRecoveryTests {
  private let disk = FaultyDisk()
  private let broker: TestBroker
  private let channel: Channel
  private static let quorum: FieldTable = ["x-queue-type": .string("quorum")]

  init() throws {
    broker = try TestBroker.moving(disk)
    channel = broker.connect().open()
    try channel.declare("q", isDurable: true, arguments: Self.quorum)
  }

  private func texts(_ range: Range<Int>) -> [String] {
    range.map { "\($0):" + String(repeating: "x", count: 2000) }
  }

  private func publish(_ range: Range<Int>) throws {
    for text in texts(range) { try channel.publish(text, key: "q", isPersistent: true) }
  }

  /// Takes the first messages and gives them back, some times.
  private func giveBack(_ count: Int, times: Int = 1) throws {
    for _ in 0..<times {
      let tags = try (0..<count).map { _ in
        try #require(try channel.take("q", isAutomatic: false)).tag
      }
      for tag in tags { try channel.reject(tag, isMultiple: false, requeues: true) }
    }
  }

  private func afterCrash() throws -> (TestBroker, Channel) {
    broker.quietTurn()
    return try afterCrash(of: broker)
  }

  private func afterCrash(of broker: TestBroker) throws -> (TestBroker, Channel) {
    let crashed = try broker.crashed(settings: .moving)
    self.broker.atClose.append { crashed.close() }
    return (crashed, crashed.connect().open())
  }

  private func counts(_ deliveries: [Delivery]) throws -> [Int] {
    try deliveries.map { try $0.count() }
  }

  // MARK: Ends

  @Test func countsSurviveACrash() throws {
    try publish(0..<6)
    try giveBack(3, times: 2)
    _ = try channel.take("q", isAutomatic: false)
    let (again, next) = try afterCrash()
    let deliveries = try next.drain("q")
    #expect(deliveries.map(\.text) == texts(0..<6))
    // The first was out: that it was is known, and not counted.
    #expect(try counts(deliveries) == [2, 2, 2, 0, 0, 0])
    #expect(deliveries.prefix(3).count(where: \.isRedelivered) == 3)
    #expect(again.queue("q")?.lane.counts?.byteCount == 0)
    again.expectNothingHeld()
  }

  @Test func whatIsOutWhenTheBrokerStopsComesBackAndCounts() throws {
    try publish(0..<3)
    try giveBack(1)
    broker.durableTurn()
    for _ in 0..<2 { _ = try channel.take("q", isAutomatic: false) }
    let again = try broker.restarted(settings: .moving)
    let deliveries = try again.connect().open().drain("q")
    #expect(try counts(deliveries) == [2, 1, 0])
    #expect(deliveries.map(\.isRedelivered) == [true, true, false])
  }

  @Test func aLimitHoldsOverRestarts() throws {
    try channel.declare(
      "limited", isDurable: true,
      arguments: [
        "x-delivery-limit": .int32(3), "x-dead-letter-exchange": .string(""),
        "x-dead-letter-routing-key": .string("dead"),
      ])
    try channel.declare("dead", isDurable: true)
    try channel.publish("m", key: "limited", isPersistent: true)
    var (current, reader) = (broker, channel)
    for number in 0..<4 {
      let delivery = try #require(try reader.take("limited", isAutomatic: false))
      #expect(try delivery.count() == number)
      try reader.reject(delivery.tag, isMultiple: false, requeues: true)
      current.durableTurn()
      (current, reader) = try afterCrash(of: current)
    }
    #expect(current.queue("limited")?.messageCount == 0)
    #expect(try reader.take("dead")?.headers()["x-first-death-reason"] == .string("delivery_limit"))
  }

  @Test func whatNeedNotSurviveIsNotInTheLog() throws {
    try channel.publish("transient", key: "q")
    try publish(0..<1)
    try giveBack(2)
    let (_, next) = try afterCrash()
    #expect(try counts(next.drain("q")) == [1])
  }

  // MARK: Lane files and checkpoints

  /// The log that had the counts is gone: the checkpoint has them.
  @Test func countsOfWhatMovedAreInTheCheckpoint() throws {
    try publish(0..<40)
    try giveBack(5)
    try broker.moveOut(channel)
    let (again, next) = try afterCrash()
    #expect(again.queue("q")?.lane.waiting.first == nil, "all stands in lane files")
    // Unread, they go into the next checkpoint as well.
    try again.age(next)
    again.quietTurn()
    let (third, reader) = try afterCrash(of: again)
    let deliveries = try reader.drain("q")
    #expect(deliveries.map(\.text) == texts(0..<40))
    #expect(
      try counts(deliveries) == Array(repeating: 1, count: 5) + Array(repeating: 0, count: 35))
    #expect(third.queue("q")?.lane.counts?.byteCount == 0)
    third.work(3)
    third.expectNothingHeld()
  }

  /// Recovered from the log, they move into lane files afterwards.
  @Test func countsMoveWithTheirMessages() throws {
    try publish(0..<40)
    try giveBack(3, times: 3)
    let (again, next) = try afterCrash()
    try again.moveOut(next)
    #expect(again.queue("q")?.lane.waiting.first == nil)
    let third = try again.restarted(settings: .moving)
    broker.atClose.append { third.close() }
    let reader = third.connect().open()
    let first = try #require(try reader.take("q", isAutomatic: false))
    #expect(try first.count() == 3)
    try reader.reject(first.tag, isMultiple: false, requeues: true)
    #expect(try counts(reader.drain("q")).prefix(4) == [4, 3, 3, 0])
    third.durableTurn()
    #expect(third.queue("q")?.lane.counts?.byteCount == 0)
  }

  @Test func aPurgeTakesCountsOfLaneFilesWithIt() throws {
    try publish(0..<40)
    try giveBack(3)
    try broker.moveOut(channel)
    let (again, next) = try afterCrash()
    let lane = try #require(again.queue("q")?.lane)
    #expect(lane.counts?.byteCount ?? 0 > 0)
    try next.purge("q")
    again.finishChores()
    #expect(lane.counts?.byteCount == 0)
  }

  /// In slices: what changes between them is in the log, and what is read back is seen all the same.
  @Test func aCheckpointInSlicesMissesNoCount() throws {
    var limits = BrokerLimits()
    limits.walkStepsPerTurn = 2
    try publish(0..<60)
    try giveBack(30)
    try broker.moveOut(channel)
    let crashed = try broker.crashed(settings: .moving)
    crashed.close()
    let sliced = try TestBroker(
      in: crashed.directory, settings: .moving, limits: limits, disk: FaultyDisk())
    broker.atClose.append { sliced.close() }
    let reader = sliced.connect().open()
    sliced.broker.beginCheckpoint()
    var tags: [UInt64] = []
    while sliced.broker.snapshot != nil {
      if tags.count < 20 {
        tags.append(try #require(try reader.take("q", isAutomatic: false)).tag)
      }
      sliced.turn()
    }
    for tag in tags.suffix(5) { try reader.reject(tag, isMultiple: false, requeues: true) }
    sliced.quietTurn()
    let (_, next) = try afterCrash(of: sliced)
    let expected =
      [Int](repeating: 1, count: 15) + [Int](repeating: 2, count: 5)
      + [Int](repeating: 1, count: 10) + [Int](repeating: 0, count: 30)
    #expect(try counts(next.drain("q")) == expected)
  }

  // MARK: Absurd records

  @Test func absurdCountsDoNoHarm() throws {
    try publish(0..<3)
    try channel.declare("plain", isDurable: true)
    try channel.publish("m", key: "plain", isPersistent: true)
    broker.durableTurn()
    let lane = try #require(broker.queue("q")?.lane)
    let plain = try #require(broker.queue("plain")?.lane.id)
    let journal = broker.journal
    for (id, counts) in [
      (lane.id, [(1, 7), (1, 3), (2, 0), (900, 5), (UInt64.max, .max), (0, 1)]),
      (plain, [(1, 9)]), (77, [(1, 1)]), (UInt32.max, []),
    ] as [(UInt32, [(UInt64, UInt32)])] {
      DeliveryCountsRecord.raw(
        lane: id, counts: counts.map { DeliveryCount(sequence: $0.0, count: $0.1) }
      ).append(to: journal)
    }
    DeliveryCountsRecord.raw(
      lane: lane.id, counts: [DeliveryCount(sequence: 3, count: .max)]
    ).append(to: journal)
    let (again, next) = try afterCrash()
    let deliveries = try (0..<3).map { _ in try #require(try next.take("q", isAutomatic: false)) }
    #expect(try counts(deliveries) == [7, 1, Int(UInt32.max)])
    next.recover()
    again.finishChores()
    #expect(try counts(next.drain("q")) == [8, 2, Int(UInt32.max)])
    #expect(try counts(next.drain("plain")) == [0])
    again.durableTurn()
    #expect(again.queue("q")?.lane.counts?.byteCount == 0)
  }

  // MARK: A log that failed

  /// Has the log fail, and delivers what it was not told of.
  private func failLog() throws {
    try publish(0..<8)
    broker.durableTurn()
    try giveBack(2)
    broker.durableTurn()
    disk.fail(.write, ".segment", code: 5)
    try channel.startConfirming()
    try broker.turn { try channel.publish("lost", key: "q", isPersistent: true) }
    broker.work(3)
    try #require(broker.journal.failure != nil)
    channel.close()
  }

  private func served() throws -> [Delivery] {
    let other = broker.connect()
    let reader = other.open()
    try reader.consume("q", tag: "c", isAutomatic: true)
    broker.work(2)
    return other.deliveries()
  }

  @Test func whatWasDeliveredAfterTheLogFailedIsRedelivered() throws {
    try failLog()
    #expect(try broker.files("log-failed").count == 1)
    #expect(try served().prefix(8).map(\.text) == texts(0..<8))
    let (again, next) = try afterCrash(of: broker)
    #expect(again.recovery.isAfterFailure)
    let deliveries = try next.drain("q").prefix(8)
    #expect(deliveries.map(\.text) == texts(0..<8))
    #expect(deliveries.count(where: \.isRedelivered) == 8)
    #expect(try counts(Array(deliveries)).prefix(3) == [1, 1, 0])
    again.durableTurn()
    again.drainWorkers()
    #expect(try again.files("log-failed").isEmpty)
  }

  /// The file goes when the log knows, and not before; what comes later is not taken for delivered.
  @Test func theNoteGoesWhenTheLogKnows() throws {
    try failLog()
    _ = try served()
    broker.drainWorkers()
    let directory = try broker.directory.copy()
    for _ in 0..<3 {
      // Ends before anything was committed.
      let early = try TestBroker(in: directory.copy(), settings: .moving, disk: FaultyDisk())
      early.drainWorkers()
      #expect(try early.files("log-failed").count == 1)
      #expect(early.recovery.isAfterFailure)
    }
    let again = try TestBroker(in: directory, settings: .moving, disk: FaultyDisk())
    let reader = again.connect().open()
    try reader.publish("new", key: "q", isPersistent: true)
    again.durableTurn()
    again.drainWorkers()
    #expect(try again.files("log-failed").isEmpty)
    let third = try again.restarted(settings: .moving)
    #expect(!third.recovery.isAfterFailure)
    let deliveries = try third.connect().open().drain("q")
    #expect(deliveries.count(where: \.isRedelivered) == deliveries.count - 1)
    #expect(deliveries.last?.text == "new")
    #expect(deliveries.last?.isRedelivered == false)
  }

  /// Nothing can be noted: that is told, and deliveries go on.
  @Test func whereTheNoteCannotBeMadeTheOperatorIsTold() throws {
    try publish(0..<3)
    broker.durableTurn()
    disk.set { operation, path in
      let isNote = FaultyDisk.contains(path, "log-failed")
      return operation == .open && isNote || operation == .write ? 5 : nil
    }
    try channel.startConfirming()
    try broker.turn { try channel.publish("lost", key: "q", isPersistent: true) }
    broker.work(3)
    #expect(broker.takeProblem()?.contains("could not be noted that the journal failed") == true)
    #expect(try served().prefix(3).map(\.text) == texts(0..<3))
  }
}
