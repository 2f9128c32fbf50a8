import Base
import Journal

/// Messages of a lane that are in one block of a lane file, and have no entries in memory.
struct LaneRun: BitwiseCopyable {
  let block: UInt32
  /// Messages at the block's beginning that have left the lane before.
  let skip: UInt32
  /// Messages that are left.
  fileprivate(set) var count: UInt32
  /// Messages that need not survive stand between them, and did not: they are passed over.
  var isFiltered = false
  /// Messages between them have left: `Waiting.exceptions` has which.
  var hasExceptions = false
  /// Messages of the block with sequences below the first and above the last have left.
  let first: UInt64
  let last: UInt64
  /// None of them expires before; some that did sooner may have left.
  let earliestExpiry: UInt64
  /// Where `RunTimes` has it; negative if none of its messages is waited for.
  var place: Int32 = -1

  /// All of its messages have left; its block is somebody else's.
  var isEmpty: Bool { count == 0 }
}

/// The never delivered messages of a lane, in order: the front in memory, the middle on disk, and
/// the tail in memory.
///
/// As long as nothing is on disk all is in the front. The middle opens into the front, block by
/// block, when the front is empty; the tail becomes the front when the middle is empty too.
struct Waiting: ~Copyable {
  private(set) var front = EntryLane()
  /// The first one has messages; others may have lost all of theirs.
  private(set) var runs = Ring<LaneRun>()
  private var emptyRuns = 0
  private var runTimes: RunTimes?
  private(set) var tail = EntryLane()
  /// By their blocks, the messages that have left from the middle of runs.
  private var exceptions: [UInt32: SequenceSet] = [:]
  /// Ranges of sequences of `exceptions`.
  private var exceptionRanges = 0
  /// Messages of `runs`.
  private var movedCount = 0
  /// New messages go to the tail.
  private var isSplit = false

  var count: Int { front.count &+ movedCount &+ tail.count }
  /// There is no message, neither in memory nor on disk.
  @inline(__always) var isEmpty: Bool { front.count == 0 && movedCount == 0 }
  /// The next message; nil if there is none, or while it is on disk.
  @inline(__always) var first: Entry? { front.first }
  /// The block on disk that has the next messages; nil while they are in memory.
  var nextRun: LaneRun? { front.count == 0 ? runs.first : nil }

  @inline(__always)
  mutating func append(_ entry: Entry) {
    if isSplit { tail.append(entry) } else { front.append(entry) }
  }

  /// A message that leaves at a date, wherever it stands then.
  mutating func append(_ entry: Entry, leavingAt date: Int64) {
    if isSplit {
      tail.append(entry, leavingAt: date)
    } else {
      front.append(entry, leavingAt: date)
    }
  }

  /// Takes the next message, which is in memory.
  @inline(__always)
  mutating func removeFirst() -> Entry {
    let entry = front.removeFirst()
    if isSplit, front.count == 0 { join() }
    return entry
  }

  @inline(never)
  private mutating func join() {
    guard runs.isEmpty else { return }
    swap(&front, &tail)
    isSplit = false
  }

  // MARK: On disk

  /// The blocks that come next, in order, at most `count`.
  func forEachRun(atMost count: Int, _ body: (UInt32) -> Void) {
    for index in 0..<min(count, runs.count) where !runs[index].isEmpty { body(runs[index].block) }
  }

  /// Messages in memory that will be next soon, some way from each other, at most `count`.
  func forEachAhead(atMost count: Int, _ body: (Entry) -> Void) {
    front.forEachAhead(atMost: count, body)
  }

  /// Brings the messages of the next block on disk into the empty front; the block is in memory.
  /// `entry` has with each the date at which it leaves though it is not the first.
  /// `gone` gets the sequences between them that nobody has: they had left before the block was
  /// written, or did not survive a restart; the log is yet to be told of them.
  mutating func open(
    _ journal: Journal, entry: (LaneEntry) -> (Entry, leavingAt: Int64?),
    gone: (ClosedRange<UInt64>) -> Void
  ) {
    let (run, left) = takeFirstRun()
    movedCount -= Int(run.count)
    invariant(front.count == 0, "a lane was opened that has a front")
    var next = run.first
    journal.forEachInLane(run.block, from: Int(run.skip)) { moved in
      if run.isFiltered, !moved.isDurable { return }
      guard (run.first...run.last).contains(moved.sequence) else { return }
      if moved.sequence > next { gone(next...moved.sequence - 1) }
      next = moved.sequence + 1
      if let left, left.contains(moved.sequence) { return }
      switch entry(moved) {
      case (let entry, .some(let date)): front.append(entry, leavingAt: date)
      case (let entry, nil): front.append(entry)
      }
    }
    if next <= run.last { gone(next...run.last) }
    invariant(front.count == Int(run.count), "a block of a lane has another number of messages")
  }

