import Base

/// A pattern of LIKE, taken apart at its `%`: what the string begins with, what it has somewhere behind
/// that in this order, and what it ends with. Finding each of the middle stretches where it comes first is
/// enough, since what comes first leaves most to the others; so the string is passed once.
///
/// Characters are bytes with the bytes 10xxxxxx behind them, and whatever matches begins and ends between two.
struct LikePattern {
  /// Something between two `%`.
  struct Stretch {
    /// Any characters that come before, which were `_` at the ends of this stretch or the one before.
    var skip = 0
    var bytes: Range<Int>
    /// A `_` is inside.
    var hasAny: Bool
  }

  /// Stands for `_` in the pool; UTF-8 has no such byte.
  static let any: UInt8 = 0xFF

  private let prefix: Range<Int>
  private let stretches: [Stretch]
  private let suffix: Range<Int>
  /// Characters between the last stretch and the suffix.
  private let skip: Int
  private let hasPercent: Bool

  enum Problem: Error {
    /// Behind the escape character is nothing, or nothing that needs it.
    case escape
    case longStretch
  }

  /// Appends its bytes to the pool.
  init(_ pattern: [UInt8], escape: [UInt8]?, pool: inout [UInt8]) throws(Problem) {
    var pieces: [[UInt8]] = [[]]
    var rest = pattern[...]
    while let first = rest.first {
      if let escape, rest.starts(with: escape) {
        rest = rest.dropFirst(escape.count)
        let isEscape = rest.starts(with: escape)
        guard let next = rest.first, isEscape || next == 0x25 || next == 0x5F else {
          throw .escape
        }
        pieces[pieces.count - 1] += isEscape ? escape : [next]
        rest = rest.dropFirst(isEscape ? escape.count : 1)
        continue
      }
      rest = rest.dropFirst()
      switch first {
      case UInt8(ascii: "%"): pieces.append([])
      case UInt8(ascii: "_"): pieces[pieces.count - 1].append(Self.any)
      default: pieces[pieces.count - 1].append(first)
      }
    }
    hasPercent = pieces.count > 1
    prefix = Self.add(pieces[0][...], &pool)
    suffix = hasPercent ? Self.add(pieces[pieces.count - 1][...], &pool) : 0..<0
    var carried = 0
    var stretches: [Stretch] = []
    for piece in pieces.dropFirst().dropLast() {
      let leading = piece.prefix { $0 == Self.any }.count
      let inner = piece.dropFirst(leading)
      let trailing = inner.reversed().prefix { $0 == Self.any }.count
      let bytes = inner.dropLast(trailing)
      carried += leading
      guard !bytes.isEmpty else { continue }
      let hasAny = bytes.contains(Self.any)
      guard !hasAny || bytes.count <= FilterLimits.stretchBytesMax else { throw .longStretch }
      stretches.append(Stretch(skip: carried, bytes: Self.add(bytes, &pool), hasAny: hasAny))
      carried = trailing
    }
    self.stretches = stretches
    skip = carried
  }

  private static func add(_ bytes: ArraySlice<UInt8>, _ pool: inout [UInt8]) -> Range<Int> {
    pool += bytes
    return pool.count - bytes.count..<pool.count
  }

  /// What it takes besides the pool.
  var bytes: Int { 96 + stretches.count * MemoryLayout<Stretch>.stride }

  func matches(_ subject: RawSpan, pool: RawSpan) -> Bool {
    guard var place = Self.end(of: prefix, pool, in: subject) else { return false }
    guard hasPercent else { return place == subject.byteCount }
    for stretch in stretches {
      guard let from = Self.skip(stretch.skip, subject, place) else { return false }
      let wanted = pool.extracting(stretch.bytes)
      let end =
        stretch.hasAny
        ? Self.findAny(wanted, in: subject, from: from)
        : Self.find(wanted, in: subject, from: from)
      guard let end else { return false }
      place = end
    }
    guard let floor = Self.skip(skip, subject, place) else { return false }
    return Self.ends(subject, with: suffix, pool, from: floor)
  }

