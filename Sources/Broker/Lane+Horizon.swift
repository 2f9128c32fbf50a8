import Base
import Journal

/// How far messages may be delivered besides what deliveries themselves ask for.
extension Lane {
  /// The message that comes next is one that the broker moves: nobody gets it before the log has that.
  func awaitMove() {
    guard isDurable, horizon.moves(to: nextSequence) else { return }
    queue.broker.noteMoving(self)
  }

  /// The log has all moves of the turn when it is durable up to there.
  func movesEnded(at position: Int) { horizon.movesEnd(at: position) }

  /// Where the log will be when a message that may not be delivered yet may be. No group is being written.
  func awaitedPosition() -> Int {
    horizon.movesEnd(at: journal.endPosition)
    return horizon.awaitedPosition
  }

  /// Tells the log exactly what was delivered, once nobody takes messages any more.
  func tightenHorizon() {
    guard isDurable, !isDeleted, journal.failure == nil, let exact = horizon.tightened() else {
      return
    }
    DeliveredRecord.append(to: journal, lane: id, sequence: exact)
    horizon.requested(exact, at: journal.endPosition)
  }
}