  /// The first run, and what has left from its middle; no empty one comes next.
  private mutating func takeFirstRun() -> (LaneRun, left: SequenceSet?) {
    let run = runs.removeFirst()
    runTimes?.forget(run)
    while let next = runs.first, next.isEmpty {
      _ = runs.removeFirst()
      emptyRuns -= 1
    }
    return (run, takeExceptions(of: run))
  }

  private mutating func takeExceptions(of run: LaneRun) -> SequenceSet? {
    guard run.hasExceptions, let left = exceptions.removeValue(forKey: run.block) else {
      return nil
    }
    exceptionRanges -= left.ranges.count
    return left
  }

  /// The sequences, behind `first` and up to `last`, of what is in lane files, at most so many times: in
  /// order, each message once. Messages between them may stand in the same files and have left, before
  /// or after a restart. Returns the last sequence that was seen, nil at the end.
  func forEachMoved(
    behind first: UInt64, upTo last: UInt64, atMost limit: Int,
    _ body: (ClosedRange<UInt64>) -> Void
  ) -> UInt64? {
    var left = limit
    var seen = first
    var isCut = false
    front.forEach(behind: first) { entry in
      guard entry.sequence <= last else { return false }
      guard left > 0 else {
        isCut = true
        return false
      }
      left -= 1
      seen = entry.sequence
      if entry.isDurable { body(entry.sequence...entry.sequence) }
      return true
    }
    if isCut { return seen }
    var index = firstRun(behind: seen)
    while index < runs.count, runs[index].first <= last {
      let run = runs[index]
      if run.isEmpty {
        index += 1
        continue
      }
      let range = max(run.first, seen + 1)...run.last
      guard run.hasExceptions, let exceptions = exceptions[run.block] else {
        guard left > 0 else { return seen }
        left -= 1
        body(range)
        seen = run.last
        index += 1
        continue
      }
      for part in exceptions.gaps(in: range) {
        guard left > 0 else { return seen }
        left -= 1
        body(part)
        seen = part.upperBound
      }
      seen = run.last
      index += 1
    }
    return nil
  }

  /// The first block on disk that ends behind a sequence.
  func firstRun(behind sequence: UInt64) -> Int {
    (0..<runs.count).partition { runs[$0].last <= sequence }
  }

  // MARK: Moving

  /// The messages in memory from the first one on, as long as `body` returns true; of those that
  /// were not on disk.
  func forEachUnmoved(_ body: (Entry) -> Bool) {
    if isSplit { tail.forEach(body) } else { front.forEach(body) }
  }

  /// As `forEachUnmoved`, from the first message behind a sequence on.
  func forEachUnmoved(behind sequence: UInt64, _ body: (Entry) -> Bool) {
    if isSplit {
      tail.forEach(behind: sequence, body)
    } else {
      front.forEach(behind: sequence, body)
    }
  }

  /// Removes what was not on disk and has sequences up to `last`; `release` gets each. Returns how
  /// many there were; `append` then puts so many back as runs.
  mutating func removeUnmoved(upTo last: UInt64, _ release: (Entry) -> Void) -> Int {
    if isSplit { return Self.remove(from: &tail, upTo: last, release) }
    let count = Self.remove(from: &front, upTo: last, release)
    if count > 0 {
      swap(&front, &tail)
      isSplit = true
    }
    return count
  }

  private static func remove(
    from entries: inout EntryLane, upTo last: UInt64, _ release: (Entry) -> Void
  ) -> Int {
    var count = 0
    while let entry = entries.first, entry.sequence <= last {
      release(entries.removeFirst())
      count += 1
    }
    return count
  }

  /// Appends a block on disk behind those that are there; `left` are messages that have left from its
  /// middle.
  mutating func append(_ run: LaneRun, left: SequenceSet? = nil) {
    isSplit = true
    var run = run
    if run.earliestExpiry != LaneBlock.neverExpires {
      arm(&run, at: Int64(clamping: run.earliestExpiry))
    }
    runs.append(run)
    movedCount += Int(run.count)
    guard run.hasExceptions, let left else { return }
    exceptions[run.block] = left
    exceptionRanges += left.ranges.count
  }

  private mutating func arm(_ run: inout LaneRun, at date: Int64) {
    var times = runTimes ?? RunTimes()
    runTimes = nil
    times.arm(&run, at: date)
    runTimes = times
  }

