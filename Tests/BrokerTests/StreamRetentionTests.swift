import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// Segments go by their bytes and their age.
@Suite struct StreamRetentionTests {
  private let broker: TestBroker
  private let channel: Channel

  init() throws {
    broker = try TestBroker.moving()
    channel = broker.connect().open()
  }

  private func texts(_ range: Range<Int>) -> [String] {
    range.map { "\($0):" + String(repeating: "x", count: 1000) }
  }

  private func publish(_ range: Range<Int>) throws {
    for text in texts(range) { try channel.publish(text, key: "s") }
  }

  private func fill(rounds: Int) throws {
    for round in 0..<rounds {
      try publish(round * 50..<round * 50 + 50)
      try broker.moveOut(channel)
    }
  }

  @Test func theOldestSegmentsGoAboveTheBytes() throws {
    try channel.declareStream(
      "s",
      ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-length-bytes": .int64(120_000)]
    )
    try fill(rounds: 8)
    let partition = try broker.partition()
    #expect(partition.start > 0)
    #expect(partition.start == partition.segments[0].base)
    #expect(partition.segmentBytes <= 120_000 + 60_000, "but for the one that is written")
    #expect(partition.segmentBytes > 60_000)
    broker.durableTurn()
    broker.drainWorkers()
    #expect(try broker.streamFiles().count == partition.segments.count)
    #expect(try broker.streamFiles(".index").count == partition.segments.count)
    let start = Int(partition.start)
    #expect(broker.stream()?.readyCount == 400 - start)
    try broker.expect(texts(start..<400), from: Int64(start))
    let again = try broker.crashed(settings: .moving)
    try again.expect(texts(start..<400), from: Int64(start))
    #expect(broker.takeProblem() == nil)
  }

  @Test func segmentsGoWhenTheyAreTooOld() throws {
    try channel.declareStream(
      "s", ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-age": .string("1h")])
    try fill(rounds: 4)
    #expect(try broker.partition().start == 0)
    _ = broker.rest(milliseconds: 50 * 60_000)
    #expect(try broker.partition().start == 0)
    try publish(200..<250)
    try broker.moveOut(channel)
    #expect(try broker.partition().start == 0, "nothing is as old yet")
    _ = broker.rest(milliseconds: 15 * 60_000)
    let partition = try broker.partition()
    #expect(partition.start > 100 && partition.start <= 200, "\(partition.start)")
    broker.durableTurn()
    broker.drainWorkers()
    #expect(try broker.streamFiles().count == partition.segments.count)
  }

  /// A stream that nobody publishes to is looked at as well, also behind a start.
  @Test func segmentsOfAStreamAtRestGoBehindAStart() throws {
    try channel.declareStream(
      "s", ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-age": .string("1h")])
    try fill(rounds: 4)
    let again = try broker.crashed(settings: .moving)
    #expect(try again.partition().start == 0)
    _ = again.rest(milliseconds: 2 * 3_600_000)
    let partition = try again.partition()
    #expect(partition.start > 0)
    #expect(partition.segments.count == 1, "the one that is written stays")
  }

  @Test func aReaderThatFellOffIsTold() throws {
    try channel.declareStream(
      "s",
      ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-length-bytes": .int64(120_000)]
    )
    try publish(0..<50)
    let reader = try StreamReader(broker, prefetch: 5)
    let first = try reader.rest()
    #expect(first.map(\.offset) == Array(0..<5))
    #expect(first.allSatisfy { $0.skipped == nil })
    try fill(rounds: 8)
    let start = Int64(try broker.partition().start)
    #expect(start > 5)
    try reader.channel.acknowledge(first[4].tag, isMultiple: true)
    let next = try reader.read(5)
    #expect(next.map(\.offset) == Array(start..<start + 5))
    #expect(next.map(\.skipped) == [start - 5, nil, nil, nil, nil])
  }

  @Test func whatIsGivenBackAndGoneIsSkipped() throws {
    try channel.declareStream(
      "s",
      ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-length-bytes": .int64(120_000)]
    )
    try publish(0..<50)
    let reader = try StreamReader(broker, prefetch: 5)
    let first = try reader.rest()
    try fill(rounds: 8)
    let start = Int64(try broker.partition().start)
    try reader.channel.reject(first[4].tag, isMultiple: true, requeues: true)
    let next = try reader.read(5)
    #expect(next.map(\.offset) == Array(start..<start + 5))
    #expect(next.first?.skipped == start)
  }

  /// Readers of segments that go read on behind them.
  @Test func readersOfSegmentsThatGoReadOn() throws {
    try channel.declareStream(
      "s",
      ["x-stream-max-segment-size-bytes": .int64(40_000), "x-max-length-bytes": .int64(300_000)]
    )
    try fill(rounds: 5)
    let readers = try (1...4).map { try StreamReader(broker, prefetch: $0) }
    var last: [StreamRecord] = []
    for reader in readers { last.append(try #require(try reader.rest().last)) }
    for round in 5..<14 {
      try publish(round * 50..<round * 50 + 50)
      try broker.moveOut(channel)
      for (index, reader) in readers.enumerated() {
        try reader.channel.acknowledge(last[index].tag, isMultiple: true)
        let next = try reader.read(index + 1)
        #expect(next.count == index + 1)
        for record in next {
          let skipped = record.skipped ?? 0
          #expect(record.offset == last[index].offset! + 1 + skipped)
          #expect(record.text.hasPrefix("\(record.offset!):"))
          last[index] = record
        }
      }
    }
    #expect(broker.takeProblem() == nil)
  }
}
