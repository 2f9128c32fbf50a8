import Base

/// Where a message that is due at some time waits: a place for each millisecond of the near future, and
/// coarser ones the further it is away. Only places that hold something cost anything, whatever the time
/// between them, and however many messages one has.
///
/// On level L a place is for 128^L milliseconds, and there are 256 of them, so that six levels reach beyond
/// two hundred years. The wheel's time goes from one place that holds something to the next: what a place of
/// the lowest level has is due when its time comes, and what a higher one has moves to lower levels when that
/// is half a turn of theirs away, so that none of it can be late for that. A place has messages of one turn
/// only: it is emptied before it is needed again.
struct DelayWheel {
  static let levelCount = 6
  static let slotCount = 256
  private static let ratioShift = 7

  /// A place of the wheel; `index` is what the log has.
  struct Place: Hashable, BitwiseCopyable {
    let level: Int
    let slot: Int

    var index: Int { level * slotCount + slot }

    /// Messages that are due at this date may be here.
    func isOf(_ date: Int64) -> Bool {
      DelayWheel.slot(DelayWheel.bucket(date, level)) == slot
    }

    fileprivate init(level: Int, slot: Int) {
      self.level = level
      self.slot = slot
    }

    init(index: Int) {
      level = index / slotCount
      slot = index % slotCount
    }
  }

  static let placeCount = levelCount * slotCount

  /// The time that the wheel has come to, in wall-clock milliseconds: everything due before it has left.
  private(set) var time: Int64
  /// Bits of the places that hold something, by level.
  private var filled: [UInt64] = Array(repeating: 0, count: placeCount / 64)

  init(at time: Int64) {
    self.time = time
  }

  /// Where a message goes that is due at `date`; what is overdue goes where the wheel is.
  func place(for date: Int64) -> Place {
    let date = max(date, time)
    var level = 0
    while level < Self.levelCount - 1,
      Self.bucket(date, level) - Self.bucket(time, level) >= Int64(Self.slotCount)
    {
      level += 1
    }
    return Place(level: level, slot: Self.slot(Self.bucket(date, level)))
  }

  mutating func fill(_ place: Place) {
    filled[place.index >> 6] |= 1 << UInt64(place.index & 63)
  }

  mutating func empty(_ place: Place) {
    filled[place.index >> 6] &= ~(1 << UInt64(place.index & 63))
  }

  /// The place that comes next, and when: its messages are due then, or move to lower levels. Nil when the
  /// wheel holds nothing.
  func next() -> (place: Place, at: Int64)? {
    var best: (place: Place, at: Int64)?
    // What moves to a lower level comes before what is due at the same time, which it may have more of.
    for level in (0..<Self.levelCount).reversed() {
      guard let slot = firstFilled(level) else { continue }
      let place = Place(level: level, slot: slot)
      let at = trigger(of: place)
      if best.map({ at < $0.at }) ?? true { best = (place, at) }
    }
    return best
  }

  /// A place that holds something, by its level and the first date at which its messages are due: before the places that they move to
  /// from there.
  struct Filled: Comparable {
    let from: Int64
    let level: Int

    static func < (left: Filled, right: Filled) -> Bool {
      left.from == right.from ? left.level > right.level : left.from < right.from
    }

    /// What comes behind this one.
    var next: Filled { Filled(from: from, level: level - 1) }

    var place: Place { Place(level: level, slot: DelayWheel.slot(DelayWheel.bucket(from, level))) }

    /// All of its messages are due before, but for what was overdue when it came.
    var end: Int64 { from + 1 << DelayWheel.shift(level) }
  }

  /// The first place that holds something from this one on.
  func first(from start: Filled) -> Filled? {
    var first: Filled?
    for level in 0..<Self.levelCount {
      for slot in filledSlots(level) {
        let current = Self.bucket(time, level)
        let ahead = (slot - Self.slot(current)) & (Self.slotCount - 1)
        let filled = Filled(
          from: (current + Int64(ahead)) << Self.shift(level), level: level)
        if filled >= start, first.map({ filled < $0 }) ?? true { first = filled }
      }
    }
    return first
  }

  private func filledSlots(_ level: Int) -> [Int] {
    let words = Self.slotCount / 64
    var slots: [Int] = []
    for word in 0..<words {
      var bits = filled[level * words + word]
      while bits != 0 {
        slots.append(word * 64 + bits.trailingZeroBitCount)
        bits &= bits - 1
      }
    }
    return slots
  }

  /// The wheel's time is this one, if it was before; nothing that it holds comes before.
  mutating func advance(to date: Int64) {
    time = max(time, date)
  }

  /// The earliest time of a wheel that has a message at a place which is due at `date`.
  static func trigger(_ place: Place, of date: Int64) -> Int64 {
    trigger(level: place.level, bucket: bucket(date, place.level))
  }

  private static func trigger(level: Int, bucket: Int64) -> Int64 {
    level == 0 ? bucket : (bucket - 1) << shift(level)
  }

  /// When a place comes, if what it has is of the turn that begins now.
  func trigger(of place: Place) -> Int64 {
    let current = Self.bucket(time, place.level)
    let ahead = (place.slot - Self.slot(current)) & (Self.slotCount - 1)
    return Self.trigger(level: place.level, bucket: current + Int64(ahead))
  }

  /// The first place of a level that holds something, from the wheel's time on.
  private func firstFilled(_ level: Int) -> Int? {
    let words = Self.slotCount / 64
    let start = Self.slot(Self.bucket(time, level))
    for step in 0...words {
      let word = (start / 64 + step) % words
      var bits = filled[level * words + word]
      if step == 0 { bits &= .max << UInt64(start & 63) }
      if step == words { bits &= ~(.max << UInt64(start & 63)) }
      if bits != 0 { return word * 64 + bits.trailingZeroBitCount }
    }
    return nil
  }

  private static func shift(_ level: Int) -> Int64 { Int64(level * ratioShift) }

  private static func bucket(_ date: Int64, _ level: Int) -> Int64 { date >> shift(level) }

  private static func slot(_ bucket: Int64) -> Int { Int(bucket & Int64(slotCount - 1)) }
}
