/// A map from byte strings to small integers that looks up without making a string: open addressing
/// on a hash that is seeded for each process, since clients choose the names.
public struct NameTable: ~Copyable {
  private struct Slot {
    var hash: UInt64
    /// Index into `keys`; -1 where nothing ever was, -2 where something was removed.
    var entry: Int32
  }

  private var slots: [Slot]
  private var keys: [[UInt8]] = []
  private var values: [Int32] = []
  private var freeEntries: [Int32] = []
  /// Slots that are not "nothing ever was".
  private var used = 0
  public private(set) var count = 0

  public init() {
    slots = Array(repeating: Slot(hash: 0, entry: -1), count: 16)
  }

  /// The value under `key`.
  public func find(_ key: UnsafeRawBufferPointer) -> Int32? {
    let hash = SeededHash.hash(key)
    var index = Int(truncatingIfNeeded: hash) & (slots.count - 1)
    while true {
      let slot = slots[index]
      if slot.entry == -1 { return nil }
      if slot.entry >= 0, slot.hash == hash, matches(Int(slot.entry), key) {
        return values[Int(slot.entry)]
      }
      index = (index + 1) & (slots.count - 1)
    }
  }

  public func find(_ key: Name) -> Int32? {
    key.bytes.withUnsafeBytes { find($0) }
  }

  public mutating func insert(_ key: Name, _ value: Int32) {
    insert(key.bytes, value)
  }

  public mutating func remove(_ key: Name) {
    remove(key.bytes)
  }

  /// Adds a key that is not there yet.
  public mutating func insert(_ key: [UInt8], _ value: Int32) {
    invariant(key.withUnsafeBytes { find($0) } == nil, "a name was inserted twice")
    if (used + 1) * 2 > slots.count { rebuild() }
    let hash = key.withUnsafeBytes { SeededHash.hash($0) }
    var index = Int(truncatingIfNeeded: hash) & (slots.count - 1)
    while slots[index].entry != -1 { index = (index + 1) & (slots.count - 1) }
    slots[index] = Slot(hash: hash, entry: newEntry(key, value))
    used += 1
    count += 1
  }

  /// Removes a key, if it is there.
  public mutating func remove(_ key: [UInt8]) {
    let hash = key.withUnsafeBytes { SeededHash.hash($0) }
    var index = Int(truncatingIfNeeded: hash) & (slots.count - 1)
    while slots[index].entry != -1 {
      let entry = slots[index].entry
      if entry >= 0, slots[index].hash == hash, keys[Int(entry)] == key {
        slots[index].entry = -2
        keys[Int(entry)] = []
        freeEntries.append(entry)
        count -= 1
        return
      }
      index = (index + 1) & (slots.count - 1)
    }
  }

  private func matches(_ entry: Int, _ key: UnsafeRawBufferPointer) -> Bool {
    keys[entry].count == key.count && keys[entry].withUnsafeBytes { $0.elementsEqual(key) }
  }

  private mutating func newEntry(_ key: [UInt8], _ value: Int32) -> Int32 {
    if let entry = freeEntries.popLast() {
      keys[Int(entry)] = key
      values[Int(entry)] = value
      return entry
    }
    keys.append(key)
    values.append(value)
    return Int32(keys.count - 1)
  }

  private mutating func rebuild() {
    let old = slots
    let size = max(16, (count + 1) * 4)
    let capacity = 1 << (Int.bitWidth - (size - 1).leadingZeroBitCount)
    slots = Array(repeating: Slot(hash: 0, entry: -1), count: capacity)
    used = 0
    for slot in old where slot.entry >= 0 {
      var index = Int(truncatingIfNeeded: slot.hash) & (capacity - 1)
      while slots[index].entry != -1 { index = (index + 1) & (capacity - 1) }
      slots[index] = slot
      used += 1
    }
  }
}

/// A fast hash of bytes, seeded once for each process; not for anything that leaves it.
public enum SeededHash {
  private static let seed: UInt64 = .random(in: .min ... .max)

  public static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    var state = seed ^ UInt64(truncatingIfNeeded: bytes.count)
    var offset = 0
    let count = bytes.count
    while offset &+ 8 <= count {
      let word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      state = mix(state ^ word, 0x9E37_79B9_7F4A_7C15)
      offset &+= 8
    }
    var word: UInt64 = 0
    while offset < count {
      word = word << 8 | UInt64(bytes[offset])
      offset &+= 1
    }
    return mix(state ^ word, 0xD6E8_FEB8_6659_FD93)
  }

  @inline(__always)
  private static func mix(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let product = left.multipliedFullWidth(by: right)
    return product.high ^ product.low
  }
}
