import Base
import Journal

/// Messages that are not consumed promptly move from the log into lane files.
extension Broker {
  /// Begins a round if one is due.
  func spill() {
    guard let cutoff = journal.spillCutoff(now: time) else { return }
    journal.beginRound()
    let selector = SpillSelector(self, cutoff: cutoff)
    self.selector = selector
    walks.begin(selector, for: nil)
  }

  /// A round is over: entries refer to the new blocks, and what still waits in its lane has none.
  func finishSpill(_ moved: [MovedLane]) {
    let mover = SpillMover(self, spilling, moved)
    spilling = []
    self.mover = mover
    walks.begin(mover, for: nil)
  }

  /// A message of a deleted queue is never read again.
  func forget(_ entry: inout Entry) {
    guard entry.location.block != journal.forgotten else { return }
    journal.retain(journal.forgotten)
    journal.release(entry.location.block)
    entry.location = RecordLocation(block: journal.forgotten, offset: 0)
  }
}
