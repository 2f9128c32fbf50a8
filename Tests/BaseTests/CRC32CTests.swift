import Arbitrary
import Testing

@testable import Base

@Suite struct CRC32CTests {
  /// The vectors of RFC 3720, appendix B.4, and the customary one.
  @Test(
    arguments: [
      (Array("123456789".utf8), 0xE306_9283), ([], 0), (Array("a".utf8), 0xC1D0_4330),
      ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
      ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43), (Array(0...31), 0x46DD_794E),
      (Array((0...31).reversed()), 0x113F_DB5C),
    ] as [([UInt8], UInt32)])
  func knownVectors(bytes: [UInt8], expected: UInt32) {
    #expect(Self.checksum(bytes) == expected)
    #expect(Self.software(bytes) == expected)
  }

  @Test(arguments: Seed.some(4))
  func theTableAndTheInstructionAgree(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for count in Array(0...70) + [4095, 4096, 4097] {
      let bytes = random.bytes(count + 7)
      for start in 0..<7 {
        let slice = Array(bytes[start..<start + count])
        let crcSeed: UInt32 = random.integer()
        let unaligned = bytes.withUnsafeBytes { bytes in
          CRC32C.checksum(
            UnsafeRawBufferPointer(rebasing: bytes[start..<start + count]), seed: crcSeed)
        }
        #expect(unaligned == Self.software(slice, seed: crcSeed), "\(count) bytes at \(start)")
      }
    }
  }

  @Test(arguments: Seed.some(4))
  func aChecksumTellsItsSeed(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for count in 0...100 {
      let bytes = random.bytes(count)
      let crcSeed: UInt32 = random.integer()
      let found = bytes.withUnsafeBytes {
        CRC32C.seed($0, checksum: CRC32C.checksum($0, seed: crcSeed))
      }
      #expect(found == crcSeed, "\(count) bytes")
    }
  }

  @Test(arguments: Seed.some(4))
  func aChecksumSeedsThatOfTheBytesBehind(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let bytes = random.bytes(100)
    for cut in 0...bytes.count {
      let front = Self.checksum(Array(bytes[..<cut]))
      #expect(Self.checksum(Array(bytes[cut...]), seed: front) == Self.checksum(bytes))
    }
  }

  @Test(arguments: Seed.some(4))
  func everyFlippedBitAndEverySeedIsSeen(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var bytes = random.bytes(64)
    let expected = Self.checksum(bytes)
    for bit in 0..<bytes.count * 8 {
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(Self.checksum(bytes) != expected, "bit \(bit)")
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    #expect(Self.checksum(bytes, seed: 1) != expected)
  }

  private static func checksum(_ bytes: [UInt8], seed: UInt32 = 0) -> UInt32 {
    bytes.withUnsafeBytes { CRC32C.checksum($0, seed: seed) }
  }

  private static func software(_ bytes: [UInt8], seed: UInt32 = 0) -> UInt32 {
    bytes.withUnsafeBytes { ~CRC32C.software(~seed, $0) }
  }
}
