import Base

/// When messages of a lane expire that cannot wait until they are the first, since one before them lives
/// longer: by the chunks of their entries, of which each has its next time.
///
/// It costs 8 bytes for each entry of a chunk that has such a message, and nothing for others.
final class EarlyTimes {
  struct Times {
    var chunk: UnsafeMutableRawPointer
    /// Dates by the places of its entries; `never` for those that do not expire, or leave when they are the
    /// first.
    var dates: UnsafeMutablePointer<Int64>
  }

  static let never = Int64.max

  var chunks: [Times?] = []
  private var free: [Int32] = []
  /// Dates, by indices of `chunks`.
  var deadlines = Deadlines()
  private(set) var byteCount = 0

  deinit {
    for chunk in chunks { chunk?.dates.deallocate() }
  }

  func add(_ chunk: UnsafeMutableRawPointer, capacity: Int) -> Int {
    let dates = UnsafeMutablePointer<Int64>.allocate(capacity: capacity)
    dates.initialize(repeating: Self.never, count: capacity)
    byteCount += capacity * MemoryLayout<Int64>.stride
    let added = Times(chunk: chunk, dates: dates)
    if let index = free.popLast() {
      chunks[Int(index)] = added
      return Int(index)
    }
    chunks.append(added)
    return chunks.count - 1
  }

  func remove(_ index: Int, capacity: Int) {
    chunks[index]?.dates.deallocate()
    chunks[index] = nil
    free.append(Int32(index))
    byteCount -= capacity * MemoryLayout<Int64>.stride
    deadlines.cancel(index)
  }
}

extension EntryLane {
  /// What `early` takes of memory.
  var earlyByteCount: Int { early?.byteCount ?? 0 }

  /// When the next entry may be over that does not wait until it is the first, as a date; nil for never.
  var nextEarly: Int64? { early?.deadlines.next }

  /// Appends an entry that leaves at a date, wherever it stands then.
  mutating func append(_ entry: Entry, leavingAt date: Int64) {
    append(entry)
    let early = early ?? EarlyTimes()
    self.early = early
    let header = Self.header(tailChunk.unsafelyUnwrapped)
    if header.pointee.early < 0 {
      header.pointee.early = Int32(
        early.add(tailChunk.unsafelyUnwrapped, capacity: Int(header.pointee.capacity)))
    }
    let index = Int(header.pointee.early)
    early.chunks[index]?.dates[tailIndex - 1] = date
    if date < early.deadlines.time(of: index) ?? .max { early.deadlines.arm(index, at: date) }
  }

  /// Takes out an entry whose date has come; those in `kept` stay, and are looked at again at `later`. Nil
  /// when there is none.
  mutating func removeEarly(at now: Int64, keeping kept: Range<UInt64>, until later: Int64)
    -> Entry?
  {
    guard let early else { return nil }
    while let index = early.deadlines.takeDue(at: now) {
      guard let known = early.chunks[index] else { invariantFailed("times have no chunk") }
      let entries = Self.entries(known.chunk)
      var next = Int64.max
      var found: (place: Int, date: Int64)?
      for place in places(of: known.chunk) where known.dates[place] != EarlyTimes.never {
        guard !entries[place].isSettled else { continue }
        let date = known.dates[place]
        if date > now {
          next = min(next, date)
        } else if kept.contains(entries[place].sequence) {
          next = min(next, later)
        } else if let other = found, other.date <= date {
          next = min(next, date)
        } else {
          // What is over first leaves first.
          if let other = found { next = min(next, other.date) }
          found = (place, date)
        }
      }
      if next != .max { early.deadlines.arm(index, at: next) }
      if let found { return remove(at: found.place, of: known.chunk) }
    }
    return nil
  }

  // MARK: Chunks

  mutating func forgetTimes(of chunk: UnsafeMutableRawPointer) {
    let header = Self.header(chunk)
    guard header.pointee.early >= 0 else { return }
    early?.remove(Int(header.pointee.early), capacity: Int(header.pointee.capacity))
    header.pointee.early = -1
  }

  /// The time of an entry whose chunk is being condensed, in its own chunk.
  func moveTime(from place: Int, of chunk: UnsafeMutableRawPointer, to other: Int) {
    let index = Int(Self.header(chunk).pointee.early)
    guard index >= 0, let known = early?.chunks[index] else { return }
    known.dates[other] = known.dates[place]
  }

  /// A condensed chunk has the times of the one that it replaces.
  mutating func moveTimes(of chunk: UnsafeMutableRawPointer, to smaller: UnsafeMutableRawPointer) {
    let index = Int(Self.header(chunk).pointee.early)
    guard index >= 0, let early, let known = early.chunks[index] else { return }
    let capacity = Int(Self.header(smaller).pointee.capacity)
    let moved = early.add(smaller, capacity: capacity)
    early.chunks[moved]?.dates.update(from: known.dates, count: capacity)
    Self.header(smaller).pointee.early = Int32(moved)
    if let date = early.deadlines.time(of: index) { early.deadlines.arm(moved, at: date) }
  }
}
