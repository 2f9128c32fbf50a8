import Base
import IO
import Journal

/// Looks for the blocks of a lane file whose table cannot be read; each says of itself what it is.
struct LaneScan {
  private(set) var blocks: [LaneBlock] = []

  /// A block that is cut off by the file's end, or larger than any message, is none.
  init(_ disk: any Disk, _ path: String, _ number: UInt32) throws(JournalError) {
    let file = try LenientDisk(disk: disk).opened(path)
    let size = try system { () throws(SystemError) in try file.size }
    var offset = LaneTable.headerBytes
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    defer { chunk.deallocate() }
    var start = 0
    var end = 0
    while offset + LaneBlockFormat.headerBytes <= size {
      if offset < start || offset + LaneBlockFormat.headerBytes > end {
        start = offset
        end = min(size, offset + chunk.count)
        let part = UnsafeMutableRawBufferPointer(rebasing: chunk[..<(end - start)])
        _ = try system { () throws(SystemError) in try file.read(at: start, into: part) }
      }
      let head = UnsafeRawPointer(chunk.baseAddress! + (offset - start))
      let count = Int(head.loadUnaligned(as: UInt32.self))
      guard Self.isPlausible(head, count), count <= size - offset,
        let block = try Self.block(file, number, offset, count)
      else {
        offset += Record.alignment
        continue
      }
      blocks.append(block)
      offset += count
    }
  }

  /// Whether the head of a block may be one; it keeps the search from reading what is no block.
  private static func isPlausible(_ head: UnsafeRawPointer, _ size: Int) -> Bool {
    let messages = LaneBlockFormat.count(head)
    return size > LaneBlockFormat.headerBytes && size % 8 == 0 && messages > 0
      && messages <= (size - LaneBlockFormat.headerBytes) / (LaneBlockFormat.indexBytes + 16)
  }

  private static func block(
    _ file: any DiskFile, _ number: UInt32, _ offset: Int, _ size: Int
  ) throws(JournalError) -> LaneBlock? {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
    defer { memory.deallocate() }
    _ = try system { () throws(SystemError) in try file.read(at: offset, into: memory) }
    let block = UnsafeRawBufferPointer(memory)
    guard LaneBlockFormat.isValid(block, file: number) else { return nil }
    let entries = LaneBlockFormat.entries(block)
    guard let first = entries.first, let last = entries.last, first >> 8 <= last >> 8 else {
      return nil
    }
    return LaneBlock(
      file: number, offset: offset, size: size,
      lane: block.loadUnaligned(fromByteOffset: 8, as: UInt32.self), first: first >> 8,
      last: last >> 8, count: entries.count, durableCount: entries.count { $0 & 1 != 0 },
      earliestExpiry: LaneBlockFormat.earliestExpiry(block.baseAddress!),
      durableBytes: LaneBlockFormat.durableBytes(block.baseAddress!))
  }
}

extension LenientDisk {
  func opened(_ path: String) throws(JournalError) -> any DiskFile {
    try system { () throws(SystemError) in try open(path, .read) }
  }
}

extension LaneBlockFormat {
  /// Sequences with flags of a valid block.
  static func entries(_ block: UnsafeRawBufferPointer) -> [UInt64] {
    (0..<count(block.baseAddress!)).map { entry(block.baseAddress!, $0).packed }
  }
}
