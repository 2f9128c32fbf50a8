import Base
import Journal

/// Messages of a lane that are in one block of a lane file, and have no entries in memory.
struct LaneRun: BitwiseCopyable {
  let block: UInt32
  /// Messages at the block's beginning that have left the lane before.
  let skip: UInt32
  /// Messages that are left.
  let count: UInt32
  /// Messages that need not survive stand between them, and did not: they are passed over.
  var isFiltered = false
  /// Messages between them have left: `Waiting.exceptions` has which.
  var hasExceptions = false
  /// Messages of the block with sequences below the first and above the last have left.
  let first: UInt64
  let last: UInt64
  /// None of them expires before; some that did sooner may have left.
  let earliestExpiry: UInt64
}

/// The never delivered messages of a lane, in order: the front in memory, the middle on disk, and
/// the tail in memory.
///
/// As long as nothing is on disk all is in the front. The middle opens into the front, block by
/// block, when the front is empty; the tail becomes the front when the middle is empty too.
struct Waiting: ~Copyable {
  private var front = EntryLane()
  private var runs = Ring<LaneRun>()
  private var tail = EntryLane()
  /// By their blocks, the messages that have left from the middle of runs.
  private var exceptions: [UInt32: SequenceSet] = [:]
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
    for index in 0..<min(count, runs.count) { body(runs[index].block) }
  }

  /// Messages in memory that will be next soon, some way from each other, at most `count`.
  func forEachAhead(atMost count: Int, _ body: (Entry) -> Void) {
    front.forEachAhead(atMost: count, body)
  }

  /// Brings the messages of the next block on disk into the empty front; the block is in memory.
  /// `gone` gets the sequences between them that nobody has: they had left before the block was
  /// written, or did not survive a restart; the log is yet to be told of them.
  mutating func open(
    _ journal: Journal, entry: (LaneEntry) -> Entry, gone: (ClosedRange<UInt64>) -> Void
  ) {
    let run = runs.removeFirst()
    movedCount -= Int(run.count)
    let left = takeExceptions(of: run)
    invariant(front.count == 0, "a lane was opened that has a front")
    var next = run.first
    journal.forEachInLane(run.block, from: Int(run.skip)) { moved in
      if run.isFiltered, !moved.isDurable { return }
      guard (run.first...run.last).contains(moved.sequence) else { return }
      if moved.sequence > next { gone(next...moved.sequence - 1) }
      next = moved.sequence + 1
      if let left, left.contains(moved.sequence) { return }
      front.append(entry(moved))
    }
    if next <= run.last { gone(next...run.last) }
    invariant(front.count == Int(run.count), "a block of a lane has another number of messages")
  }

  private mutating func takeExceptions(of run: LaneRun) -> SequenceSet? {
    run.hasExceptions ? exceptions.removeValue(forKey: run.block) : nil
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
  private func firstRun(behind sequence: UInt64) -> Int {
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
    runs.append(run)
    movedCount += Int(run.count)
    if run.hasExceptions { exceptions[run.block] = left }
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
      _ = runs.removeFirst()
      _ = takeExceptions(of: whole)
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
      earliestExpiry: whole.earliestExpiry)
    return count
  }

  /// What its entries take of memory.
  var byteCount: Int { front.byteCount + tail.byteCount }

  /// An empty lane gives back what it keeps.
  mutating func trim() {
    front.trim()
    tail.trim()
  }
}
