import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// What exchanges and queues remember of messages is there after a repair, unless it stood where the damage was.
@Suite struct RememberedRepairTests {
  private static let header: Name = "x-deduplication-header"

  @Test func repairKeepsWhatIsRemembered() throws {
    let broker = try TestBroker(in: Self.repaired())
    let channel = broker.connect().open()
    for exchange in ["x", ""] as [Name] {
      for value in ["a", "b", "c"] {
        try channel.publish(value, to: exchange, key: "q", headers: [Self.header: .string(value)])
      }
    }
    // The queue knows both values, the exchange as well; a message of each passes.
    #expect(try channel.drain("q").map(\.text) == ["c"])
    try channel.declare("fresh")
    try channel.bind("fresh", to: "kept")
    #expect(try channel.drain("fresh").map(\.text) == ["1", "2", "3"])
  }

  @Test func repairKeepsWhatStreamsHaveOfTheirProducers() throws {
    let broker = try TestBroker(in: Self.repaired())
    let channel = broker.connect().open()
    try broker.durableTurn {
      for sequence in 1...4 { try Self.publish(sequence, on: channel) }
    }
    try broker.expect(["1", "2", "3", "4"])
  }

  private static func publish(_ sequence: Int, on channel: Channel) throws {
    try channel.publish(
      "\(sequence)", key: "s",
      headers: ["x-stream-producer": .string("p"), "x-stream-sequence": .int64(Int64(sequence))])
  }

  /// A copy of a journal whose log was damaged in one message, and that was repaired.
  private static func repaired() throws -> TemporaryDirectory {
    let data = try journal()
    let journal = data.path + "/journal"
    let verification = try JournalVerification(directory: journal)
    #expect(verification.problems.count == 1)
    let repair = JournalRepair(verification) { _ in [] }
    try repair.perform(in: data.path + "/repair", now: 1_700_000_000_000)
    #expect(try JournalVerification(directory: journal).problems == [])
    return try copy(of: journal)
  }

  /// A journal whose log is damaged in one message.
  private static func journal() throws -> TemporaryDirectory {
    let broker = try TestBroker(settings: .damagedLog)
    let channel = broker.connect().open()
    let asks: FieldTable = ["x-message-deduplication": .bool(true)]
    try broker.durableTurn {
      try broker.vhost.declare(exchange: "x", "direct", isDurable: true, arguments: asks)
      try broker.vhost.declare(exchange: "kept", "x-recent-history", isDurable: true)
      try channel.declare("q", isDurable: true, arguments: asks)
      try channel.declare("other", isDurable: true)
      try channel.bind("q", to: "x", key: "q")
      try channel.declareStream()
    }
    try broker.durableTurn {
      var properties = BasicProperties()
      for value in ["a", "b"] {
        properties.headers = FieldTable([.init(name: header, value: .string(value))])
        try channel.publish(value, to: "x", key: "q", properties: properties, isPersistent: true)
      }
      for text in ["1", "2"] { try channel.publish(text, to: "kept", key: "k", isPersistent: true) }
    }
    _ = try channel.drain("q")
    try broker.durableTurn { for sequence in [1, 2] { try publish(sequence, on: channel) } }
    try broker.durableTurn { try channel.publish("damaged", key: "other", isPersistent: true) }
    try broker.durableTurn {
      try channel.publish("3", to: "kept", key: "k", isPersistent: true)
      try publish(3, on: channel)
    }
    broker.close()
    let data = try TemporaryDirectory()
    try FileSystem.makeDirectories(data.path + "/journal")
    for name in try FileSystem.list(broker.directory.path) where !name.hasPrefix("spare-") {
      var bytes = try FileSystem.readWhole(broker.directory.path + "/" + name)
      if let place = place(of: "damaged", in: bytes) { bytes[place] ^= 1 }
      try File(data.path + "/journal/" + name, .readWrite, creates: true).write(at: 0, bytes)
    }
    return data
  }

  private static func place(of text: String, in bytes: [UInt8]) -> Int? {
    let wanted = Array(text.utf8)
    return bytes.indices.dropLast(wanted.count).first {
      bytes[$0] == wanted[0] && bytes[$0..<$0 + wanted.count].elementsEqual(wanted)
    }
  }

  private static func copy(of journal: String) throws -> TemporaryDirectory {
    let copy = try TemporaryDirectory()
    let streams = PartitionFiles.directory
    var names = try FileSystem.list(journal)
    if names.contains(streams) {
      try FileSystem.makeDirectories(copy.path + "/" + streams)
      names.removeAll { $0 == streams }
      names += try FileSystem.list(journal + "/" + streams).map { streams + "/" + $0 }
    }
    for name in names {
      try File(copy.path + "/" + name, .readWrite, creates: true)
        .write(at: 0, FileSystem.readWhole(journal + "/" + name))
    }
    return copy
  }
}
