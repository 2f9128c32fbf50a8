import Base

/// A key that says itself over which part of a spread dictionary it goes.
protocol SpreadKey: Hashable {
  /// Bits that depend on the key alone; its upper half differs well.
  var spread: UInt64 { get }
}

/// A dictionary of which no single call does much, whatever its size: one that is large consists of
/// many small ones, each of which grows, shrinks and is given back by itself.
struct SpreadDictionary<Key: SpreadKey, Value> {
  /// None if nothing is there, and one or many otherwise.
  private var parts: [[Key: Value]] = []
  private(set) var count = 0

  /// Small dictionaries of a large one.
  private static var partsCount: Int { 512 }
  /// One dictionary is enough for so many.
  private static var singleMax: Int { 4096 }
  /// Smaller parts are not worth shrinking.
  private static var shrinkingMin: Int { 64 }

  var isEmpty: Bool { count == 0 }
  var keys: some Sequence<Key> { parts.lazy.flatMap(\.keys) }
  var values: some Sequence<Value> { parts.lazy.flatMap(\.values) }

  subscript(key: Key) -> Value? {
    get { parts.isEmpty ? nil : parts[part(of: key)][key] }
    _modify {
      if parts.isEmpty { parts = [[:]] }
      let part = part(of: key)
      let before = parts[part].count
      defer {
        let change = parts[part].count - before
        count += change
        if change < 0 { shrink(part) } else if change > 0 { spreadIfLarge() }
      }
      yield &parts[part][key]
    }
  }

  /// Of the small dictionaries; `part` shows one. There may be more when values are added, and one alone
  /// when all were removed; a key that stays is in the same one as long as there are several.
  var partCount: Int { max(1, parts.count) }

  func part(_ index: Int) -> [Key: Value] { parts.isEmpty ? [:] : parts[index] }

  /// Takes some values out, a small part of all; none if there are none.
  mutating func removeSome() -> [Value] {
    guard let part = parts.lastIndex(where: { !$0.isEmpty }) else { return [] }
    let values = Array(parts[part].values)
    count -= values.count
    parts[part] = [:]
    if count == 0 { parts = [] }
    return values
  }

  private func part(of key: Key) -> Int {
    parts.count == 1 ? 0 : Int(truncatingIfNeeded: key.spread >> 32) & (parts.count - 1)
  }

  private mutating func spreadIfLarge() {
    guard parts.count == 1, count > Self.singleMax else { return }
    let all = parts[0]
    parts = Array(repeating: [:], count: Self.partsCount)
    for (key, value) in all { parts[part(of: key)][key] = value }
  }

  private mutating func shrink(_ part: Int) {
    if count == 0 {
      parts = []
      return
    }
    let left = parts[part]
    // Keys that go in any order leave all parts alike: they shrink at different times.
    let emptiness = 8 + part % 16
    guard left.capacity > Self.shrinkingMin, left.count * emptiness < left.capacity else { return }
    var smaller = [Key: Value](minimumCapacity: 2 * left.count)
    for (key, value) in left { smaller[key] = value }
    parts[part] = smaller
  }
}

extension Name: SpreadKey {
  var spread: UInt64 { bytes.withUnsafeBytes { SeededHash.hash($0) } }
}

extension UInt64: SpreadKey {
  var spread: UInt64 { self }
}

/// An object that lives at least as long as it is a key.
struct ObjectKey: SpreadKey {
  private let id: ObjectIdentifier

  init(_ object: AnyObject) { id = ObjectIdentifier(object) }

  /// Addresses differ in their middle.
  var spread: UInt64 { UInt64(UInt(bitPattern: id) >> 4) &* 0x9E37_79B9_7F4A_7C15 }
}
