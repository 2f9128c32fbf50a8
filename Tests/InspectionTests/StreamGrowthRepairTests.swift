import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// A stream with more partitions than it was declared with.
@Suite struct StreamGrowthRepairTests {
  private static let count = 300

  /// A journal in which two partitions were added, before its last checkpoint or behind it.
  private static func journal(isInCheckpoint: Bool) throws -> TemporaryDirectory {
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declareStream()
    try channel.bind("s", to: "amq.fanout", key: "")
    func publish(_ range: Range<Int>) throws {
      try broker.durableTurn {
        for number in range {
          try channel.publish("\(number)", to: "amq.fanout", key: Name("k\(number)"))
        }
      }
    }
    try publish(0..<100)
    if isInCheckpoint {
      broker.turn { broker.vhost.addPartitions(2, toStream: "s") { _ in } }
      try publish(100..<200)
      try broker.moveOut(channel)
    }
    broker.quietTurn()
    broker.broker.beginCheckpoint()
    broker.quietTurn()
    if !isInCheckpoint {
      broker.turn { broker.vhost.addPartitions(2, toStream: "s") { _ in } }
      try publish(100..<200)
    }
    try publish(200..<count)
    broker.close()
    let data = try TemporaryDirectory()
    try FileSystem.makeDirectories(data.path + "/journal")
    try TemporaryDirectory.copyFiles(from: broker.directory.path, to: data.path + "/journal") {
      !$0.hasPrefix("spare-")
    }
    return data
  }

  @Test(arguments: [true, false]) func itIsSoundAndSurvivesARepair(isInCheckpoint: Bool) throws {
    let data = try Self.journal(isInCheckpoint: isInCheckpoint)
    let journal = data.path + "/journal"
    let verification = try JournalVerification(directory: journal)
    #expect(verification.problems == [])
    let found = verification.queues.filter { $0.name == "s" }
    #expect(found.reduce(0) { $0 + $1.count } == Self.count)
    try JournalRepair(verification).perform(in: data.path + "/repair", now: 1_700_000_000_000)
    let copy = try TemporaryDirectory()
    try TemporaryDirectory.copyFiles(from: journal, to: copy.path)
    let broker = try TestBroker(in: copy)
    #expect(broker.stream()?.partitions.count == 3)
    let records = try broker.readAll()
    #expect(Set(records.map(\.text)) == Set((0..<Self.count).map(String.init)))
    #expect(records.count == Self.count && Set(records.map(\.partition)) == [0, 1, 2])
  }
}
