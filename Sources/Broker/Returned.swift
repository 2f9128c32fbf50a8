import Base

/// Entries that were given back, in the order of their sequences: in sorted chunks, so that giving
/// back in any order costs little, and taking the first costs nothing. Each has the date when it leaves,
/// wherever it stands then.
struct Returned: ~Copyable {
  private static let chunkCount = 256

  private struct Item: BitwiseCopyable {
    var entry: Entry
    /// `never` for one that does not expire.
    var date: Int64

    var sequence: UInt64 { entry.sequence }
  }

  private struct Chunk: BitwiseCopyable {
    var base: UnsafeMutablePointer<Item>
    /// The entries are between these places; there is at least one.
    var start: Int
    var end: Int
    /// None of them leaves before.
    var earliest = never

    var first: UInt64 { base[start].sequence }
    var last: UInt64 { base[end - 1].sequence }
  }

  static let never = Int64.max

  /// Their entries in ascending order, too; those before `firstChunk` are gone.
  private var chunks: [Chunk] = []
  private var firstChunk = 0
  private(set) var count = 0
  /// No entry leaves before this date; some that did sooner may have been taken.
  private(set) var earliest = never

  init() {}

  deinit {
    for chunk in chunks[firstChunk...] { chunk.base.deallocate() }
  }

  @inline(__always) var isEmpty: Bool { count == 0 }

  /// What it takes of memory.
  var byteCount: Int {
    (chunks.count - firstChunk) * Self.chunkCount * MemoryLayout<Item>.stride
      + chunks.capacity * MemoryLayout<Chunk>.stride
  }

  /// The entry with the lowest sequence.
  @inline(__always) var first: Entry? { count == 0 ? nil : lowest }

  private var lowest: Entry {
    let chunk = chunks[firstChunk]
    return chunk.base[chunk.start].entry
  }

  mutating func removeFirst() -> Entry {
    let entry = lowest
    count -= 1
    chunks[firstChunk].start += 1
    if chunks[firstChunk].start == chunks[firstChunk].end { dropFirstChunk() }
    return entry
  }

  private mutating func dropFirstChunk() {
    chunks[firstChunk].base.deallocate()
    firstChunk += 1
    if firstChunk == chunks.count {
      chunks = []
      firstChunk = 0
      earliest = Self.never
    } else if firstChunk >= 64, firstChunk > chunks.count / 2 {
      chunks.removeSubrange(..<firstChunk)
      firstChunk = 0
    }
  }

  /// Puts an entry into its place, which leaves at a date.
  mutating func insert(_ entry: Entry, leavingAt date: Int64 = never) {
    count += 1
    earliest = min(earliest, date)
    let item = Item(entry: entry, date: date)
    guard firstChunk < chunks.count else { return addChunk(with: item, at: chunks.count) }
    if Sabotage.is(.requeuesOutOfOrder) { return addChunk(with: item, at: firstChunk) }
    let last = chunks.count - 1
    if entry.sequence > chunks[last].last {
      if chunks[last].end == Self.chunkCount { return addChunk(with: item, at: chunks.count) }
      chunks[last].base[chunks[last].end] = item
      chunks[last].end += 1
      chunks[last].earliest = min(chunks[last].earliest, date)
      return
    }
    insert(item, into: chunkIndex(of: entry.sequence))
  }

  /// The last chunk that begins below `sequence`, or the first.
  private func chunkIndex(of sequence: UInt64) -> Int {
    var low = firstChunk
    var high = chunks.count
    while low < high {
      let middle = (low + high) / 2
      if chunks[middle].first < sequence { low = middle + 1 } else { high = middle }
    }
    return max(firstChunk, low - 1)
  }

