import Base

/// A delivery that waits for its acknowledgement.
struct PendingDelivery: BitwiseCopyable {
  var tag: UInt64
  var entry: Entry
  /// nil once it was settled. The broker keeps a deleted queue as long as deliveries refer to it.
  var queue: Unmanaged<Queue>?
  /// nil for a delivery by basic.get.
  var consumer: Unmanaged<Consumer>?
}

/// A channel's unacknowledged deliveries in the order of their tags. A tag is found by its distance
/// from the first one, as long as none is missing between. Deliveries that need no acknowledgement
/// leave gaps, and when most of what is kept has been settled out of order, the settled are dropped:
/// then tags are found by bisection until all is settled.
struct Unacknowledged: ~Copyable {
  private var deliveries = Ring<PendingDelivery>()
  /// Each delivery's tag is one more than that of the delivery before it.
  private var isDense = true
  /// One more than the last tag.
  private var nextTag: UInt64 = 0
  private(set) var count = 0

  private static let compactionMin = 1024

  @inline(__always)
  mutating func append(_ delivery: PendingDelivery) {
    if delivery.tag != nextTag, !deliveries.isEmpty { isDense = false }
    nextTag = delivery.tag &+ 1
    deliveries.append(delivery)
    count &+= 1
  }

  /// Changes every delivery that waits; its tag must stay as it is.
  mutating func change(_ body: (inout PendingDelivery) -> Void) {
    for index in 0..<deliveries.count where deliveries[index].queue != nil {
      var delivery = deliveries[index]
      body(&delivery)
      deliveries[index] = delivery
    }
  }

  /// Shows deliveries with tags behind `tag` in their order, at most so many, to be changed but for their
  /// tags; returns the last tag that was seen, nil at the end.
  mutating func walk(
    behind tag: UInt64, atMost limit: Int, _ body: (inout PendingDelivery) -> Void
  ) -> UInt64? {
    var low = 0
    var high = deliveries.count
    while low < high {
      let middle = (low + high) / 2
      if deliveries[middle].tag <= tag { low = middle + 1 } else { high = middle }
    }
    let end = min(deliveries.count, low + limit)
    for index in low..<end where deliveries[index].queue != nil {
      var delivery = deliveries[index]
      body(&delivery)
      deliveries[index] = delivery
    }
    return end < deliveries.count ? deliveries[end - 1].tag : nil
  }

  var first: PendingDelivery? { deliveries.first }

  /// Takes out the delivery with this tag; nil if there is none.
  @inline(__always)
  mutating func remove(_ tag: UInt64) -> PendingDelivery? {
    guard let index = index(of: tag), deliveries[index].queue != nil else { return nil }
    if index == 0 { return removeFirst() }
    let delivery = deliveries[index]
    deliveries[index].queue = nil
    count &-= 1
    compact()
    return delivery
  }

  func contains(_ tag: UInt64) -> Bool {
    guard let index = index(of: tag) else { return false }
    return deliveries[index].queue != nil
  }

  /// Takes out the first delivery.
  @inline(__always)
  mutating func removeFirst() -> PendingDelivery {
    let delivery = deliveries.removeFirst()
    count &-= 1
    while let next = deliveries.first, next.queue == nil { _ = deliveries.removeFirst() }
    if deliveries.isEmpty { isDense = true }
    return delivery
  }

  private func index(of tag: UInt64) -> Int? {
    guard let first = deliveries.first, tag >= first.tag else { return nil }
    if isDense {
      // A client can name any tag, however far behind the last.
      let distance = tag - first.tag
      return distance < UInt64(deliveries.count) ? Int(distance) : nil
    }
    var low = 0
    var high = deliveries.count
    while low < high {
      let middle = (low + high) / 2
      if deliveries[middle].tag < tag { low = middle + 1 } else { high = middle }
    }
    return low < deliveries.count && deliveries[low].tag == tag ? low : nil
  }

  private mutating func compact() {
    guard deliveries.count > Self.compactionMin, count < deliveries.count / 4 else { return }
    for _ in 0..<deliveries.count {
      let delivery = deliveries.removeFirst()
      if delivery.queue != nil { deliveries.append(delivery) }
    }
    isDense = false
  }
}
