import Journal
import Testbed
import Testing

@testable import Broker

@Suite struct UnacknowledgedTests {
  private let broker: TestBroker
  private let lane: Unmanaged<Lane>

  init() throws {
    broker = try TestBroker()
    lane = .passUnretained(broker.vhost.replyQueue.lane)
  }

  private func delivery(_ tag: UInt64) -> PendingDelivery {
    let entry = Entry(
      sequence: tag * 3, location: RecordLocation(block: 0, offset: 0), flags: [])
    return PendingDelivery(tag: tag, entry: entry, lane: lane, consumer: nil)
  }

  @Test func aTagIsTakenOutOnce() {
    var unacknowledged = Unacknowledged()
    for tag in 1...3 as ClosedRange<UInt64> { unacknowledged.append(delivery(tag)) }
    #expect(unacknowledged.remove(2)?.tag == 2)
    #expect(unacknowledged.remove(2)?.tag == nil)
    #expect(unacknowledged.remove(4)?.tag == nil)
    #expect(unacknowledged.remove(0)?.tag == nil)
    #expect(unacknowledged.count == 2)
    #expect(unacknowledged.removeFirst().tag == 1)
    #expect(unacknowledged.first?.tag == 3)
    #expect(unacknowledged.remove(3)?.entry.sequence == 9)
    #expect(unacknowledged.count == 0)
  }

  @Test func tagsThatNeededNoAcknowledgementLeaveGaps() {
    var unacknowledged = Unacknowledged()
    for tag in [2, 4, 5, 9] as [UInt64] { unacknowledged.append(delivery(tag)) }
    #expect(unacknowledged.remove(3)?.tag == nil)
    let found = (unacknowledged.contains(6), unacknowledged.contains(9))
    #expect(found == (false, true))
    #expect(unacknowledged.remove(4)?.tag == 4)
    #expect(unacknowledged.remove(9)?.tag == 9)
    #expect(unacknowledged.remove(2)?.tag == 2)
    #expect(unacknowledged.first?.tag == 5)
    #expect(unacknowledged.count == 1)
  }

  @Test func mostOfManyCanBeTakenOutInAnyOrder() {
    var random = SeededRandom(5)
    var unacknowledged = Unacknowledged()
    for tag in 1...5000 as ClosedRange<UInt64> { unacknowledged.append(delivery(tag)) }
    for tag in (2...5000 as ClosedRange<UInt64>).shuffled(using: &random) {
      if unacknowledged.remove(tag)?.tag != tag { Issue.record("tag \(tag)") }
    }
    #expect(unacknowledged.count == 1)
    #expect(unacknowledged.removeFirst().tag == 1)
    unacknowledged.append(delivery(5001))
    #expect(unacknowledged.remove(5001)?.tag == 5001)
  }

  @Test func aTagIsFoundBehindThatWasSettledLongBefore() {
    var unacknowledged = Unacknowledged()
    for tag in 1...100_000 as ClosedRange<UInt64> { unacknowledged.append(delivery(tag)) }
    let bytes = unacknowledged.byteCount
    for tag in 2...99_999 as ClosedRange<UInt64> where unacknowledged.remove(tag) == nil {
      Issue.record("tag \(tag)")
    }
    #expect(unacknowledged.count == 2)
    #expect(unacknowledged.byteCount < bytes / 100)
    let found = (unacknowledged.contains(50_000), unacknowledged.contains(100_000))
    #expect(found == (false, true))
    unacknowledged.append(delivery(100_001))
    #expect(unacknowledged.remove(100_001)?.tag == 100_001)
    #expect(unacknowledged.remove(100_000)?.tag == 100_000)
    #expect(unacknowledged.removeFirst().tag == 1)
    #expect(unacknowledged.count == 0)
    #expect(unacknowledged.byteCount < 3 * Unacknowledged.chunkBytes)
  }

