import Base
import IO
import Testbed
import Testing

@testable import Journal

/// The bytes of lane files and checkpoints.
@Suite struct LaneTableTests {
  private static func table() -> LaneTable {
    LaneTable(
      number: 0x1234, identity: 0xFEED_0123_4567_89AB,
      blocks: (0..<5).map { index in
        LaneBlock(
          file: 0x1234, offset: 64 + 1000 * index, size: 1000, lane: UInt32(index / 2),
          first: 10 << 40 | UInt64(index), last: 11 << 40, count: 70_000 + index,
          durableCount: index,
          earliestExpiry: index == 3 ? LaneBlock.neverExpires : 1_790_000_000_000 + UInt64(index),
          durableBytes: 7 * index)
      })
  }

  private static func bytes(_ table: LaneTable) -> [UInt8] {
    let encoded = table.encodedTable()
    let offset = 64 + 5000
    return table.encodedHeader(table: encoded, at: offset)
      + [UInt8](repeating: 7, count: 5000) + encoded
  }

  private static func read(_ bytes: [UInt8], in directory: TemporaryDirectory) throws -> LaneTable {
    let path = directory.path + "/x.lanes"
    try FileSystem.remove(path)
    try File(path, .readWrite, creates: true).write(at: 0, bytes)
    return try LaneTable(SystemDisk(), path)
  }

  @Test func aTableIsReadAsItWasWritten() throws {
    let directory = try TemporaryDirectory()
    #expect(try Self.read(Self.bytes(Self.table()), in: directory) == Self.table())
    let empty = LaneTable(number: 1, identity: 2, blocks: [])
    let bytes = empty.encodedHeader(table: [], at: 64)
    #expect(try Self.read(bytes, in: directory) == empty)
  }

  @Test func everyTruncationIsNoticed() throws {
    let directory = try TemporaryDirectory()
    let whole = Self.bytes(Self.table())
    for count in Array(0..<100) + Array(4900..<whole.count) {
      if (try? Self.read(Array(whole.prefix(count)), in: directory)) != nil {
        Issue.record("\(count) bytes")
      }
    }
  }

  @Test func everyFlippedBitOfHeaderAndTableIsNoticed() throws {
    let directory = try TemporaryDirectory()
    let whole = Self.bytes(Self.table())
    for place in Array(0..<64) + Array(5064..<whole.count) {
      for bit in [0, 3, 7] {
        var bytes = whole
        bytes[place] ^= 1 << bit
        if (try? Self.read(bytes, in: directory)) != nil {
          Issue.record("bit \(bit) of byte \(place)")
        }
      }
    }
  }

  /// A checksum can be right over a sum that cannot be.
  @Test(arguments: [-1, 1001, .max]) func moreBytesThanABlockHasAreNoticed(bytes: Int) throws {
    let directory = try TemporaryDirectory()
    let block = Self.table().blocks[0]
    func table(_ bytes: Int) -> LaneTable {
      LaneTable(
        number: 1, identity: 2,
        blocks: [
          LaneBlock(
            file: 1, offset: block.offset, size: block.size, lane: 1, first: 1, last: 1, count: 1,
            durableCount: 1, earliestExpiry: LaneBlock.neverExpires, durableBytes: bytes)
        ])
    }
    #expect(try Self.read(Self.bytes(table(1000)), in: directory) == table(1000))
    #expect(throws: JournalError.self) { try Self.read(Self.bytes(table(bytes)), in: directory) }
  }

