import Base

/// Offsets of a partition that a reader's client gave back, in ascending order. Taking the first one and giving
/// back in any direction cost nothing that grows with how many there are. An object, since who has it is
/// copied.
final class ReturnedOffsets {
  /// Those before `start` are gone, or are room for such as come before all others.
  private var offsets: [UInt64] = []
  private var start = 0

  private static let roomMin = 16

  var isEmpty: Bool { start == offsets.count }
  var first: UInt64? { isEmpty ? nil : offsets[start] }
  /// What it takes of memory.
  var byteCount: Int { offsets.capacity * MemoryLayout<UInt64>.stride }

  func insert(_ offset: UInt64) {
    let place = (start..<offsets.count).partition { offsets[$0] < offset }
    guard place == start, !isEmpty else { return offsets.insert(offset, at: place) }
    if start == 0 {
      start = max(Self.roomMin, offsets.count)
      offsets.insert(contentsOf: repeatElement(0, count: start), at: 0)
    }
    start -= 1
    offsets[start] = offset
  }

  func removeFirst() {
    start += 1
    guard isEmpty else { return }
    offsets = []
    start = 0
  }
}