  /// Recovery has appended everything.
  mutating func restored() {
    if isSplit, front.count == 0 { join() }
  }

  private static let entriesPerStep = 8

  /// Removes the first `limit` messages, of which the last has a sequence up to `last`, as far as
  /// `steps` reach. `entry` gets those in memory, and `run` those of a block on disk, in order.
  /// Returns how many went.
  mutating func removeFirst(
    _ limit: Int, upTo last: UInt64, _ steps: inout Int, entry: (Entry) -> Void,
    run: (LaneRun) -> Void
  ) -> Int {
    var left = limit
    while left > 0, steps > 0 {
      steps -= 1
      if front.count > 0 {
        left -= Self.removeFirst(min(left, Self.entriesPerStep), of: &front, entry)
      } else if let first = runs.first {
        left -= removeFirst(left, of: first, upTo: last, run)
      } else if tail.count > 0 {
        left -= Self.removeFirst(min(left, Self.entriesPerStep), of: &tail, entry)
      } else {
        break
      }
    }
    if isSplit, front.count == 0 { join() }
    return limit - left
  }

  private static func removeFirst(
    _ limit: Int, of entries: inout EntryLane, _ body: (Entry) -> Void
  ) -> Int {
    let count = min(limit, entries.count)
    for _ in 0..<count { body(entries.removeFirst()) }
    return count
  }

  private mutating func removeFirst(
    _ limit: Int, of whole: LaneRun, upTo last: UInt64, _ body: (LaneRun) -> Void
  ) -> Int {
    let count = min(limit, Int(whole.count))
    movedCount -= count
    guard count < Int(whole.count) else {
      _ = takeFirstRun()
      body(whole)
      return count
    }
    // The block was written meanwhile, and has messages behind those that go.
    body(
      LaneRun(
        block: whole.block, skip: whole.skip, count: UInt32(count), first: whole.first,
        last: last, earliestExpiry: whole.earliestExpiry))
    // Where others stand between them, they are passed over by their sequences.
    let skipped = whole.isFiltered || whole.hasExceptions ? 0 : UInt32(count)
    runs[0] = LaneRun(
      block: whole.block, skip: whole.skip + skipped, count: whole.count - UInt32(count),
      isFiltered: whole.isFiltered, hasExceptions: whole.hasExceptions, first: last + 1,
      last: whole.last,
      earliestExpiry: whole.earliestExpiry, place: whole.place)
    return count
  }

  // MARK: Leaving from the middle

  /// When the next message may be over that does not wait until it is the first, as a date.
  var nextEarly: Int64? {
    let next = min(front.nextEarly ?? .max, tail.nextEarly ?? .max, runTimes?.next ?? .max)
    return next == .max ? nil : next
  }

  /// Entries can be missing between those in memory.
  var hasGaps: Bool { front.early != nil || tail.early != nil }

  /// Takes out a message in memory whose date has come, wherever it stands; those in `kept` stay, and are
  /// looked at again at `later`.
  mutating func removeEarly(
    at now: Int64, keeping kept: Range<UInt64>, until later: Int64
  ) -> Entry? {
    if let entry = front.removeEarly(at: now, keeping: kept, until: later) {
      if isSplit, front.count == 0 { join() }
      return entry
    }
    return tail.removeEarly(at: now, keeping: kept, until: later)
  }

  /// A block on disk that has messages whose date may have come. It is shown once: `remove` says when it is
  /// to be looked at again.
  mutating func takeDueRun(at now: Int64) -> LaneRun? {
    guard let last = runTimes?.takeDue(at: now) else { return nil }
    guard let run = run(endingAt: last) else {
      invariantFailed("a time is of no block that has messages")
    }
    return run
  }

  private func run(endingAt last: UInt64) -> LaneRun? {
    let index = firstRun(behind: last - 1)
    guard index < runs.count, runs[index].last == last, !runs[index].isEmpty else { return nil }
    return runs[index]
  }

  /// How many blocks are being read whose time has come.
  var awaitedRunCount: Int { runTimes?.awaited.count ?? 0 }

  /// The block of a run whose time has come is being read; `takeAwaitedRun` shows it again.
  mutating func awaits(_ run: LaneRun) { runTimes?.awaited.append(run.last) }

  /// A run that was waited for and whose block is on its way no longer. It is shown once.
  mutating func takeAwaitedRun(_ hasCome: (UInt32) -> Bool) -> LaneRun? {
    guard let awaited = runTimes?.awaited, !awaited.isEmpty else { return nil }
    var found: LaneRun?
    let left = awaited.filter { last in
      // It may have been opened as the next one, or purged.
      guard let run = run(endingAt: last) else { return false }
      guard found == nil, hasCome(run.block) else { return true }
      found = run
      return false
    }
    runTimes?.awaited = left
    return found
  }