  private mutating func insert(_ item: Item, into index: Int) {
    var chunk = chunks[index]
    let place =
      chunk.start
      + (0..<chunk.end - chunk.start).partition {
        chunk.base[chunk.start + $0].sequence < item.sequence
      }
    chunk.earliest = min(chunk.earliest, item.date)
    if chunk.start > 0 {
      // What is before its place moves one to the left.
      (chunk.base + chunk.start - 1).update(
        from: chunk.base + chunk.start, count: place - chunk.start)
      chunk.start -= 1
      chunk.base[place - 1] = item
      chunks[index] = chunk
    } else if chunk.end < Self.chunkCount {
      (chunk.base + place + 1).update(from: chunk.base + place, count: chunk.end - place)
      chunk.end += 1
      chunk.base[place] = item
      chunks[index] = chunk
    } else if place == 0 {
      addChunk(with: item, at: index)
    } else {
      split(index)
      insert(item, into: chunks[index + 1].first < item.sequence ? index + 1 : index)
    }
  }

  /// A chunk of its own for an entry. It is put at the end of the chunk when it comes before all
  /// others, since those that follow it then are likely to come before it.
  private mutating func addChunk(with item: Item, at index: Int) {
    let base = UnsafeMutablePointer<Item>.allocate(capacity: Self.chunkCount)
    let isBefore = index < chunks.count
    let place = isBefore ? Self.chunkCount - 1 : 0
    base[place] = item
    let chunk = Chunk(base: base, start: place, end: place + 1, earliest: item.date)
    if isBefore, index == firstChunk, firstChunk > 0 {
      firstChunk -= 1
      chunks[firstChunk] = chunk
    } else {
      chunks.insert(chunk, at: index)
    }
  }

  /// The upper half of a full chunk becomes one of its own.
  private mutating func split(_ index: Int) {
    let half = Self.chunkCount / 2
    let base = UnsafeMutablePointer<Item>.allocate(capacity: Self.chunkCount)
    base.update(from: chunks[index].base + half, count: Self.chunkCount - half)
    chunks[index].end = half
    chunks.insert(
      Chunk(
        base: base, start: 0, end: Self.chunkCount - half, earliest: chunks[index].earliest),
      at: index + 1)
  }

  // MARK: Leaving from the middle

  /// Takes out the first entry whose date has come, but for those in `kept`. Nil if there is none.
  mutating func removeDue(at now: Int64, keeping kept: Range<UInt64>) -> Entry? {
    guard earliest <= now else { return nil }
    for index in firstChunk..<chunks.count where chunks[index].earliest <= now {
      let chunk = chunks[index]
      var next = Self.never
      for place in chunk.start..<chunk.end {
        let item = chunk.base[place]
        if item.date <= now, !kept.contains(item.sequence) { return remove(place, of: index) }
        next = min(next, item.date)
      }
      chunks[index].earliest = next
    }
    earliest = chunks[firstChunk...].reduce(Self.never) { min($0, $1.earliest) }
    return nil
  }

  private mutating func remove(_ place: Int, of index: Int) -> Entry {
    let chunk = chunks[index]
    let entry = chunk.base[place].entry
    if index == firstChunk, place == chunk.start { return removeFirst() }
    count -= 1
    (chunk.base + place).update(from: chunk.base + place + 1, count: chunk.end - place - 1)
    chunks[index].end -= 1
    if chunks[index].start == chunks[index].end {
      chunk.base.deallocate()
      chunks.remove(at: index)
    }
    return entry
  }

  // MARK: Walking

  /// Shows the entries with sequences below `bound`, the highest first, at most so many, to be changed
  /// but for their sequences. Returns the last sequence that was shown; nil when there are no more.
  mutating func walk(
    below bound: UInt64, atMost limit: Int, _ body: (inout Entry) -> Void
  ) -> UInt64? {
    guard count > 0 else { return nil }
    var left = limit
    var last = bound
    for number in (firstChunk...chunkIndex(of: bound)).reversed() {
      let chunk = chunks[number]
      for place in (chunk.start..<chunk.end).reversed()
      where chunk.base[place].sequence < bound {
        guard left > 0 else { return last }
        left -= 1
        last = chunk.base[place].sequence
        body(&chunk.base[place].entry)
      }
    }
    return nil
  }

  /// Changes every entry; its sequence must stay as it is.
  mutating func change(_ body: (inout Entry) -> Void) {
    _ = walk(below: .max, atMost: .max, body)
  }
}
