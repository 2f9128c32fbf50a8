import CSystem

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), with the processor's instruction where it
/// has one.
public enum CRC32C {
  /// The checksum of `bytes`; `seed` makes the same bytes at another place a different checksum.
  public static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
    ~update(~seed, bytes)
  }

  /// The one seed with which `bytes` have this checksum. Each step of a checksum can be undone: no two
  /// entries of the table have the same upper byte, which is all that is left of the state's lower one.
  public static func seed(_ bytes: UnsafeRawBufferPointer, checksum: UInt32) -> UInt32 {
    var state = ~checksum
    for byte in bytes.reversed() {
      let index = UInt32(indices[Int(state >> 24)])
      state = (state ^ table[Int(index)]) << 8 | (index ^ UInt32(byte))
    }
    return ~state
  }

  private static let hasInstruction = system_has_crc32c() != 0

  private static func update(_ crc: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    guard let start = bytes.baseAddress else { return crc }
    if hasInstruction {
      return system_crc32c(
        crc, start.assumingMemoryBound(to: UInt8.self), UInt64(bytes.count))
    }
    return software(crc, bytes)
  }

  /// One table step per byte, for processors without the instruction.
  static func software(_ crc: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var state = crc
    for byte in bytes {
      state = table[Int((state ^ UInt32(byte)) & 0xFF)] ^ (state >> 8)
    }
    return state
  }

  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in
      value & 1 == 1 ? (value >> 1) ^ 0x82F6_3B78 : value >> 1
    }
  }

  /// Where in the table the entry with each upper byte is.
  private static let indices: [UInt8] = {
    var indices = [UInt8](repeating: 0, count: 256)
    for (index, entry) in table.enumerated() { indices[Int(entry >> 24)] = UInt8(index) }
    return indices
  }()
}
