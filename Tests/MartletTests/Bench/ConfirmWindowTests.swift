import Testing

@testable import martlet

@Suite struct ConfirmWindowTests {
  @Test func multipleSettlesEverythingBefore() {
    var window = ConfirmWindow(size: 10)
    var latency = LatencyHistogram()
    window.publish(count: 6, stamp: 100, step: 0)
    #expect(window.available == 4)
    #expect(window.settle(upTo: 4, isMultiple: true, now: 150, into: &latency) == 4)
    #expect(window.outstanding == 2)
    #expect(window.available == 8)
    #expect(latency.count == 4)
    #expect(latency.max == 50)
  }

  @Test func tagZeroWithMultipleSettlesAll() {
    var window = ConfirmWindow(size: 10)
    var latency = LatencyHistogram()
    window.publish(count: 6, stamp: 100, step: 0)
    #expect(window.settle(upTo: 0, isMultiple: true, now: 150, into: &latency) == 6)
    #expect(window.outstanding == 0)
  }

  @Test func singleConfirmsMayComeInAnyOrder() {
    var window = ConfirmWindow(size: 4)
    var latency = LatencyHistogram()
    window.publish(count: 4, stamp: 100, step: 10)
    #expect(window.settle(upTo: 3, isMultiple: false, now: 200, into: &latency) == 1)
    #expect(latency.min == 80)
    // The first is outstanding: its slot is not free.
    #expect(window.available == 0)
    #expect(window.settle(upTo: 1, isMultiple: false, now: 200, into: &latency) == 1)
    #expect(window.available == 1)
    #expect(window.settle(upTo: 4, isMultiple: true, now: 200, into: &latency) == 2)
    #expect(window.outstanding == 0)
    #expect(window.available == 4)
  }

  @Test func whatIsNotOutstandingIsNotSettled() {
    var window = ConfirmWindow(size: 4)
    var latency = LatencyHistogram()
    #expect(window.settle(upTo: 1, isMultiple: false, now: 0, into: &latency) == 0)
    #expect(window.settle(upTo: 0, isMultiple: true, now: 0, into: &latency) == 0)
    window.publish(count: 3, stamp: 0, step: 0)
    #expect(window.settle(upTo: 2, isMultiple: false, now: 0, into: &latency) == 1)
    #expect(window.settle(upTo: 2, isMultiple: false, now: 0, into: &latency) == 0)
    #expect(window.settle(upTo: 4, isMultiple: true, now: 0, into: &latency) == 0)
    #expect(window.settle(upTo: .max, isMultiple: true, now: 0, into: &latency) == 0)
    #expect(window.outstanding == 2)
  }

  @Test func itAgreesWithASetOverManySteps() {
    var window = ConfirmWindow(size: 50)
    var latency = LatencyHistogram()
    var outstanding: Set<UInt64> = []
    var next: UInt64 = 1
    for step in 0..<2000 {
      let room = window.available
      let count = room == 0 ? 0 : Int.random(in: 0...min(7, room))
      window.publish(count: count, stamp: Int64(step), step: 0)
      for _ in 0..<count {
        outstanding.insert(next)
        next += 1
      }
      guard let tag = outstanding.randomElement() else { continue }
      let isMultiple = Bool.random()
      let expected = isMultiple ? outstanding.filter { $0 <= tag } : [tag]
      outstanding.subtract(expected)
      let settled = window.settle(
        upTo: tag, isMultiple: isMultiple, now: Int64(step), into: &latency)
      #expect(settled == expected.count)
      #expect(window.outstanding == outstanding.count)
    }
  }
}
