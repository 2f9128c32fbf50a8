import Journal

/// Messages leave that somebody has cancelled.
extension Lane {
  /// Messages that wait leave from wherever they are. Their sequences ascend.
  func remove(_ sequences: [UInt64]) {
    waiting.remove(
      sequences,
      entry: { entry in
        journal.release(entry.location.block)
        if entry.isDurable || entry.sequence <= movedUpTo { noteSettled(entry.sequence) }
      },
      moved: { sequence, run in
        journal.release(run.block)
        noteSettled(sequence)
      },
      gone: noteGone)
  }
}
