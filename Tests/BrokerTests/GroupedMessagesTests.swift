import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Messages in groups of the log: one that leaves a queue for others is in one place or in the other.
@Suite struct GroupedMessagesTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    // A start reads to the end of its last segment, and here are hundreds of starts.
    var settings = Journal.Settings.quick
    settings.segmentBytes = 64 << 10
    broker = try TestBroker(settings: settings)
    client = broker.connect()
    channel = client.open()
    try broker.vhost.declare(exchange: "x", "fanout", isDurable: true)
    try channel.declare("a", isDurable: true)
    for name in ["b", "c"] as [Name] {
      try channel.declare(name, isDurable: true)
      try channel.bind(name, to: "x")
    }
  }

  /// The log gets it as one that the first message of `a` leaves it and arrives in `b` and `c`.
  private func move(_ body: [UInt8]) throws {
    let lane = try #require(broker.queue("a")).lane
    broker.journal.group {
      #expect(throws: Never.self) {
        if body.count > Self.largeBytes {
          try channel.publishLarge(body, to: "x", key: "", isPersistent: true)
        } else {
          try channel.publish(body, to: "x", key: "", isPersistent: true)
        }
      }
      var ranges = [Lane.SettledRange(first: 1, count: 1)]
      Settlements.append(broker.journal, lane: lane.id, ranges: &ranges)
    }
  }

  private static let largeBytes = 64 << 10

  private func counts(_ broker: TestBroker) -> [Int?] {
    (["a", "b", "c"] as [Name]).map { broker.queue($0)?.messageCount }
  }

  @Test func aMessageThatMovesIsInOnePlaceWhereverTheLogEnds() throws {
    try broker.durableTurn { try channel.publish("1", key: "a", isPersistent: true) }
    let begin = broker.journal.durablePosition
    try broker.durableTurn { try move([1, 2, 3]) }
    var found: Set<[Int?]> = []
    for position in begin...broker.journal.durablePosition {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      found.insert(counts(other))
      other.close()
    }
    #expect(found == [[1, 0, 0], [0, 1, 1]])
  }

  /// Of a size that fills many segments, in a block of its own.
  @Test func aLargeMessageMovesAsOne() throws {
    try broker.durableTurn { try channel.publish("1", key: "a", isPersistent: true) }
    let begin = broker.journal.endPosition
    try broker.durableTurn { try move([UInt8](repeating: 7, count: 300_000)) }
    let end = broker.journal.endPosition
    for position in stride(from: begin, to: end, by: 20_000) {
      let other = try TestBroker(in: LogCutTests.cut(broker, at: position))
      #expect(counts(other) == [1, 0, 0])
      other.close()
    }
    #expect(counts(try broker.crashed()) == [0, 1, 1])
  }

  @Test func messagesOfGroupsAreConfirmedTogetherAndWithOneCommit() throws {
    try channel.startConfirming()
    broker.durableTurn()
    _ = client.events()
    let commits = broker.journal.statistics.commits
    try broker.turn { for number in 0..<3 { try move([UInt8(number)]) } }
    #expect(client.events() == [])
    broker.durableTurn()
    #expect(client.events() == [.confirmed(3, isMultiple: true, on: 1)])
    #expect(broker.journal.statistics.commits == commits + 1)
  }

  /// What a group costs is its two marks.
  @Test func aGroupAddsFortyBytes() throws {
    let plain = broker.journal.endPosition
    var grouped = plain
    try broker.turn {
      try channel.publish("1", to: "x", key: "", isPersistent: true)
      grouped = broker.journal.endPosition
      broker.journal.group {
        #expect(throws: Never.self) {
          try channel.publish("1", to: "x", key: "", isPersistent: true)
        }
      }
      #expect(broker.journal.endPosition - grouped == grouped - plain + 40)
    }
  }
}
