import Base

/// Entries that were given back, in the order of their sequences: in sorted chunks, so that giving
/// back in any order costs little, and taking the first costs nothing.
struct Returned: ~Copyable {
  private static let chunkCount = 256

  private struct Chunk: BitwiseCopyable {
    var base: UnsafeMutablePointer<Entry>
    /// The entries are between these places; there is at least one.
    var start: Int
    var end: Int

    var first: UInt64 { base[start].sequence }
    var last: UInt64 { base[end - 1].sequence }
  }

  /// Their entries in ascending order, too; those before `firstChunk` are gone.
  private var chunks: [Chunk] = []
  private var firstChunk = 0
  private(set) var count = 0

  init() {}

  deinit {
    for chunk in chunks[firstChunk...] { chunk.base.deallocate() }
  }

  @inline(__always) var isEmpty: Bool { count == 0 }

  /// What it takes of memory.
  var byteCount: Int {
    (chunks.count - firstChunk) * Self.chunkCount * MemoryLayout<Entry>.stride
      + chunks.capacity * MemoryLayout<Chunk>.stride
  }

  /// The entry with the lowest sequence.
  @inline(__always) var first: Entry? { count == 0 ? nil : lowest }

  private var lowest: Entry {
    let chunk = chunks[firstChunk]
    return chunk.base[chunk.start]
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
    } else if firstChunk >= 64, firstChunk > chunks.count / 2 {
      chunks.removeSubrange(..<firstChunk)
      firstChunk = 0
    }
  }

  /// Puts an entry into its place.
  mutating func insert(_ entry: Entry) {
    count += 1
    guard firstChunk < chunks.count else { return addChunk(with: entry, at: chunks.count) }
    if Sabotage.is(.requeuesOutOfOrder) { return addChunk(with: entry, at: firstChunk) }
    let last = chunks.count - 1
    if entry.sequence > chunks[last].last {
      if chunks[last].end == Self.chunkCount { return addChunk(with: entry, at: chunks.count) }
      chunks[last].base[chunks[last].end] = entry
      chunks[last].end += 1
      return
    }
    insert(entry, into: chunkIndex(of: entry.sequence))
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

  private mutating func insert(_ entry: Entry, into index: Int) {
    var chunk = chunks[index]
    var low = chunk.start
    var high = chunk.end
    while low < high {
      let middle = (low + high) / 2
      if chunk.base[middle].sequence < entry.sequence { low = middle + 1 } else { high = middle }
    }
    if chunk.start > 0 {
      // What is before its place moves one to the left.
      (chunk.base + chunk.start - 1).update(
        from: chunk.base + chunk.start, count: low - chunk.start)
      chunk.start -= 1
      chunk.base[low - 1] = entry
      chunks[index] = chunk
    } else if chunk.end < Self.chunkCount {
      (chunk.base + low + 1).update(from: chunk.base + low, count: chunk.end - low)
      chunk.end += 1
      chunk.base[low] = entry
      chunks[index] = chunk
    } else if low == 0 {
      addChunk(with: entry, at: index)
    } else {
      split(index)
      insert(entry, into: chunks[index + 1].first < entry.sequence ? index + 1 : index)
    }
  }

  /// A chunk of its own for an entry. It is put at the end of the chunk when it comes before all
  /// others, since those that follow it then are likely to come before it.
  private mutating func addChunk(with entry: Entry, at index: Int) {
    let base = UnsafeMutablePointer<Entry>.allocate(capacity: Self.chunkCount)
    let isBefore = index < chunks.count
    let place = isBefore ? Self.chunkCount - 1 : 0
    base[place] = entry
    let chunk = Chunk(base: base, start: place, end: place + 1)
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
    let base = UnsafeMutablePointer<Entry>.allocate(capacity: Self.chunkCount)
    base.update(from: chunks[index].base + half, count: Self.chunkCount - half)
    chunks[index].end = half
    chunks.insert(Chunk(base: base, start: 0, end: Self.chunkCount - half), at: index + 1)
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
        body(&chunk.base[place])
      }
    }
    return nil
  }

  /// Changes every entry; its sequence must stay as it is.
  mutating func change(_ body: (inout Entry) -> Void) {
    _ = walk(below: .max, atMost: .max, body)
  }
}
