import CSystem
import Glibc

extension RawSpan {
  /// Below, at or above zero: which of the two comes first, byte by byte. Of two that begin alike the
  /// shorter one.
  public func order(to other: RawSpan) -> Int {
    withUnsafeBytes { left in
      other.withUnsafeBytes { right in
        guard let one = left.baseAddress, let two = right.baseAddress else {
          return left.count - right.count
        }
        let order = memcmp(one, two, min(left.count, right.count))
        return order == 0 ? left.count - right.count : Int(order)
      }
    }
  }

  /// Where the bytes of `needle` stand first at or behind `start`; nil if nowhere. Takes time in proportion
  /// to both, whatever is in them.
  public func firstOffset(of needle: RawSpan, from start: Int) -> Int? {
    guard start <= byteCount, needle.byteCount <= byteCount - start else { return nil }
    return withUnsafeBytes { all in
      needle.withUnsafeBytes { needle in
        guard let base = all.baseAddress, let wanted = needle.baseAddress, needle.count > 0 else {
          return start
        }
        return memmem(base + start, all.count - start, wanted, needle.count)
          .map { UnsafeRawPointer($0) - base }
      }
    }
  }
}
