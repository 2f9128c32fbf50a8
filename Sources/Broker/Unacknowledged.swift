import Base

/// A delivery that waits for its acknowledgement.
struct PendingDelivery: BitwiseCopyable {
  var tag: UInt64
  var entry: Entry
  /// nil once it was settled. The broker keeps a deleted queue as long as deliveries refer to its lanes.
  var lane: Unmanaged<Lane>?
  /// nil for a delivery by basic.get.
  var consumer: Unmanaged<Consumer>?
}

/// Memory of a connection's deliveries that wait for acknowledgements, which the broker's account
/// counts with that of all others.
final class DeliveryMeter {
  /// Not weak: a weak reference would have each retain of the broker, wherever it is, take longer.
  private unowned let broker: Broker
  let chunks: DeliveryChunks
  private(set) var bytes = 0

  init(_ broker: Broker) {
    self.broker = broker
    chunks = broker.deliveryChunks
  }

  func add(_ delta: Int) {
    bytes += delta
    if !chunks.isOver { broker.account.add(delta, to: .deliveries) }
  }
}

/// Chunks of `Unacknowledged` that all channels have emptied, for those that need one next: a client that
/// settles what it has and gets as much again would cost one for every few messages.
final class DeliveryChunks {
  /// 160 KiB.
  private static let countMax = 64
  private var chunks: [UnsafeMutablePointer<PendingDelivery>] = []
  /// The broker is gone, and its account with it; channels may outlive it.
  var isOver = false

  deinit {
    for chunk in chunks { chunk.deallocate() }
  }

  func take() -> UnsafeMutablePointer<PendingDelivery> {
    chunks.popLast() ?? .allocate(capacity: Unacknowledged.chunkCount)
  }

  func give(_ chunk: UnsafeMutablePointer<PendingDelivery>) {
    if chunks.count < Self.countMax { chunks.append(chunk) } else { chunk.deallocate() }
  }
}

/// A channel's unacknowledged deliveries in the order of their tags, in chunks, so that ten million
/// of them never have to be copied. A chunk goes when all of it is settled, whatever is left before
/// it. A tag is found by its distance from the first one as long as none is missing between;
/// deliveries that need no acknowledgement leave gaps, and then tags are found by bisection until all
/// is settled.
struct Unacknowledged: ~Copyable {
  /// A power of two. Few, since every channel with a delivery out has a chunk.
  static let chunkCount = 64
  static let chunkBytes = chunkCount * MemoryLayout<PendingDelivery>.stride

  private struct Chunk: BitwiseCopyable {
    /// nil once all of it is settled.
    var base: UnsafeMutablePointer<PendingDelivery>?
    var firstTag: UInt64
    /// Deliveries that were settled before those in front of them.
    var settled = 0
  }

  /// Never empty while there is a delivery; the first one is in the first chunk.
  private var chunks = Ring<Chunk>()
  private var head: UnsafeMutablePointer<PendingDelivery>?
  private var headIndex = 0
  private var tail: UnsafeMutablePointer<PendingDelivery>?
  /// Behind the last delivery; as many as a chunk has when there is no chunk.
  private var tailIndex = chunkCount
  private var spare: UnsafeMutablePointer<PendingDelivery>?
  /// Each delivery's tag is one more than that of the delivery before it.
  private var isDense = true
  /// One more than the last tag.
  private var nextTag: UInt64 = 0
  private(set) var count = 0
  /// Chunks that are in memory, the spare one too.
  private var chunksHeld = 0
  /// Chunks of `chunks` that are gone.
  private var holes = 0

  /// Told of every chunk.
  var meter: DeliveryMeter?

  private static let holesMin = 64

  init() {}

  deinit {
    for index in 0..<chunks.count { chunks[index].base?.deallocate() }
    spare?.deallocate()
    meter?.add(-chunksHeld * Self.chunkBytes)
  }

  /// What it takes of memory, to a few percent.
  var byteCount: Int {
    chunksHeld &* Self.chunkBytes &+ chunks.count &* MemoryLayout<Chunk>.stride
  }

  @inline(__always)
  mutating func append(_ delivery: PendingDelivery) {
    if delivery.tag != nextTag, count != 0 { isDense = false }
    nextTag = delivery.tag &+ 1
    if tailIndex == Self.chunkCount { addChunk(delivery.tag) }
    tail.unsafelyUnwrapped[tailIndex] = delivery
    tailIndex &+= 1
    count &+= 1
  }

  @inline(__always) var first: PendingDelivery? {
    count == 0 ? nil : head.unsafelyUnwrapped[headIndex]
  }

  /// Takes out the delivery with this tag; nil if there is none.
  @inline(__always)
  mutating func remove(_ tag: UInt64) -> PendingDelivery? {
    if count != 0, head.unsafelyUnwrapped[headIndex].tag == tag { return removeFirst() }
    return removeBehind(tag)
  }

  @inline(never)
  private mutating func removeBehind(_ tag: UInt64) -> PendingDelivery? {
    guard let (number, base, index) = find(tag), base[index].lane != nil else { return nil }
    let delivery = base[index]
    base[index].lane = nil
    count &-= 1
    chunks[number].settled &+= 1
    if chunks[number].settled == Self.chunkCount { dropInside(number) }
    return delivery
  }

  func contains(_ tag: UInt64) -> Bool {
    guard let (_, base, index) = find(tag) else { return false }
    return base[index].lane != nil
  }

  /// The delivery with this tag; nil if there is none.
  func delivery(_ tag: UInt64) -> PendingDelivery? {
    guard let (_, base, index) = find(tag), base[index].lane != nil else { return nil }
    return base[index]
  }

