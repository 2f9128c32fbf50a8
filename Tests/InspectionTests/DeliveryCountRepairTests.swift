import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import BrokerTests
@testable import Inspection
@testable import Journal

/// What the tools make of counts of deliveries, and of a log that failed.
@Suite struct DeliveryCountRepairTests {
  private let data: TemporaryDirectory
  private var journal: String { data.path + "/journal" }

  /// Messages of a quorum queue of which the first three came back twice, partly in lane files.
  init() throws {
    data = try TemporaryDirectory()
    let broker = try TestBroker.moving()
    let channel = broker.connect().open()
    try channel.declare("q", isDurable: true, arguments: ["x-queue-type": .string("quorum")])
    try publish(0..<20, on: channel)
    for _ in 0..<2 {
      let tags = try (0..<3).map { _ in
        try #require(try channel.take("q", isAutomatic: false)).tag
      }
      for tag in tags { try channel.reject(tag, isMultiple: false, requeues: true) }
    }
    broker.durableTurn()
    try broker.moveOut(channel)
    try publish(20..<30, on: channel)
    broker.close()
    try FileSystem.makeDirectories(journal)
    for name in try FileSystem.list(broker.directory.path) where !name.hasPrefix("spare-") {
      try File(journal + "/" + name, .readWrite, creates: true)
        .write(at: 0, FileSystem.readWhole(broker.directory.path + "/" + name))
    }
  }

  private func publish(_ range: Range<Int>, on channel: Channel) throws {
    for number in range {
      try channel.publish(
        "\(number):" + String(repeating: "x", count: 1500), key: "q", isPersistent: true)
    }
  }

  private func verify() throws -> JournalVerification {
    try JournalVerification(directory: journal)
  }

  private func repair() throws {
    try JournalRepair(try verify()).perform(in: data.path + "/repair", now: 1_700_000_000_000)
  }

  private func found() throws -> [Delivery] {
    let copy = try TemporaryDirectory()
    for name in try FileSystem.list(journal) {
      try File(copy.path + "/" + name, .readWrite, creates: true)
        .write(at: 0, FileSystem.readWhole(journal + "/" + name))
    }
    let broker = try TestBroker(in: copy)
    return try withExtendedLifetime(broker) { try broker.connect().open().drain("q") }
  }

  @Test func countsAreKeptOverARepair() throws {
    let verification = try verify()
    #expect(verification.problems == [])
    #expect(verification.queues.first { $0.name == "q" }?.count == 30)
    let before = try found()
    let expected = [2, 2, 2] + [Int](repeating: 0, count: 27)
    #expect(try before.map { try $0.count() } == expected)
    try repair()
    let after = try found()
    #expect(after.map(\.text) == before.map(\.text))
    #expect(try after.map { try $0.count() } == expected)
    #expect(after.map(\.isRedelivered) == before.map(\.isRedelivered))
  }

  @Test func aRepairKnowsThatTheLogFailed() throws {
    _ = try File(journal + "/" + FailureMark.name, .readWrite, creates: true)
    let verification = try verify()
    #expect(verification.problems == [])
    #expect(verification.survey.isAfterFailure)
    #expect(try found().count(where: \.isRedelivered) == 30)
    try repair()
    #expect(try !verify().survey.isAfterFailure)
    #expect(try found().count(where: \.isRedelivered) == 30)
  }

  /// A checkpoint that nothing vouches for says nothing of deliveries.
  @Test func countsOfADamagedCheckpointAreNotBelieved() throws {
    let name = try #require(FileSystem.list(journal).last { $0.hasSuffix(".checkpoint") })
    try damage(journal + "/" + name, at: 70)
    #expect(try verify().problems.isEmpty == false)
    try repair()
    let counts = try found().map { try $0.count() }
    #expect(counts.count == 30)
    #expect(Set(counts).isSubset(of: [0, 2]))
  }
}
