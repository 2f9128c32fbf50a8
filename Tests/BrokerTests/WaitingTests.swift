import Testbed
import Testing

@testable import Broker
@testable import Journal

/// What waits in a lane against an array, on the blocks of a real journal.
@Suite struct WaitingTests {
  /// What waits, in the plainest way.
  private struct Model {
    var front: [UInt64] = []
    var runs: [[UInt64]] = []
    var tail: [UInt64] = []
    var isSplit = false
    /// Had left from the middle of runs.
    var left: Set<UInt64> = []

    /// What stands in files, as far as each can be said at once.
    var moved: [ClosedRange<UInt64>] {
      front.map { $0...$0 }
        + runs.flatMap { run in
          var parts = SequenceSet()
          for sequence in run[0]...run[run.count - 1] where !left.contains(sequence) {
            parts.append(sequence...sequence)
          }
          return parts.ranges
        }
    }

    var all: [UInt64] { front + runs.joined() + tail }

    mutating func append(_ sequence: UInt64) {
      if isSplit { tail.append(sequence) } else { front.append(sequence) }
    }

    mutating func join() {
      guard isSplit, front.isEmpty, runs.isEmpty else { return }
      (front, tail) = (tail, [])
      isSplit = false
    }
  }

  /// Does random things to both.
  private final class Run {
    let broker: TestBroker
    var random: SeededRandom
    var waiting = Waiting()
    var model = Model()
    var nextSequence: UInt64 = 1
    let comment: Comment

    init(_ seed: UInt64) throws {
      broker = try TestBroker()
      random = SeededRandom(seed)
      comment = "seed \(seed)"
    }

    var journal: Journal { broker.journal }

    func append() {
      let empty: [UInt8] = []
      let message = broker.broker.appendMessage(
        names: ([0, 0] as [UInt8]).span.bytes, properties: empty.span.bytes,
        body: [UInt8](repeating: 1, count: random.number(0..<30_000)).span.bytes,
        destinations: 0, isDurable: random.isOne(in: 2))
      journal.retain(message.location.block)
      waiting.append(Entry(sequence: nextSequence, location: message.location, flags: .durable))
      model.append(nextSequence)
      nextSequence += UInt64(random.number(1..<4))
    }

    func take() {
      guard !model.front.isEmpty else { return open() }
      let entry = waiting.removeFirst()
      #expect(entry.sequence == model.front.removeFirst(), comment)
      journal.release(entry.location.block)
      model.join()
    }

    func open() {
      #expect((waiting.nextRun == nil) == model.runs.isEmpty, comment)
      guard let run = waiting.nextRun else { return }
      journal.load(run.block)
      broker.turns { journal.isResident(run.block) }
      var gone: [UInt64] = []
      waiting.open(journal, entry: { (Entry($0), leavingAt: nil) }, gone: { gone += Array($0) })
      let opened = Set(model.runs[0])
      #expect(
        gone == (run.first...run.last).filter { !opened.contains($0) && !model.left.contains($0) },
        comment)
      model.front = model.runs.removeFirst()
    }

    /// As the broker does it: what was not on disk, from the first one on, moves; some of it is taken
    /// meanwhile.
    func spill() throws {
      var entries: [LaneEntry] = []
      let count = random.number(1..<200)
      waiting.forEachUnmoved { entry in
        entries.append(entry.inLane)
        return entries.count < count
      }
      guard let last = entries.last else { return }
      var selection = SpillSelection(
        blocks: Array(Set(entries.map(\.location.block))),
        isDurable: entries.contains(where: \.isDurable))
      selection.lanes = [
        .init(id: 1, entries: entries.shuffled(using: &random) + entries.prefix(3))
      ]
      journal.spill(selection, cutoff: .init(log: 0, memory: 0), now: 0)
      // A block that would be opened is waited for in turns, which would end the round, too.
      if random.isOne(in: 2) {
        for _ in 0..<random.number(0..<20) where !model.front.isEmpty { take() }
      }
      if random.isOne(in: 12) { purge() }
      broker.drainWorkers()
      let moved = try #require(journal.poll(now: 0).moved).lanes
      let left = waiting.removeUnmoved(upTo: last.sequence) { journal.release($0.location.block) }
      expectMoved(left, upTo: last.sequence)
      let taken = entries.count - left
      for block in moved[0].blocks where block.start + block.offsets.count > taken {
        let first = max(block.start, taken)
        let end = block.start + block.offsets.count
        append(block, skip: first - block.start, entries[first..<end].map(\.sequence))
      }
      journal.finishSpill(moved)
    }

