import Testing

@testable import Broker

@Suite struct RecoveringLaneTests {
  /// A message that need not survive leaves its settlement in the log, and no record of its own: a
  /// later message with its sequence would be settled by it at the next recovery.
  @Test func aSequenceThatWasSettledIsNotUsedAgain() {
    let lane = RecoveringLane()
    lane.settle(first: 43, count: 2) { _ in }
    #expect(lane.nextSequence == 45)
  }
}
