import Base

/// When deliveries of a channel are due that may all stay out equally long. They are noted in buckets of
/// neighbouring tags, so that it takes the same memory whatever is out: a bucket is due when its last delivery is,
/// and its first one late by 1/256 of the time at most, or by a millisecond.
///
/// Whether a delivery of the bucket is still out, and one of these, is asked of the channel then.
final class LockRing {
  private struct Bucket: BitwiseCopyable {
    /// The last tag; the first is behind the bucket before.
    var last: UInt64
    /// When the first and the last of its deliveries left.
    let began: Int64
    var ended: Int64
  }

  private static let bucketsWanted: Int64 = 256
  /// There are more only while what is due has to wait; then the last bucket takes all.
  private static let bucketsMax = 512

  let milliseconds: Int64
  /// Time in which deliveries share a bucket.
  private let grain: Int64
  private var buckets = Ring<Bucket>()
  /// The tag behind which the first bucket goes on.
  private(set) var behind: UInt64 = 0

  /// With its place in its channel's list.
  private static let bytes = 128

  init(milliseconds: Int64) {
    self.milliseconds = milliseconds
    grain = max(1, milliseconds / Self.bucketsWanted)
  }

  var isEmpty: Bool { buckets.isEmpty }

  var byteCount: Int { Self.bytes + buckets.count * MemoryLayout<Bucket>.stride }

  /// When the first bucket is due; nil while there is none.
  var due: Int64? {
    guard let first = buckets.first else { return nil }
    return first.ended + length
  }

  private var length: Int64 { Sabotage.is(.endsLockEarly) ? milliseconds / 2 : milliseconds }

  /// A delivery leaves, which is behind all others. Returns whether it began a bucket.
  func note(_ tag: UInt64, at time: Int64) -> Bool {
    if let last = buckets.last, time < last.began + grain || buckets.count == Self.bucketsMax {
      buckets[buckets.count - 1].last = tag
      buckets[buckets.count - 1].ended = time
      return false
    }
    if buckets.isEmpty { behind = tag - 1 }
    buckets.append(Bucket(last: tag, began: time, ended: time))
    return true
  }

  /// The last tag of the first bucket, if that is due.
  func lastDue(at time: Int64) -> UInt64? {
    guard let first = buckets.first, first.ended + length <= time else { return nil }
    return first.last
  }

  /// What the first bucket has up to this tag was looked at.
  func passed(_ tag: UInt64) {
    behind = tag
    guard let first = buckets.first, tag >= first.last else { return }
    _ = buckets.removeFirst()
    if buckets.isEmpty { buckets.removeAll() }
  }
}
