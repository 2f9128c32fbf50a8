import Journal

/// Messages that wait are looked at where they are.
extension Waiting {
  /// What it costs to come to a message in memory, in steps of a chore: chunks are passed over one by one.
  var stepsToFind: Int { (front.count + tail.count) / 512 }

  /// How far reading came.
  enum Reading {
    case end
    /// There is more behind the last message.
    case cut
    /// What comes next is in a block that is not in memory.
    case needs(block: UInt32)
  }

  /// Shows the messages behind a sequence in order, at most so many; those on disk as far as their blocks are
  /// in memory. Nothing changes. `body` returns false where it cannot go on.
  func read(
    behind first: UInt64, atMost limit: Int, _ journal: Journal, _ body: (Entry) -> Bool
  ) -> Reading {
    var view = View(left: limit, seen: first)
    front.forEach(behind: view.seen) { view.shows($0, body) }
    var index = firstRun(behind: view.seen)
    while !view.isCut, index < runs.count {
      let run = runs[index]
      index += 1
      if run.isEmpty { continue }
      guard journal.isResident(run.block) else { return .needs(block: run.block) }
      forEachOf(run, journal) { moved in
        if !view.isCut, moved.sequence > view.seen { _ = view.shows(Entry(moved), body) }
      }
    }
    if !view.isCut { tail.forEach(behind: view.seen) { view.shows($0, body) } }
    return view.isCut ? .cut : .end
  }

  /// How far messages were shown.
  private struct View {
    var left: Int
    var seen: UInt64
    var isCut = false

    /// Shows the next one; returns whether to go on.
    mutating func shows(_ entry: Entry, _ body: (Entry) -> Bool) -> Bool {
      guard left > 0, body(entry) else {
        isCut = true
        return false
      }
      left -= 1
      seen = entry.sequence
      return true
    }
  }
}
