import Base

/// Entries in their order, in chunks, so that a long lane never has to be copied to grow. An empty
/// lane keeps one chunk and fills it anew; one that is not keeps the last chunk that was emptied for
/// the next that is needed.
struct EntryLane: ~Copyable {
  private static let chunkCount = 255

  private struct Chunk {
    var next: UnsafeMutableRawPointer?
    var padding: UInt64 = 0
  }

  private var headChunk: UnsafeMutableRawPointer?
  private var tailChunk: UnsafeMutableRawPointer?
  private var spareChunk: UnsafeMutableRawPointer?
  private var headIndex = 0
  private var tailIndex = 0
  private(set) var count = 0

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
    if tailIndex == Self.chunkCount || tailChunk == nil { addChunk() }
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
    } else if headIndex == Self.chunkCount {
      dropHead()
    }
    return entry
  }

  /// The entries from the first one on, as long as `body` returns true.
  func forEach(_ body: (Entry) -> Bool) {
    var chunk = headChunk
    var index = headIndex
    var left = count
    while left > 0, let current = chunk {
      let end = min(Self.chunkCount, index + left)
      let entries = Self.entries(current)
      for place in index..<end where !body(entries[place]) { return }
      left -= end - index
      index = 0
      chunk = current.load(as: Chunk.self).next
    }
  }

  /// The entries behind a sequence, of which they are in the order, as long as `body` returns true.
  func forEach(behind sequence: UInt64, _ body: (Entry) -> Bool) {
    var chunk = headChunk
    var index = headIndex
    var left = count
    while left > 0, let current = chunk {
      let end = min(Self.chunkCount, index + left)
      let entries = Self.entries(current)
      if entries[end - 1].sequence > sequence {
        for place in index..<end where entries[place].sequence > sequence {
          if !body(entries[place]) { return }
        }
      }
      left -= end - index
      index = 0
      chunk = current.load(as: Chunk.self).next
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

  @inline(never)
  private mutating func addChunk() {
    let bytes = MemoryLayout<Chunk>.stride + Self.chunkCount * MemoryLayout<Entry>.stride
    let chunk = spareChunk ?? .allocate(byteCount: bytes, alignment: 16)
    spareChunk = nil
    chunk.storeBytes(of: Chunk(), as: Chunk.self)
    if let tailChunk {
      tailChunk.assumingMemoryBound(to: Chunk.self).pointee.next = chunk
    } else {
      headChunk = chunk
    }
    tailChunk = chunk
    tailIndex = 0
  }

  @inline(never)
  private mutating func dropHead() {
    let chunk = headChunk.unsafelyUnwrapped
    headChunk = chunk.load(as: Chunk.self).next
    headIndex = 0
    spareChunk?.deallocate()
    spareChunk = chunk
  }

  @inline(never)
  private mutating func dropSpare() {
    spareChunk?.deallocate()
    spareChunk = nil
  }
}
