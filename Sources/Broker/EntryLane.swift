import Base

/// Entries in their order, in chunks, so that a long lane never has to be copied to grow. The first
/// chunk is small, since most queues hold little, and each one is larger than the one before it up to
/// a page. An empty lane keeps one chunk and fills it anew, until `trim`; one that is not empty keeps
/// the last page that was emptied for the next that is needed.
///
/// An entry can leave from the middle (`EntryLane+Early`): its place stays, marked as `settled`, until the
/// front has passed it, or most of its chunk is gone. The first entry never is such a place, so that taking
/// the next one asks for nothing.
struct EntryLane: ~Copyable {
  /// A chunk of so many entries fills a page with its header.
  static let chunkCountMax = 254
  private static let chunkCountMin = 6

  struct Chunk {
    var next: UnsafeMutableRawPointer?
    var previous: UnsafeMutableRawPointer?
    /// How many entries it has room for.
    var capacity: Int32
    /// Places between others whose entries have left, and that the front has not passed.
    var goneCount: Int32 = 0
    /// Where `early` has the times of its entries; negative if they have none.
    var early: Int32 = -1
  }

  var headChunk: UnsafeMutableRawPointer?
  var tailChunk: UnsafeMutableRawPointer?
  private var spareChunk: UnsafeMutableRawPointer?
  var headIndex = 0
  var tailIndex = 0
  /// Up to there are no places in the first chunk whose entries have left; its capacity if there are none.
  var headEnd = 0
  private var tailCapacity = 0
  /// Entries that are here.
  private(set) var count = 0
  /// Places whose entries have left.
  private(set) var goneCount = 0
  /// What the chunks take of memory.
  private(set) var byteCount = 0
  /// When entries expire that do not wait until they are the first; nil while there are none.
  var early: EarlyTimes?

  init() {}

  deinit {
    spareChunk?.deallocate()
    var chunk = headChunk
    while let current = chunk {
      chunk = Self.header(current).pointee.next
      current.deallocate()
    }
  }

  @inline(__always)
  mutating func append(_ entry: Entry) {
    if tailIndex == tailCapacity { addChunk() }
    Self.entries(tailChunk.unsafelyUnwrapped)[tailIndex] = entry
    tailIndex &+= 1
    count &+= 1
  }

  var first: Entry? {
    count == 0 ? nil : Self.entries(headChunk.unsafelyUnwrapped)[headIndex]
  }

  @inline(__always)
  mutating func removeFirst() -> Entry {
    invariant(count > 0, "removed from an empty lane")
    let entry = Self.entries(headChunk.unsafelyUnwrapped)[headIndex]
    headIndex &+= 1
    count &-= 1
    if count == 0 {
      headIndex = 0
      tailIndex = 0
      if spareChunk != nil || goneCount != 0 || early != nil { emptied() }
    } else if headIndex == headEnd {
      passHeadEnd()
    }
    return entry
  }

  /// Gives back what an empty lane keeps.
  mutating func trim() {
    guard count == 0, let chunk = headChunk else { return }
    free(chunk)
    headChunk = nil
    tailChunk = nil
    headIndex = 0
    tailIndex = 0
    headEnd = 0
    tailCapacity = 0
    early = nil
  }

  // MARK: Walking

  /// The entries from the first one on, as long as `body` returns true.
  func forEach(_ body: (Entry) -> Bool) {
    forEach(from: 0, body)
  }

  /// The entries behind a sequence, of which they are in the order, as long as `body` returns true.
  func forEach(behind sequence: UInt64, _ body: (Entry) -> Bool) {
    forEach(from: sequence + 1, body)
  }

  private func forEach(from sequence: UInt64, _ body: (Entry) -> Bool) {
    guard count > 0 else { return }
    var chunk = headChunk
    while let current = chunk {
      let places = self.places(of: current)
      let entries = Self.entries(current)
      if let last = places.last, entries[last].sequence >= sequence {
        for place in places where entries[place].sequence >= sequence && !entries[place].isSettled {
          if !body(entries[place]) { return }
        }
      }
      chunk = Self.header(current).pointee.next
    }
  }