  /// The messages of a run that wait, as they stand in its block, which is in memory.
  func forEachOf(_ run: LaneRun, _ journal: Journal, _ body: (LaneEntry) -> Void) {
    let left = run.hasExceptions ? exceptions[run.block] : nil
    journal.forEachInLane(run.block, from: Int(run.skip)) { moved in
      if run.isFiltered, !moved.isDurable { return }
      guard (run.first...run.last).contains(moved.sequence) else { return }
      if let left, left.contains(moved.sequence) { return }
      body(moved)
    }
  }

  /// Takes out some messages of a run. The others are looked at again at a date. When there are none, `gone` gets the
  /// sequences between its messages that nobody had.
  mutating func remove(
    _ sequences: [UInt64], of run: LaneRun, lookingAgainAt date: Int64?,
    gone: (ClosedRange<UInt64>) -> Void
  ) {
    let index = firstRun(behind: run.last - 1)
    var run = runs[index]
    movedCount -= sequences.count
    run.count -= UInt32(sequences.count)
    if run.isEmpty {
      var left = exceptions[run.block] ?? SequenceSet()
      for sequence in sequences { left.insert(sequence) }
      left.gaps(in: run.first...run.last).forEach(gone)
      return removeEmptied(run, at: index)
    }
    if !sequences.isEmpty {
      var left = exceptions[run.block] ?? SequenceSet()
      exceptionRanges -= left.ranges.count
      for sequence in sequences { left.insert(sequence) }
      exceptionRanges += left.ranges.count
      exceptions[run.block] = left
      run.hasExceptions = true
    }
    if let date { arm(&run, at: date) }
    runs[index] = run
  }

  /// Takes out messages that wait here, by their sequences, which ascend. `entry` gets those that have an entry in
  /// memory, `moved` those that are in a block on disk, and `gone` the sequences between the messages of such a block
  /// that nobody had, once it has no more.
  mutating func remove(
    _ sequences: [UInt64], entry: (Entry) -> Void, moved: (UInt64, LaneRun) -> Void,
    gone: (ClosedRange<UInt64>) -> Void
  ) {
    front.remove(sequences[...], entry)
    guard isSplit else { return }
    var rest = sequences[...]
    while let sequence = rest.first, movedCount > 0 {
      let index = firstRun(behind: sequence - 1)
      guard index < runs.count else { break }
      let run = runs[index]
      rest = rest.drop { $0 < run.first }
      let here = rest.prefix { $0 <= run.last }
      rest = rest.dropFirst(here.count)
      if !here.isEmpty { remove(here, of: run, moved, gone) }
    }
    // What was behind the last block may be in front meanwhile.
    if isSplit { tail.remove(sequences[...], entry) } else { front.remove(sequences[...], entry) }
    if isSplit, front.count == 0 { join() }
  }

  private mutating func remove(
    _ sequences: ArraySlice<UInt64>, of run: LaneRun, _ moved: (UInt64, LaneRun) -> Void,
    _ gone: (ClosedRange<UInt64>) -> Void
  ) {
    let left = exceptions[run.block] ?? SequenceSet()
    let some = sequences.filter { !run.isEmpty && !left.contains($0) }
    for sequence in some { moved(sequence, run) }
    if !some.isEmpty { remove(some, of: run, lookingAgainAt: nil, gone: gone) }
  }

  private static let emptyRunsMin = 64

  private mutating func removeEmptied(_ run: LaneRun, at index: Int) {
    if index == 0 {
      _ = takeFirstRun()
      if front.count == 0 { join() }
      return
    }
    runTimes?.forget(run)
    _ = takeExceptions(of: run)
    var run = run
    run.hasExceptions = false
    run.place = -1
    runs[index] = run
    emptyRuns += 1
    guard emptyRuns > Self.emptyRunsMin, emptyRuns > runs.count / 2 else { return }
    for _ in 0..<runs.count {
      let run = runs.removeFirst()
      if !run.isEmpty { runs.append(run) }
    }
    emptyRuns = 0
  }

  /// What its entries take of memory.
  var byteCount: Int {
    front.byteCount + tail.byteCount + front.earlyByteCount + tail.earlyByteCount
      + exceptionRanges * MemoryLayout<ClosedRange<UInt64>>.stride + (runTimes?.byteCount ?? 0)
  }

  /// An empty lane gives back what it keeps.
  mutating func trim() {
    front.trim()
    tail.trim()
  }
}
