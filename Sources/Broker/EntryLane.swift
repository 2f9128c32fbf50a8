import Base

/// Entries in their order, in chunks, so that a long lane never has to be copied to grow. The first
/// chunk is small, since most queues hold little, and each one is larger than the one before it up to
/// a page. An empty lane keeps one chunk and fills it anew, until `trim`; one that is not empty keeps
/// the last page that was emptied for the next that is needed.
struct EntryLane: ~Copyable {
  /// A chunk of so many entries fills a page with its header.
  static let chunkCountMax = 255
  private static let chunkCountMin = 7

  private struct Chunk {
    var next: UnsafeMutableRawPointer?
    /// How many entries it has room for.
    var capacity: Int
  }

  private var headChunk: UnsafeMutableRawPointer?
  private var tailChunk: UnsafeMutableRawPointer?
  private var spareChunk: UnsafeMutableRawPointer?
  private var headIndex = 0
  private var tailIndex = 0
  /// The rooms of both; 0 while there is no chunk.
  private var headCapacity = 0
  private var tailCapacity = 0
  private(set) var count = 0
  /// What the chunks take of memory.
  private(set) var byteCount = 0

  init() {}

  deinit {
    spareChunk?.deallocate()
    var chunk = headChunk
    while let current = chunk {
      chunk = current.load(as: Chunk.self).next
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
      if spareChunk != nil { dropSpare() }
    } else if headIndex == headCapacity {
      dropHead()
    }
    return entry
  }

  /// Gives back what an empty lane keeps.
  mutating func trim() {
    guard count == 0, let chunk = headChunk else { return }
    chunk.deallocate()
    byteCount -= Self.byteCount(headCapacity)
    headChunk = nil
    tailChunk = nil
    headIndex = 0
    tailIndex = 0
    headCapacity = 0
    tailCapacity = 0
  }

  /// The entries from the first one on, as long as `body` returns true.
  func forEach(_ body: (Entry) -> Bool) {
    var chunk = headChunk
    var index = headIndex
    var left = count
    while left > 0, let current = chunk {
      let header = current.load(as: Chunk.self)
      let end = min(header.capacity, index + left)
      let entries = Self.entries(current)
      for place in index..<end where !body(entries[place]) { return }
      left -= end - index
      index = 0
      chunk = header.next
    }
  }

  /// The entries behind a sequence, of which they are in the order, as long as `body` returns true.
  func forEach(behind sequence: UInt64, _ body: (Entry) -> Bool) {
    var chunk = headChunk
    var index = headIndex
    var left = count
    while left > 0, let current = chunk {
      let header = current.load(as: Chunk.self)
      let end = min(header.capacity, index + left)
      let entries = Self.entries(current)
      if entries[end - 1].sequence > sequence {
        for place in index..<end where entries[place].sequence > sequence {
          if !body(entries[place]) { return }
        }
      }
      left -= end - index
      index = 0
      chunk = header.next
    }
  }

  /// One entry of each chunk behind the first, at most `count`.
  func forEachAhead(atMost count: Int, _ body: (Entry) -> Void) {
    guard self.count > 0, var chunk = headChunk else { return }
    for _ in 0..<count {
      guard let next = chunk.load(as: Chunk.self).next else { return }
      // The last chunk has at least one entry.
      body(Self.entries(next)[0])
      chunk = next
    }
  }

  @inline(__always)
  private static func entries(_ chunk: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Entry> {
    (chunk + MemoryLayout<Chunk>.stride).assumingMemoryBound(to: Entry.self)
  }

  private static func byteCount(_ capacity: Int) -> Int {
    MemoryLayout<Chunk>.stride + capacity * MemoryLayout<Entry>.stride
  }

  @inline(never)
  private mutating func addChunk() {
    var chunk = spareChunk
    spareChunk = nil
    if chunk == nil {
      // Powers of two with the header.
      let capacity = min(Self.chunkCountMax, max(Self.chunkCountMin, (tailCapacity + 1) * 4 - 1))
      let bytes = Self.byteCount(capacity)
      chunk = .allocate(byteCount: bytes, alignment: 16)
      byteCount += bytes
      tailCapacity = capacity
    } else {
      tailCapacity = Self.chunkCountMax
    }
    chunk.unsafelyUnwrapped.storeBytes(
      of: Chunk(next: nil, capacity: tailCapacity), as: Chunk.self)
    if let tailChunk {
      tailChunk.assumingMemoryBound(to: Chunk.self).pointee.next = chunk
    } else {
      headChunk = chunk
      headCapacity = tailCapacity
    }
    tailChunk = chunk
    tailIndex = 0
  }

  @inline(never)
  private mutating func dropHead() {
    let chunk = headChunk.unsafelyUnwrapped
    headChunk = chunk.load(as: Chunk.self).next
    headIndex = 0
    if spareChunk != nil { dropSpare() }
    if headCapacity == Self.chunkCountMax {
      spareChunk = chunk
    } else {
      chunk.deallocate()
      byteCount -= Self.byteCount(headCapacity)
    }
    headCapacity = headChunk.unsafelyUnwrapped.load(as: Chunk.self).capacity
  }

  @inline(never)
  private mutating func dropSpare() {
    spareChunk?.deallocate()
    spareChunk = nil
    byteCount -= Self.byteCount(Self.chunkCountMax)
  }
}
