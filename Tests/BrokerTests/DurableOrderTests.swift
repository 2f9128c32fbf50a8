import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What the broker gives up waits until the log durably says why. The log's thread is stopped at the worst
/// moment, and what a crash would leave then is looked at.
@Suite struct DurableOrderTests {
  /// Turns while the log's thread is stopped; all that was given to the other one is done.
  private func turnsWithoutTheLog(_ broker: TestBroker) throws {
    for _ in 0..<4 {
      broker.turn()
      let done = try JournalWake()
      broker.journal.background.submit { done.signal() }
      done.wait()
    }
  }

  /// What a crash at this moment leaves, while the log's thread is stopped.
  private func crashed(_ broker: TestBroker) throws -> TestBroker {
    try TestBroker(in: broker.directory.copy(), settings: .moving, disk: FaultyDisk())
  }

  /// A broker whose only message was moved out of the log, and is with a client.
  private func moved(_ disk: FaultyDisk) throws -> (TestBroker, Channel, Delivery) {
    let broker = try TestBroker.moving(disk)
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true)
    try channel.publish("m", key: "q", isPersistent: true)
    try broker.moveOut(channel)
    let delivery = try #require(try channel.take("q", isAutomatic: false))
    broker.quietTurn()
    #expect(try broker.files(".lanes").count == 1)
    return (broker, channel, delivery)
  }

  @Test func aFileStaysUntilTheLogSaysThatNobodyNeedsIt() throws {
    let disk = FaultyDisk()
    let (broker, channel, delivery) = try moved(disk)
    let lanes = try broker.files(".lanes")
    let gate = try Gate(disk, .write, ".segment")
    try broker.turn { try channel.acknowledge(delivery.tag, isMultiple: false) }
    gate.waitUntilReached()
    defer { gate.open() }
    try turnsWithoutTheLog(broker)
    #expect(try broker.files(".lanes") == lanes)
    let again = try crashed(broker)
    #expect(try again.connect().open().drain("q").map(\.text) == ["m"])
    gate.open()
    broker.durableTurn()
    broker.work()
    #expect(try broker.files(".lanes") == [])
  }

  @Test func aFileStaysUntilTheLogSaysThatItIsGone() throws {
    let disk = FaultyDisk()
    let (broker, channel, delivery) = try moved(disk)
    let lanes = try broker.files(".lanes")
    try broker.turn { try channel.acknowledge(delivery.tag, isMultiple: false) }
    broker.drainWorkers()
    // What was taken is durable, and the broker does not know that yet.
    let gate = try Gate(disk, .write, ".segment")
    broker.turn()
    gate.waitUntilReached()
    defer { gate.open() }
    try turnsWithoutTheLog(broker)
    #expect(try broker.files(".lanes") == lanes)
    #expect(try crashed(broker).queue("q")?.readyCount == 0)
    gate.open()
    broker.durableTurn()
    broker.work()
    #expect(try broker.files(".lanes") == [])
    #expect(try broker.crashed(settings: .moving).queue("q")?.readyCount == 0)
  }

  /// The log goes on by segments while a checkpoint is made: what happened since its beginning is not in it.
  @Test func aCheckpointNeedsTheLogFromItsBeginningOn() throws {
    var limits = BrokerLimits()
    limits.walkStepsPerTurn = 4
    limits.choreStepsPerTurn = 4
    let broker = try TestBroker(settings: .moving, limits: limits, disk: FaultyDisk())
    let channel = broker.connect().open()
    let names = (0..<600).map { Name("q\($0)") }
    for name in names { try channel.declare(name, isDurable: true) }
    try channel.declare("junk", isDurable: true)
    broker.durableTurn()
    broker.broker.beginCheckpoint()
    for _ in 0..<50 { broker.turn() }
    #expect(broker.broker.snapshot != nil, "it is being made still")
    // Some stand in the checkpoint already.
    for number in stride(from: 0, to: names.count, by: 10) { try channel.delete(names[number]) }
    try broker.age(channel)
    #expect(broker.broker.snapshot != nil, "it is being made still")
    broker.turns { broker.journal.statistics.checkpoints == 1 }
    let again = try broker.crashed(settings: .moving)
    #expect(again.vhost.destinationCount == names.count - names.count / 10 + 1)
  }
}
