import Base
import IO

/// The head and the table of a lane file; `Specs/Journal.md` has the picture.
package struct LaneTable: Equatable {
  package static let headerBytes = 64
  static let entryBytes = 56
  static let magic = Array("MARTLETL".utf8)

  package let number: UInt32
  package let identity: UInt64
  package let blocks: [LaneBlock]

  package static func name(_ number: UInt32, isScratch: Bool = false) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
      + (isScratch ? ".scratch" : ".lanes")
  }

  // MARK: Writing

  package func encodedTable() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: blocks.count * Self.entryBytes)
    bytes.withUnsafeMutableBytes { bytes in
      for (index, block) in blocks.enumerated() {
        let place = index * Self.entryBytes
        bytes.storeBytes(of: UInt64(block.offset), toByteOffset: place, as: UInt64.self)
        bytes.storeBytes(of: UInt32(block.size), toByteOffset: place + 8, as: UInt32.self)
        bytes.storeBytes(of: block.lane, toByteOffset: place + 12, as: UInt32.self)
        bytes.storeBytes(of: block.first, toByteOffset: place + 16, as: UInt64.self)
        bytes.storeBytes(of: block.last, toByteOffset: place + 24, as: UInt64.self)
        bytes.storeBytes(of: UInt32(block.count), toByteOffset: place + 32, as: UInt32.self)
        bytes.storeBytes(
          of: UInt32(block.durableCount), toByteOffset: place + 36, as: UInt32.self)
        bytes.storeBytes(of: block.earliestExpiry, toByteOffset: place + 40, as: UInt64.self)
        bytes.storeBytes(
          of: UInt64(bitPattern: Int64(block.durableBytes)), toByteOffset: place + 48,
          as: UInt64.self)
      }
    }
    return bytes
  }

  package func encodedHeader(table: [UInt8], at offset: Int) -> [UInt8] {
    var bytes = Self.magic + [UInt8](repeating: 0, count: Self.headerBytes - 8)
    bytes.withUnsafeMutableBytes { bytes in
      bytes.storeBytes(of: JournalFormat.version, toByteOffset: 8, as: UInt32.self)
      bytes.storeBytes(of: UInt64(number), toByteOffset: 16, as: UInt64.self)
      bytes.storeBytes(of: identity, toByteOffset: 24, as: UInt64.self)
      bytes.storeBytes(of: UInt64(offset), toByteOffset: 32, as: UInt64.self)
      bytes.storeBytes(of: UInt32(blocks.count), toByteOffset: 40, as: UInt32.self)
      bytes.storeBytes(
        of: table.withUnsafeBytes { CRC32C.checksum($0) }, toByteOffset: 44, as: UInt32.self)
      let covered = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[16...])
      bytes.storeBytes(of: CRC32C.checksum(covered), toByteOffset: 12, as: UInt32.self)
    }
    return bytes
  }

  // MARK: Reading

  package init(number: UInt32, identity: UInt64, blocks: [LaneBlock]) {
    self.number = number
    self.identity = identity
    self.blocks = blocks
  }

  /// Reads the table of the file at `path`.
  package init(_ disk: any Disk, _ path: String) throws(JournalError) {
    let file = try system { () throws(SystemError) in try disk.open(path, .read) }
    let head = try Self.read(file, at: 0, count: Self.headerBytes)
    let fields = head.withUnsafeBytes { head in
      (
        version: head.load(fromByteOffset: 8, as: UInt32.self),
        sum: head.load(fromByteOffset: 12, as: UInt32.self),
        number: head.load(fromByteOffset: 16, as: UInt64.self),
        identity: head.load(fromByteOffset: 24, as: UInt64.self),
        offset: head.load(fromByteOffset: 32, as: UInt64.self),
        count: head.load(fromByteOffset: 40, as: UInt32.self),
        tableSum: head.load(fromByteOffset: 44, as: UInt32.self),
        computed: CRC32C.checksum(UnsafeRawBufferPointer(rebasing: head[16...]))
      )
    }
    guard head.starts(with: Self.magic) else { throw .inconsistent("\(path) is not a lane file") }
    if let stranger = JournalFormat.stranger(fields.version) { throw stranger.error(path) }
    guard fields.version > 0, fields.sum == fields.computed, fields.number < UInt32.max else {
      throw .damaged(file: path, offset: 0, position: 0, reason: "its header is damaged")
    }
    let size = try system { () throws(SystemError) in try file.size }
    let tableBytes = Int(fields.count) * Self.entryBytes
    guard fields.offset <= UInt64(size), tableBytes <= size - Int(fields.offset) else {
      throw .damaged(file: path, offset: size, position: 0, reason: "it ends before its table")
    }
    let table = try Self.read(file, at: Int(fields.offset), count: tableBytes)
    guard table.withUnsafeBytes({ CRC32C.checksum($0) }) == fields.tableSum else {
      throw .damaged(
        file: path, offset: Int(fields.offset), position: 0, reason: "its table is damaged")
    }
    number = UInt32(fields.number)
    identity = fields.identity
    blocks = Self.decoded(table, file: number)
    // A right checksum does not make a table that can be worked with.
    guard Self.makesSense(blocks, tableOffset: Int(fields.offset)) else {
      throw .damaged(
        file: path, offset: Int(fields.offset), position: 0, reason: "its table makes no sense")
    }
  }

  /// Whether the blocks stand one behind the other, before the table.
  private static func makesSense(_ blocks: [LaneBlock], tableOffset: Int) -> Bool {
    var end = headerBytes
    for block in blocks {
      guard block.offset >= end, block.offset <= tableOffset,
        block.size <= tableOffset - block.offset,
        block.size >= LaneBlockFormat.headerBytes, block.first <= block.last,
        block.last <= UInt64.max >> 8, block.count > 0,
        block.durableCount <= block.count, (0...block.size).contains(block.durableBytes)
      else { return false }
      end = block.offset + block.size
    }
    return true
  }

  private static func read(
    _ file: any DiskFile, at offset: Int, count: Int
  ) throws(JournalError) -> [UInt8] {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
    defer { buffer.deallocate() }
    let got: Int
    do throws(SystemError) {
      got = try file.read(at: offset, into: buffer)
    } catch {
      throw .reading(error, file.path, offset: offset)
    }
    guard got == count else {
      throw .damaged(file: file.path, offset: got, position: 0, reason: "it ends too early")
    }
    return Array(buffer)
  }

  private static func decoded(_ table: [UInt8], file: UInt32) -> [LaneBlock] {
    table.withUnsafeBytes { table in
      stride(from: 0, to: table.count, by: entryBytes).map { place in
        LaneBlock(
          file: file,
          offset: Int(
            truncatingIfNeeded: table.loadUnaligned(fromByteOffset: place, as: UInt64.self)),
          size: Int(table.loadUnaligned(fromByteOffset: place + 8, as: UInt32.self)),
          lane: table.loadUnaligned(fromByteOffset: place + 12, as: UInt32.self),
          first: table.loadUnaligned(fromByteOffset: place + 16, as: UInt64.self),
          last: table.loadUnaligned(fromByteOffset: place + 24, as: UInt64.self),
          count: Int(table.loadUnaligned(fromByteOffset: place + 32, as: UInt32.self)),
          durableCount: Int(table.loadUnaligned(fromByteOffset: place + 36, as: UInt32.self)),
          earliestExpiry: table.loadUnaligned(fromByteOffset: place + 40, as: UInt64.self),
          durableBytes: Int(
            truncatingIfNeeded: table.loadUnaligned(fromByteOffset: place + 48, as: UInt64.self)))
      }
    }
  }
}