  @Test func aNewerTableIsRefusedByName() throws {
    let directory = try TemporaryDirectory()
    var bytes = Self.bytes(Self.table())
    bytes[8] = 6
    #expect(throws: JournalError.newer(file: directory.path + "/x.lanes", version: 6)) {
      try Self.read(bytes, in: directory)
    }
  }

  @Test func namesSayTheNumber() {
    #expect(LaneTable.name(0x1F) == "000000000000001f.lanes")
    #expect(LaneTable.name(.max, isScratch: true) == "00000000ffffffff.scratch")
  }

  // MARK: Blocks

  /// A block with three messages.
  private static func block() -> [UInt8] {
    let place = LaneBlockFormat.headerBytes + 3 * LaneBlockFormat.indexBytes
    var bytes = [UInt8](repeating: 0, count: place + 3 * 48)
    bytes.withUnsafeMutableBytes { bytes in
      let base = bytes.baseAddress!
      for index in 0..<3 {
        LaneBlockFormat.writeIndex(
          base, index, packed: UInt64(index + 5) << 8 | 1, offset: place + 48 * index, size: 41)
        for byte in 0..<41 { bytes[place + 48 * index + byte] = UInt8(byte + index) }
      }
      LaneBlockFormat.writeHeader(
        base, size: bytes.count, lane: 9, count: 3, earliestExpiry: 1_790_000_000_007,
        durableBytes: 61)
      seal(bytes)
    }
    return bytes
  }

  private static func seal(_ bytes: UnsafeMutableRawBufferPointer) {
    let sum = LaneBlockFormat.checksum(UnsafeRawBufferPointer(bytes), file: 3)
    bytes.storeBytes(of: sum, toByteOffset: 4, as: UInt32.self)
  }

  private static func isValid(_ bytes: [UInt8], file: UInt32 = 3) -> Bool {
    bytes.withUnsafeBytes { LaneBlockFormat.isValid($0, file: file) }
  }

  @Test func aBlockIsReadAsItWasWritten() {
    let bytes = Self.block()
    #expect(Self.isValid(bytes))
    bytes.withUnsafeBytes { bytes in
      #expect(LaneBlockFormat.count(bytes.baseAddress!) == 3)
      for index in 0..<3 {
        let (packed, offset) = LaneBlockFormat.entry(bytes.baseAddress!, index)
        #expect(packed == UInt64(index + 5) << 8 | 1)
        #expect(offset == UInt32(80 + 48 * index))
      }
      let description = LaneBlockFormat.description(bytes, file: 3, offset: 640)
      #expect(
        description
          == LaneBlock(
            file: 3, offset: 640, size: bytes.count, lane: 9, first: 5, last: 7, count: 3,
            durableCount: 3, earliestExpiry: 1_790_000_000_007, durableBytes: 61))
    }
  }

  @Test func everyFlippedBitAndTruncationOfABlockIsNoticed() {
    let whole = Self.block()
    for place in whole.indices {
      for bit in 0..<8 {
        var bytes = whole
        bytes[place] ^= 1 << bit
        if Self.isValid(bytes) { Issue.record("bit \(bit) of byte \(place)") }
      }
      if Self.isValid(Array(whole.prefix(place))) { Issue.record("\(place) bytes") }
    }
    #expect(!Self.isValid(whole, file: 4), "a block of another file")
    #expect(!Self.isValid([UInt8](repeating: 0, count: 200)), "a hole")
  }

  @Test(arguments: [(8, 1 << 20), (8, 4), (12, 1 << 20), (12, 8)])
  func anIndexThatLeadsOutOfItsBlockIsNoticed(field: Int, value: Int) {
    var bytes = Self.block()
    bytes.withUnsafeMutableBytes { bytes in
      bytes.storeBytes(of: UInt32(value), toByteOffset: 32 + 16 + field, as: UInt32.self)
      Self.seal(bytes)
    }
    #expect(!Self.isValid(bytes))
  }
}

@Suite struct CheckpointTests {
  /// A record of 48 bytes.
  private static let payload: [UInt8] = {
    var record = [UInt8](0..<48)
    record.withUnsafeMutableBytes {
      Record.writeHeader($0.baseAddress!, size: 48, kind: 32, flags: 0, count: 0, word: 7)
    }
    return record
  }()

  private func stored(_ directory: TemporaryDirectory) throws -> (path: String, bytes: [UInt8]) {
    let files = SegmentFiles(
      disk: SystemDisk(), directory: directory.path, segmentBytes: 1 << 20, identity: 77,
      spares: [])
    let file = CheckpointFile(
      identity: 77, position: 0x5000, replayFrom: 0x4000, payload: Self.payload, isSynced: true)
    _ = file.store(files)
    let path = directory.path + "/" + CheckpointFile.name(0x5000)
    return (path, try FileSystem.readWhole(path))
  }

  @Test func aCheckpointIsReadAsItWasWritten() throws {
    let read = try CheckpointFile(stored(TemporaryDirectory()).bytes)
    #expect(read.identity == 77 && read.position == 0x5000 && read.replayFrom == 0x4000)
    #expect(read.payload == Self.payload)
  }

  /// The first ones had 48 bytes of header, and little behind it.
  @Test(arguments: [1, 2, 3, 4] as [UInt8])
  func anOlderVersionIsRefusedWhateverItsSize(version: UInt8) {
    for count in [12, 48, 60, 200] {
      let bytes = Array("MARTLETC".utf8) + [version] + [UInt8](repeating: 0, count: count - 9)
      #expect(throws: CheckpointFile.Problem.stranger(.older(UInt32(version)))) {
        try CheckpointFile(bytes)
      }
    }
  }

  @Test func aNewerVersionIsRefusedByName() throws {
    let directory = try TemporaryDirectory()
    let path = try stored(directory).path
    try File(path, .readWrite).write(at: 8, [6, 0, 0, 0])
    #expect(throws: JournalError.newer(file: path, version: 6)) { try Harness(directory.path) }
  }

  @Test func everyFlippedByteAndTruncationIsNoticed() throws {
    let whole = try stored(TemporaryDirectory()).bytes
    for place in whole.indices {
      var bytes = whole
      bytes[place] ^= 0x42
      if (try? CheckpointFile(bytes)) != nil { Issue.record("byte \(place)") }
    }
    for count in whole.indices {
      if (try? CheckpointFile(Array(whole.prefix(count)))) != nil { Issue.record("\(count) bytes") }
    }
  }
}