  // MARK: Parts

  /// The byte continues a character.
  @inline(__always)
  private static func continues(_ subject: RawSpan, _ offset: Int) -> Bool {
    subject.unsafeLoad(fromByteOffset: offset, as: UInt8.self) & 0b1100_0000 == 0b1000_0000
  }

  /// Between two characters, or at an end.
  @inline(__always)
  private static func isBoundary(_ subject: RawSpan, _ offset: Int) -> Bool {
    offset == 0 || offset == subject.byteCount || !continues(subject, offset)
  }

  /// Behind one character; nil at the end.
  @inline(__always)
  private static func next(_ subject: RawSpan, _ offset: Int) -> Int? {
    guard offset < subject.byteCount else { return nil }
    var end = offset + 1
    while end < subject.byteCount, continues(subject, end) { end += 1 }
    return end
  }

  private static func skip(_ count: Int, _ subject: RawSpan, _ offset: Int) -> Int? {
    var place = offset
    for _ in 0..<count {
      guard let end = next(subject, place) else { return nil }
      place = end
    }
    return place
  }

  /// Where the prefix ends if the subject begins with it.
  private static func end(of prefix: Range<Int>, _ pool: RawSpan, in subject: RawSpan) -> Int? {
    var place = 0
    for index in prefix {
      let wanted = pool.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      if wanted == any {
        guard isBoundary(subject, place), let end = next(subject, place) else { return nil }
        place = end
      } else {
        guard place < subject.byteCount,
          subject.unsafeLoad(fromByteOffset: place, as: UInt8.self) == wanted
        else { return nil }
        place += 1
      }
    }
    return isBoundary(subject, place) ? place : nil
  }

  /// Whether the subject ends with the suffix, which begins at `floor` or behind.
  private static func ends(
    _ subject: RawSpan, with suffix: Range<Int>, _ pool: RawSpan, from floor: Int
  ) -> Bool {
    var place = subject.byteCount
    for index in suffix.reversed() {
      guard place > floor else { return false }
      place -= 1
      let wanted = pool.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      if wanted == any {
        while place > floor, continues(subject, place) { place -= 1 }
      } else if subject.unsafeLoad(fromByteOffset: place, as: UInt8.self) != wanted {
        return false
      }
    }
    return true
  }

  /// Where a literal ends that is found first.
  private static func find(_ wanted: RawSpan, in subject: RawSpan, from start: Int) -> Int? {
    var from = start
    while let found = subject.firstOffset(of: wanted, from: from) {
      let end = found + wanted.byteCount
      if isBoundary(subject, end) { return end }
      // The character before is longer than the literal's last one, so that no occurrence covers it.
      from = end
    }
    return nil
  }

  /// The same with `_` inside: a bit for each of its places that a match has come to.
  private static func findAny(_ wanted: RawSpan, in subject: RawSpan, from start: Int) -> Int? {
    var places = InlineArray<256, UInt64>(repeating: 0)
    var anyPlaces: UInt64 = 0
    for index in 0..<wanted.byteCount {
      let byte = wanted.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      let bit: UInt64 = 1 << UInt64(index)
      if byte == any { anyPlaces |= bit } else { places[Int(byte)] |= bit }
    }
    let last: UInt64 = 1 << UInt64(wanted.byteCount - 1)
    var state: UInt64 = 0
    var place = start
    while place < subject.byteCount {
      let byte = subject.unsafeLoad(fromByteOffset: place, as: UInt8.self)
      let advanced = state << 1 | 1
      state =
        byte & 0b1100_0000 == 0b1000_0000
        ? advanced & places[Int(byte)] | state & anyPlaces
        : advanced & (places[Int(byte)] | anyPlaces)
      place += 1
      if state & last != 0, isBoundary(subject, place) { return place }
    }
    return nil
  }
}
