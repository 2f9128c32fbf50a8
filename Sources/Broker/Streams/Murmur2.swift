/// The hash by which Kafka's Java client chooses a partition for a key, so that clients of both protocols agree
/// (org.apache.kafka.common.utils.Utils.murmur2).
enum Murmur2 {
  private static let seed: UInt32 = 0x9747_B28C
  private static let factor: UInt32 = 0x5BD1_E995
  private static let shift: UInt32 = 24

  static func hash(_ key: RawSpan) -> UInt32 {
    let count = key.byteCount
    var state = seed ^ UInt32(truncatingIfNeeded: count)
    let whole = count & ~3
    var offset = 0
    while offset < whole {
      var word = UInt32(
        littleEndian: key.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
      word = word &* factor
      word ^= word >> shift
      word = word &* factor
      state = state &* factor
      state ^= word
      offset += 4
    }
    if count > whole {
      for index in (whole..<count).reversed() {
        let byte = UInt32(key.unsafeLoad(fromByteOffset: index, as: UInt8.self))
        state ^= byte << UInt32(8 * (index - whole))
      }
      state = state &* factor
    }
    state ^= state >> 13
    state = state &* factor
    state ^= state >> 15
    return state
  }

  /// Which of so many partitions has the records of a key.
  static func partition(of key: RawSpan, count: Int) -> Int {
    Int(hash(key) & 0x7FFF_FFFF) % count
  }
}
