import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A crash while a batch was being written: the log ends anywhere.
@Suite struct LogCutTests {
  /// What a broker must find when the log ends at a position.
  private struct Moment {
    let position: Int
    let contents: [Name: [BrokerModel.Entry]]
    /// Messages so far.
    let publishedCount: Int

    func texts(_ queue: Name) -> Set<String> { Set((contents[queue] ?? []).map(\.text)) }
  }

  @Test(arguments: Seeds.all)
  func aLogThatEndsBehindABatchSaysWhatWasTrueThen(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let run = try BrokerModelRun(seed: seed, broker: TestBroker(settings: Self.settings))
    let moments = try Self.moments(run)
    for _ in 0..<10 {
      let moment = random.element(moments)!
      let cut = try Self.cut(run.broker, at: moment.position)
      try run.expectContents(TestBroker(in: cut), moment.contents)
    }
  }

  @Test(arguments: Seeds.all)
  func aLogThatEndsWithinABatchSaysNothingThatWasNeverTrue(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let run = try BrokerModelRun(seed: seed, broker: TestBroker(settings: Self.settings))
    let moments = try Self.moments(run)
    for _ in 0..<10 {
      let index = random.number(1..<moments.count)
      let (before, after) = (moments[index - 1], moments[index])
      guard before.position < after.position else { continue }
      let position = random.number(before.position..<after.position)
      let broker = try TestBroker(in: Self.cut(run.broker, at: position))
      let channel = broker.connect().open()
      let passing = run.model.published[before.publishedCount..<after.publishedCount]
      for name in broker.vhost.destinations.keys {
        let texts = try channel.drain(name).map(\.text)
        let possible = before.texts(name).union(after.texts(name)).union(passing)
        #expect(Set(texts).isSubset(of: possible), "seed \(seed), position \(position)")
        // What was there before and behind the batch was there all the time.
        let lasting = before.texts(name).intersection(after.texts(name))
        #expect(lasting.isSubset(of: texts), "seed \(seed), position \(position)")
        let numbers = texts.map { Int($0.prefix { $0 != ":" })! }
        #expect(numbers == numbers.sorted(), "seed \(seed), position \(position)")
      }
      broker.expectNothingHeld()
    }
  }

  /// No segment is given up while moments are collected.
  private static var settings: Journal.Settings {
    var settings = Journal.Settings.quick
    settings.segmentBytes = 3 << 20
    return settings
  }

  /// Turns with a batch each, and what is durable behind each.
  private static func moments(_ run: BrokerModelRun) throws -> [Moment] {
    var moments: [Moment] = []
    for _ in 0..<120 {
      try run.doStep()
      run.broker.durableTurn()
      moments.append(
        Moment(
          position: run.broker.journal.durablePosition, contents: run.model.afterCrash(),
          publishedCount: run.model.published.count))
    }
    run.broker.quietTurn()
    #expect(run.broker.journal.statistics.checkpoints == 0)
    return moments
  }

  /// The log up to `position`; zeros follow. Checkpoints and lane files are as they are.
  static func cut(_ broker: TestBroker, at position: Int) throws -> TemporaryDirectory {
    let copy = try TemporaryDirectory()
    let source = broker.directory.path
    let size = broker.journal.settings.segmentBytes
    for name in try FileSystem.list(source) where !name.hasPrefix("spare-") {
      guard name.hasSuffix(".segment") else {
        let file = try File(copy.path + "/" + name, .readWrite, creates: true)
        try file.write(at: 0, FileSystem.readWhole(source + "/" + name))
        continue
      }
      let kept = SegmentHeader.pageBytes + max(0, position - Int(name.prefix(16), radix: 16)!)
      let file = try File(copy.path + "/" + name, .readWrite, creates: true)
      try file.write(at: SegmentHeader.pageBytes + size - 1, [0])
      try file.write(at: 0, Array(FileSystem.readWhole(source + "/" + name).prefix(kept)))
    }
    return copy
  }
}
