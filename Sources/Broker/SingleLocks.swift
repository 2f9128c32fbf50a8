import Base

/// Deliveries of a channel that have times of their own, since they were prolonged. Those that were settled
/// meanwhile are found bit by bit when others come, so that there are hardly more than deliveries that are out.
struct SingleLocks {
  private struct Key: SpreadKey {
    let tag: UInt64
    var spread: UInt64 { tag &* 0x9E37_79B9_7F4A_7C15 }
  }

  /// Of a channel.
  static let countMax = 262_144
  /// About what each takes, in all of the tables.
  private static let bytesEach = 100
  /// Looked at whenever another one comes.
  private static let looks = 4

  /// By tag: its place in `tags` and in `deadlines`.
  private var places = SpreadDictionary<Key, Int>()
  /// 0 at a place that is free.
  private var tags: [UInt64] = []
  private var free: [Int32] = []
  private var deadlines = Deadlines()
  /// The place that is looked at next.
  private var hand = 0

  var byteCount: Int { tags.count * Self.bytesEach }
  var isFull: Bool { places.count >= Self.countMax }
  /// The earliest time; nil if there is none.
  var next: Int64? { deadlines.next }

  func has(_ tag: UInt64) -> Bool { places[Key(tag: tag)] != nil }

  /// The delivery is due at this time, and at no other.
  mutating func set(_ tag: UInt64, at time: Int64, isOut: (UInt64) -> Bool) {
    if let place = places[Key(tag: tag)] { return deadlines.arm(place, at: time) }
    for _ in 0..<Self.looks where !tags.isEmpty {
      hand = hand + 1 < tags.count ? hand + 1 : 0
      if tags[hand] != 0, !isOut(tags[hand]) { remove(tags[hand]) }
    }
    let place = free.popLast().map { Int($0) } ?? tags.count
    if place == tags.count { tags.append(tag) } else { tags[place] = tag }
    places[Key(tag: tag)] = place
    deadlines.arm(place, at: time)
  }

  /// Takes out the delivery that was due first; nil if none is due.
  mutating func takeDue(at time: Int64) -> UInt64? {
    guard let place = deadlines.takeDue(at: time) else { return nil }
    let tag = tags[place]
    remove(tag)
    return tag
  }

  private mutating func remove(_ tag: UInt64) {
    guard let place = places[Key(tag: tag)] else { return }
    places[Key(tag: tag)] = nil
    deadlines.cancel(place)
    tags[place] = 0
    free.append(Int32(place))
    if places.isEmpty { self = SingleLocks() }
  }
}
