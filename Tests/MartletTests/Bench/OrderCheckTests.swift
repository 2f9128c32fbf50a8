import Testing

@testable import martlet

@Suite struct OrderCheckTests {
  @Test func whatGoesUpIsInOrder() {
    var order = OrderCheck(queues: 2, publishers: 2)
    #expect(order.observe(number(0, 0), queue: 0) == .expected)
    #expect(order.observe(number(0, 1), queue: 0) == .expected)
    #expect(order.observe(number(1, 0), queue: 0) == .expected)
    #expect(order.observe(number(0, 0), queue: 1) == .expected)
    // Other consumers may have had those between.
    #expect(order.observe(number(0, 9), queue: 0) == .expected)
  }

  @Test func whatComesAgainOrLateIsNot() {
    var order = OrderCheck(queues: 1, publishers: 1)
    #expect(order.observe(number(0, 5), queue: 0) == .expected)
    #expect(order.observe(number(0, 5), queue: 0) == .misordered)
    #expect(order.observe(number(0, 4), queue: 0) == .misordered)
    #expect(order.observe(number(0, 6), queue: 0) == .expected)
  }

  @Test func strangersAreNoticedWherePublishersAreKnown() {
    var order = OrderCheck(queues: 1, publishers: 3)
    #expect(order.observe(number(3, 0), queue: 0) == .foreign)
    var lenient = OrderCheck(queues: 1, publishers: nil)
    #expect(lenient.observe(.max, queue: 0) == .expected)
    #expect(order.observe(number(0, 0), queue: 9) == .expected)
  }

  private func number(_ publisher: UInt64, _ sequence: UInt64) -> UInt64 {
    publisher << 48 | sequence
  }
}