  @Test func memoryIsCountedForTheConnectionAndForAll() {
    let all = broker.broker
    let own = DeliveryMeter(all)
    do {
      var unacknowledged = Unacknowledged()
      unacknowledged.meter = own
      for tag in 1...1000 as ClosedRange<UInt64> { unacknowledged.append(delivery(tag)) }
      #expect(own.bytes >= 1000 * MemoryLayout<PendingDelivery>.stride)
      #expect(all.deliveryBytes == own.bytes)
      while unacknowledged.count > 1 { _ = unacknowledged.removeFirst() }
      #expect(own.bytes <= 2 * Unacknowledged.chunkBytes)
    }
    #expect(own.bytes == 0)
    #expect(all.deliveryBytes == 0)
  }

  @Test(arguments: [false, true])
  func walkingShowsWhatWaitsOnceInSlices(hasGaps: Bool) {
    var unacknowledged = Unacknowledged()
    var expected: [UInt64] = []
    for number in 1...1000 as ClosedRange<UInt64> {
      unacknowledged.append(delivery(hasGaps ? number * 2 : number))
    }
    for number in 1...1000 as ClosedRange<UInt64> {
      let tag = hasGaps ? number * 2 : number
      if number % 3 == 0 || (300..<700).contains(number) {
        _ = unacknowledged.remove(tag)
      } else {
        expected.append(tag)
      }
    }
    var seen: [UInt64] = []
    var last: UInt64? = 0
    while let place = last {
      var count = 0
      last = unacknowledged.walk(behind: place, atMost: 37) {
        seen.append($0.tag)
        count += 1
      }
      #expect(count == 37 || last == nil)
    }
    #expect(seen == expected)
  }

  /// Whether tags have gaps, and how many are outstanding: around the size where it compacts.
  @Test(arguments: Seeds.all, [false, true])
  func randomUseAgreesWithAModel(seed: UInt64, hasGaps: Bool) {
    var random = SeededRandom(seed)
    var unacknowledged = Unacknowledged()
    var model: [UInt64] = []
    var nextTag: UInt64 = 1
    for step in 0..<12_000 {
      // Waves that rise to about 3000 and fall to few.
      let isRising = (step / 3000).isMultiple(of: 2)
      if model.isEmpty || random.number(0..<10) < (isRising ? 8 : 1) {
        nextTag += hasGaps && random.isOne(in: 3) ? UInt64(random.number(2..<5)) : 1
        unacknowledged.append(delivery(nextTag))
        model.append(nextTag)
      } else if random.isOne(in: 20) {
        let first = unacknowledged.removeFirst()
        if first.tag != model.removeFirst() { Issue.record("seed \(seed), step \(step)") }
      } else {
        remove(from: &unacknowledged, &model, nextTag, &random, "seed \(seed), step \(step)")
      }
      if unacknowledged.count != model.count || unacknowledged.first?.tag != model.first {
        Issue.record("seed \(seed), step \(step)")
        return
      }
    }
    while !model.isEmpty { #expect(unacknowledged.removeFirst().tag == model.removeFirst()) }
    #expect(unacknowledged.count == 0)
  }

  /// A tag that is there, or any up to a few behind the last.
  private func remove(
    from unacknowledged: inout Unacknowledged, _ model: inout [UInt64], _ nextTag: UInt64,
    _ random: inout SeededRandom, _ comment: Comment
  ) {
    let tag =
      random.isOne(in: 3) ? UInt64(random.number(0..<Int(nextTag) + 3)) : random.element(model)!
    let index = model.firstIndex(of: tag)
    if unacknowledged.contains(tag) != (index != nil) { Issue.record(comment) }
    let removed = unacknowledged.remove(tag)
    if removed?.tag != index.map({ model[$0] }) { Issue.record(comment) }
    if let removed, removed.entry.sequence != 3 * tag { Issue.record(comment) }
    if let index { model.remove(at: index) }
  }
}
