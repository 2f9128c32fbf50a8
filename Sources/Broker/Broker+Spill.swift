import Base
import Journal

/// Spilling: messages that are not consumed promptly move from the log into lane files, so that the
/// log stays as short as its window and memory does not grow with what waits.
///
/// A round has three parts. `SpillSelector` finds, lane by lane, what stands in blocks before the
/// journal's cutoff. `SpillWriter`, on the background thread, copies that into one lane file,
/// sorted by lane. When the file is durable `SpillMover` lets entries in memory go, replaces them
/// by runs, and has what has left its lane meanwhile refer to the new blocks. Selecting and taking
/// go on in slices between turns, so that messages are delivered, given back and settled in the
/// middle of a round.
///
/// What would break: recovery passes over what the log has of a lane up to "moved up to", so that
/// a message the selector missed below its bound would be lost by the next crash. A message that
/// still refers to its old block behind a round would move twice, and come twice. So whatever
/// changes its place while one of the two walks is told to it (`Broker.walked`).
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
  func finishSpill(_ moved: [MovedLane], _ movedPartitions: [MovedPartition]) {
    let mover = SpillMover(self, spilling, moved, spillingPartitions, movedPartitions)
    spilling = []
    spillingPartitions = []
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