  /// One entry of each chunk behind the first, at most `count`.
  func forEachAhead(atMost count: Int, _ body: (Entry) -> Void) {
    guard self.count > 0, var chunk = headChunk else { return }
    for _ in 0..<count {
      guard let next = Self.header(chunk).pointee.next else { return }
      if let place = places(of: next).first, !Self.entries(next)[place].isSettled {
        body(Self.entries(next)[place])
      }
      chunk = next
    }
  }

  /// The places of a chunk that have entries, or had some that left from the middle.
  func places(of chunk: UnsafeMutableRawPointer) -> Range<Int> {
    let start = chunk == headChunk ? headIndex : 0
    return start..<(chunk == tailChunk ? tailIndex : Int(Self.header(chunk).pointee.capacity))
  }

  // MARK: Chunks

  @inline(__always)
  static func entries(_ chunk: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Entry> {
    (chunk + MemoryLayout<Chunk>.stride).assumingMemoryBound(to: Entry.self)
  }

  @inline(__always)
  static func header(_ chunk: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Chunk> {
    chunk.assumingMemoryBound(to: Chunk.self)
  }

  private static func byteCount(_ capacity: Int) -> Int {
    MemoryLayout<Chunk>.stride + capacity * MemoryLayout<Entry>.stride
  }

  private mutating func allocate(
    _ capacity: Int, behind previous: UnsafeMutableRawPointer?
  ) -> UnsafeMutableRawPointer {
    let bytes = Self.byteCount(capacity)
    let chunk = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 16)
    byteCount += bytes
    Self.header(chunk).initialize(
      to: Chunk(next: nil, previous: previous, capacity: Int32(capacity)))
    return chunk
  }

  private mutating func free(_ chunk: UnsafeMutableRawPointer) {
    forgetTimes(of: chunk)
    byteCount -= Self.byteCount(Int(Self.header(chunk).pointee.capacity))
    chunk.deallocate()
  }

  @inline(never)
  private mutating func addChunk() {
    var chunk = spareChunk
    spareChunk = nil
    if let chunk {
      Self.header(chunk).initialize(
        to: Chunk(next: nil, previous: tailChunk, capacity: Int32(Self.chunkCountMax)))
    } else {
      // Powers of two with the header.
      let capacity = min(Self.chunkCountMax, max(Self.chunkCountMin, (tailCapacity + 2) * 4 - 2))
      chunk = allocate(capacity, behind: tailChunk)
    }
    let added = chunk.unsafelyUnwrapped
    tailCapacity = Int(Self.header(added).pointee.capacity)
    let former = tailChunk
    tailChunk = added
    tailIndex = 0
    if let former {
      Self.header(former).pointee.next = added
      if former != headChunk { condense(former) }
    } else {
      headChunk = added
      headEnd = tailCapacity
    }
  }

  /// The front has come to the end of a chunk, or to a place whose entry has left; there are entries behind.
  @inline(never)
  private mutating func passHeadEnd() {
    while true {
      let chunk = headChunk.unsafelyUnwrapped
      let header = Self.header(chunk)
      guard headIndex == Int(header.pointee.capacity) else {
        if header.pointee.goneCount == 0 {
          headEnd = Int(header.pointee.capacity)
          return
        }
        guard Self.entries(chunk)[headIndex].isSettled else {
          findHeadEnd()
          return
        }
        headIndex += 1
        header.pointee.goneCount -= 1
        goneCount -= 1
        continue
      }
      dropHead()
    }
  }

  private mutating func findHeadEnd() {
    let chunk = headChunk.unsafelyUnwrapped
    let capacity = Int(Self.header(chunk).pointee.capacity)
    let end = chunk == tailChunk ? tailIndex : capacity
    headEnd = headIndex
    while headEnd < end, !Self.entries(chunk)[headEnd].isSettled { headEnd += 1 }
    // What comes is appended behind.
    if headEnd == end { headEnd = capacity }
  }

  private mutating func dropHead() {
    let chunk = headChunk.unsafelyUnwrapped
    headChunk = Self.header(chunk).pointee.next
    headIndex = 0
    let next = Self.header(headChunk.unsafelyUnwrapped)
    next.pointee.previous = nil
    headEnd = next.pointee.goneCount == 0 ? Int(next.pointee.capacity) : 0
    if spareChunk != nil { dropSpare() }
    if Self.header(chunk).pointee.capacity == Self.chunkCountMax {
      forgetTimes(of: chunk)
      spareChunk = chunk
    } else {
      free(chunk)
    }
  }

  /// The last entry has left; its places are given up, and all chunks but one.
  @inline(never)
  private mutating func emptied() {
    if spareChunk != nil { dropSpare() }
    guard goneCount != 0 || early != nil else { return }
    while let next = headChunk.flatMap({ Self.header($0).pointee.next }) {
      free(headChunk.unsafelyUnwrapped)
      headChunk = next
    }
    if let chunk = headChunk {
      forgetTimes(of: chunk)
      Self.header(chunk).pointee.previous = nil
      Self.header(chunk).pointee.goneCount = 0
      headEnd = Int(Self.header(chunk).pointee.capacity)
    }
    goneCount = 0
    headIndex = 0
    tailIndex = 0
  }

  private mutating func dropSpare() {
    spareChunk?.deallocate()
    spareChunk = nil
    byteCount -= Self.byteCount(Self.chunkCountMax)
  }

  // MARK: Leaving from the middle

  /// Takes out an entry that may stand anywhere.
  mutating func remove(at place: Int, of chunk: UnsafeMutableRawPointer) -> Entry {
    let entry = Self.entries(chunk)[place]
    invariant(!entry.isSettled, "an entry left a lane twice")
    if chunk == headChunk, place == headIndex { return removeFirst() }
    Self.entries(chunk)[place].flags.insert(.settled)
    Self.header(chunk).pointee.goneCount += 1
    goneCount += 1
    count -= 1
    if chunk == headChunk {
      headEnd = min(headEnd, place)
    } else if chunk != tailChunk {
      condense(chunk)
    }
    return entry
  }

  /// Takes out entries by their sequences, which ascend, as far as they are here; `body` gets each.
  mutating func remove(_ sequences: ArraySlice<UInt64>, _ body: (Entry) -> Void) {
    var wanted = sequences
    while let next = wanted.first, let first, next <= first.sequence {
      if next == first.sequence { body(removeFirst()) }
      wanted.removeFirst()
    }
    var chunk = headChunk
    while count > 0, let next = wanted.first, let current = chunk {
      chunk = Self.header(current).pointee.next
      guard let last = places(of: current).last,
        Self.entries(current)[last].sequence >= next
      else { continue }
      remove(&wanted, from: current, body)
    }
  }

  /// As far as they are in one chunk. None is the first entry.
  private mutating func remove(
    _ wanted: inout ArraySlice<UInt64>, from chunk: UnsafeMutableRawPointer,
    _ body: (Entry) -> Void
  ) {
    let entries = Self.entries(chunk)
    for place in places(of: chunk) where !entries[place].isSettled {
      let entry = entries[place]
      while let next = wanted.first, next < entry.sequence { wanted.removeFirst() }
      guard wanted.first == entry.sequence else { continue }
      wanted.removeFirst()
      body(entry)
      entries[place].flags.insert(.settled)
      Self.header(chunk).pointee.goneCount += 1
      goneCount += 1
      count -= 1
      if chunk == headChunk { headEnd = min(headEnd, place) }
    }
    if chunk != headChunk, chunk != tailChunk { condense(chunk) }
  }

  /// A chunk between others that has lost half of its entries gives back their places.
  private mutating func condense(_ chunk: UnsafeMutableRawPointer) {
    let header = Self.header(chunk).pointee
    guard header.goneCount * 2 >= header.capacity, let previous = header.previous,
      let next = header.next
    else { return }
    goneCount -= Int(header.goneCount)
    let left = Int(header.capacity - header.goneCount)
    if left == 0 {
      Self.header(previous).pointee.next = next
      Self.header(next).pointee.previous = previous
      return free(chunk)
    }
    let smaller = allocate(left, behind: previous)
    Self.header(smaller).pointee.next = next
    Self.header(previous).pointee.next = smaller
    Self.header(next).pointee.previous = smaller
    var count = 0
    for place in 0..<Int(header.capacity) where !Self.entries(chunk)[place].isSettled {
      Self.entries(smaller)[count] = Self.entries(chunk)[place]
      moveTime(from: place, of: chunk, to: count)
      count += 1
    }
    moveTimes(of: chunk, to: smaller)
    free(chunk)
  }
}