    /// As recovery finds some blocks, messages from the middle have left.
    private func append(_ block: MovedBlock, skip: Int, _ sequences: [UInt64]) {
      var left = SequenceSet()
      if random.isOne(in: 3) {
        for sequence in sequences.dropFirst().dropLast() where random.isOne(in: 3) {
          left.append(sequence...sequence)
        }
      }
      model.left.formUnion(left.ranges.joined())
      let there = sequences.filter { !left.contains($0) }
      journal.retain(block.block, count: there.count)
      waiting.append(
        LaneRun(
          block: block.block, skip: UInt32(skip), count: UInt32(there.count),
          hasExceptions: there.count < sequences.count, first: sequences[0],
          last: sequences[sequences.count - 1], earliestExpiry: block.earliestExpiry),
        left: there.count < sequences.count ? left : nil)
      model.runs.append(there)
    }

    private func expectMoved(_ count: Int, upTo last: UInt64) {
      if model.isSplit {
        #expect(count == model.tail.count { $0 <= last }, comment)
        model.tail.removeAll { $0 <= last }
      } else {
        #expect(count == model.front.count { $0 <= last }, comment)
        model.front.removeAll { $0 <= last }
        if count > 0 {
          (model.tail, model.front) = (model.front, [])
          model.isSplit = true
        }
      }
    }

    func purge() {
      var seen: [UInt64] = []
      while waiting.count > 0 {
        var steps = 5
        _ = waiting.removeFirst(
          .max, upTo: .max, &steps,
          entry: { entry in
            seen.append(entry.sequence)
            journal.release(entry.location.block)
          },
          run: { run in
            seen += model.runs.first { $0.first == run.first } ?? []
            #expect(run.last == seen.last, comment)
            journal.release(run.block, count: Int(run.count))
          })
      }
      #expect(seen == model.all, comment)
      model = Model()
    }

    func check() {
      #expect(waiting.count == model.all.count, comment)
      #expect(waiting.isEmpty == model.all.isEmpty, comment)
      #expect(waiting.first?.sequence == model.front.first, comment)
      var moved: [ClosedRange<UInt64>] = []
      var cursor: UInt64? = 0
      while let behind = cursor {
        cursor = waiting.forEachMoved(behind: behind, upTo: .max, atMost: 3) { moved.append($0) }
      }
      #expect(moved == model.moved, comment)
      var unmoved: [UInt64] = []
      waiting.forEachUnmoved { entry in
        unmoved.append(entry.sequence)
        return true
      }
      #expect(unmoved == (model.isSplit ? model.tail : model.front), comment)
      #expect(broker.referenceCount == model.all.count, comment)
    }
  }

  @Test(arguments: Seeds.all)
  func whatWaitsAgreesWithAnArray(seed: UInt64) throws {
    let run = try Run(seed)
    for _ in 0..<150 {
      switch run.random.number(0..<20) {
      case 0..<6: for _ in 0..<run.random.number(1..<60) { run.append() }
      case 6..<13: for _ in 0..<run.random.number(1..<60) { run.take() }
      case 13..<19: try run.spill()
      default: run.purge()
      }
      run.check()
    }
    while !run.model.all.isEmpty { run.take() }
    run.check()
    run.broker.expectNothingHeld()
  }
}
