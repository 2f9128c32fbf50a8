import Journal

/// Records that the reader's queue had and has no more: they are looked up anew when it is their turn again.
extension StreamFeed {
  /// A client gave a record back, or lost it.
  func giveBack(_ entry: Entry, of lane: Lane) {
    let offset = entry.sequence - 1
    let index = Int(lane.priority)
    guard var cursor = cursors[index], cursor.lane === lane else { return }
    cursor.again.insert(offset)
    // It comes before what was never delivered.
    takeBack(&cursor)
    cursors[index] = cursor
    if cursor.isLeaving { tellIfDone(index) } else { queue.touch() }
  }

  /// What was not delivered and moves out of the log is forgotten, and looked up anew.
  func rewind(before cutoff: SpillCutoff) {
    let journal = stream.broker.journal
    rewind { journal.isBefore(cutoff, $1.location.block) }
  }

  /// The same for what was not delivered and is given up.
  func rewind(before offset: UInt64, of partition: Partition) {
    rewind { $0 === partition && $1.sequence <= offset }
  }

  private func rewind(where isLeaving: (Partition, Entry) -> Bool) {
    for index in cursors.indices {
      guard var cursor = cursors[index], let first = cursor.lane.waiting.first,
        isLeaving(cursor.partition, first)
      else { continue }
      takeBack(&cursor)
      cursors[index] = cursor
    }
    queue.touch()
  }

  /// The queue has nothing of the partition any more that was not delivered.
  func takeBack(_ cursor: inout StreamCursor) {
    var next: UInt64?
    while cursor.lane.waiting.count > 0 {
      let entry = cursor.lane.take()
      stream.broker.journal.release(entry.location.block)
      if entry.cameBack {
        cursor.again.insert(entry.sequence - 1)
      } else if next == nil {
        next = entry.sequence - 1
      }
    }
    guard let next else { return }
    cursor.next = min(cursor.next, next)
    close(&cursor.page, of: cursor.partition)
  }
}