  /// The first delivery with a tag above this one.
  mutating func next(behind tag: UInt64) -> PendingDelivery? {
    var next: PendingDelivery?
    _ = walk(behind: tag, atMost: 1) { next = $0 }
    return next
  }

  /// Takes out the first delivery.
  @inline(__always)
  mutating func removeFirst() -> PendingDelivery {
    invariant(count > 0, "a delivery was taken out of none")
    let delivery = head.unsafelyUnwrapped[headIndex]
    count &-= 1
    if count == 0 {
      reset()
    } else {
      headIndex &+= 1
      if headIndex == Self.chunkCount || head.unsafelyUnwrapped[headIndex].lane == nil {
        skipSettled()
      }
    }
    return delivery
  }

  // MARK: Walking

  /// Shows the deliveries with tags above `tag`, at most so many, to be changed but for their tags.
  /// Returns the last tag that was shown; nil when there are no more.
  mutating func walk(
    behind tag: UInt64, atMost limit: Int, _ body: (inout PendingDelivery) -> Void
  ) -> UInt64? {
    var left = limit
    var last = tag
    for number in firstChunk(behind: tag)..<chunks.count {
      guard let base = chunks[number].base else { continue }
      let isLast = number == chunks.count - 1
      for index in (number == 0 ? headIndex : 0)..<(isLast ? tailIndex : Self.chunkCount)
      where base[index].tag > tag && base[index].lane != nil {
        guard left > 0 else { return last }
        left -= 1
        last = base[index].tag
        body(&base[index])
      }
    }
    return nil
  }

  /// Changes every delivery that waits; its tag must stay as it is.
  mutating func change(_ body: (inout PendingDelivery) -> Void) {
    _ = walk(behind: 0, atMost: .max, body)
  }

  // MARK: Finding

  /// The chunk, and the place in it, of a tag that was delivered and may have been settled.
  private func find(
    _ tag: UInt64
  ) -> (chunk: Int, base: UnsafeMutablePointer<PendingDelivery>, index: Int)? {
    guard let first, tag >= first.tag, tag < nextTag else { return nil }
    if isDense {
      let place = headIndex &+ Int(tag &- first.tag)
      let number = place / Self.chunkCount
      guard let base = chunks[number].base else { return nil }
      return (number, base, place % Self.chunkCount)
    }
    let number = firstChunk(behind: tag &- 1)
    guard let base = chunks[number].base else { return nil }
    let end = number == chunks.count - 1 ? tailIndex : Self.chunkCount
    var low = number == 0 ? headIndex : 0
    var high = end
    while low < high {
      let middle = (low + high) / 2
      if base[middle].tag < tag { low = middle + 1 } else { high = middle }
    }
    guard low < end, base[low].tag == tag else { return nil }
    return (number, base, low)
  }

  /// The chunk in which the first delivery above `tag` is, or would be.
  private func firstChunk(behind tag: UInt64) -> Int {
    var low = 0
    var high = chunks.count
    while low < high {
      let middle = (low + high) / 2
      if chunks[middle].firstTag <= tag &+ 1 { low = middle + 1 } else { high = middle }
    }
    return max(0, low - 1)
  }

  // MARK: Chunks

  @inline(never)
  private mutating func addChunk(_ tag: UInt64) {
    let base: UnsafeMutablePointer<PendingDelivery>
    if let spare {
      base = spare
      self.spare = nil
    } else {
      base = meter?.chunks.take() ?? .allocate(capacity: Self.chunkCount)
      chunksHeld += 1
      meter?.add(Self.chunkBytes)
    }
    if chunks.isEmpty {
      head = base
      headIndex = 0
    }
    chunks.append(Chunk(base: base, firstTag: tag))
    tail = base
    tailIndex = 0
  }

  private mutating func release(_ base: UnsafeMutablePointer<PendingDelivery>) {
    if spare == nil {
      spare = base
    } else {
      if let meter { meter.chunks.give(base) } else { base.deallocate() }
      chunksHeld -= 1
      meter?.add(-Self.chunkBytes)
    }
  }

  /// All is settled: tags may begin anew, and one chunk is left.
  private mutating func reset() {
    isDense = true
    if chunks.count == 1 {
      headIndex = 0
      tailIndex = 0
      // Its first tag and what was settled in it are of no use any more.
      chunks[0] = Chunk(base: head, firstTag: nextTag)
      return
    }
    while !chunks.isEmpty {
      if let base = chunks.removeFirst().base { release(base) }
    }
    holes = 0
    head = nil
    headIndex = 0
    tail = nil
    tailIndex = Self.chunkCount
  }

  /// The first delivery goes, and those behind it that were settled before.
  @inline(never)
  private mutating func skipSettled() {
    while true {
      if headIndex == Self.chunkCount || chunks[0].base == nil {
        if let base = chunks.removeFirst().base { release(base) } else { holes -= 1 }
        head = chunks[0].base
        headIndex = 0
      } else if head.unsafelyUnwrapped[headIndex].lane == nil {
        headIndex &+= 1
        chunks[0].settled &-= 1
      } else {
        return
      }
    }
  }

  /// A chunk that is not the first, and full, is settled whole.
  private mutating func dropInside(_ number: Int) {
    if number == chunks.count - 1 {
      tail = nil
      tailIndex = Self.chunkCount
    }
    if let base = chunks[number].base { release(base) }
    chunks[number].base = nil
    holes += 1
    guard holes > Self.holesMin, holes > chunks.count / 4 * 3 else { return }
    // What is left is found by bisection.
    isDense = false
    for _ in 0..<chunks.count {
      let chunk = chunks.removeFirst()
      if chunk.base != nil { chunks.append(chunk) }
    }
    holes = 0
  }
}
