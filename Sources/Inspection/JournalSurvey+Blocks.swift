import Base
import Broker
import IO
import Journal

/// A message of a lane file as a reader sees it.
package struct LaneMessage {
  package let sequence: UInt64
  package let isDurable: Bool
  package let record: RecordView
}

extension JournalSurvey {
  /// The bytes of a block, zero where there are none.
  package func bytes(of block: LaneBlock) throws(JournalError) -> [UInt8] {
    let path = path(LaneTable.name(block.file))
    let file = try LenientDisk(disk: disk).opened(path)
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(block.size, LaneBlockFormat.headerBytes), alignment: 16)
    defer { memory.deallocate() }
    _ = try system { () throws(SystemError) in try file.read(at: block.offset, into: memory) }
    return Array(memory.prefix(block.size))
  }

  /// The block was given back to the file system.
  func isHole(_ block: LaneBlock) throws(JournalError) -> Bool {
    try bytes(of: block).allSatisfy { $0 == 0 }
  }

  /// Hands over each message of a block, or says why the block is not sound; `isWellFormed` is asked
  /// of each record.
  package func read(
    _ block: LaneBlock, isWellFormed: (RecordView) -> Bool, _ body: (LaneMessage) -> Void = { _ in }
  ) throws(JournalError) -> String? {
    let bytes = try bytes(of: block)
    return bytes.withUnsafeBytes { bytes in
      guard LaneBlockFormat.isValid(bytes, file: block.file) else {
        return bytes.allSatisfy { $0 == 0 }
          ? "the block is a hole" : "the block's checksum or index is wrong"
      }
      if let problem = Self.disagreement(bytes, block) { return problem }
      var durableBytes = 0
      for index in 0..<block.count {
        let (packed, offset) = LaneBlockFormat.entry(bytes.baseAddress!, index)
        let place = LaneBlockFormat.headerBytes + LaneBlockFormat.indexBytes * index + 12
        let size = Int(bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self))
        let record = RecordView(
          position: 0, base: bytes.baseAddress! + Int(offset), size: size)
        guard Int(record.base.loadUnaligned(as: UInt32.self)) == size, isWellFormed(record) else {
          return "message \(packed >> 8) does not have the form of a message"
        }
        if packed & 1 != 0 { durableBytes += BrokerRecords().bodySize(of: record) }
        body(LaneMessage(sequence: packed >> 8, isDurable: packed & 1 != 0, record: record))
      }
      guard durableBytes == block.durableBytes else {
        return "the bodies of its messages are \(durableBytes) bytes and not \(block.durableBytes)"
      }
      return nil
    }
  }

  /// Hands over what in a block that is not sound has the form of messages; nothing vouches for them.
  func readUnproven(
    _ block: LaneBlock, isWellFormed: (RecordView) -> Bool, _ body: (LaneMessage) -> Void
  ) throws(JournalError) {
    let bytes = try bytes(of: block)
    let room = max(0, bytes.count - LaneBlockFormat.headerBytes) / LaneBlockFormat.indexBytes
    bytes.withUnsafeBytes { bytes in
      for index in 0..<min(block.count, room) {
        let (packed, offset) = LaneBlockFormat.entry(bytes.baseAddress!, index)
        let sequence = packed >> 8
        guard offset % 8 == 0, Int(offset) + 2 * Record.headerSize <= bytes.count,
          (block.first...block.last).contains(sequence)
        else { continue }
        let base = bytes.baseAddress! + Int(offset)
        let size = Int(base.loadUnaligned(as: UInt32.self))
        let record = RecordView(position: 0, base: base, size: size)
        guard size <= bytes.count - Int(offset), isWellFormed(record) else { continue }
        body(LaneMessage(sequence: sequence, isDurable: packed & 1 != 0, record: record))
      }
    }
  }

  /// What the table says and the block does not.
  private static func disagreement(
    _ bytes: UnsafeRawBufferPointer, _ block: LaneBlock
  ) -> String? {
    let entries = LaneBlockFormat.entries(bytes)
    let lane = bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
    guard lane == block.lane, entries.count == block.count,
      entries.first.map({ $0 >> 8 }) == block.first, entries.last.map({ $0 >> 8 }) == block.last,
      entries.count(where: { $0 & 1 != 0 }) == block.durableCount,
      LaneBlockFormat.earliestExpiry(bytes.baseAddress!) == block.earliestExpiry,
      LaneBlockFormat.durableBytes(bytes.baseAddress!) == block.durableBytes
    else { return "the block is another one than the table says" }
    for (entry, next) in zip(entries, entries.dropFirst()) where entry >> 8 >= next >> 8 {
      return "messages \(entry >> 8) and \(next >> 8) are not in order"
    }
    return nil
  }

  /// Reads a record of the log that was valid before; `position` is where it stands.
  func readRecord(
    at position: Int, _ body: (RecordView) -> Void
  ) throws(JournalError) {
    let files = lenientFiles
    var memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 12, alignment: 16)
    defer { memory.deallocate() }
    let room = min(memory.count, logEnd - position)
    let head = UnsafeMutableRawBufferPointer(rebasing: memory[..<room])
    try system { () throws(SystemError) in try files.read(position: position, into: head) }
    let size = Int(memory.load(as: UInt32.self))
    if size > room {
      memory.deallocate()
      memory = .allocate(byteCount: size, alignment: 16)
      let whole = memory
      try system { () throws(SystemError) in try files.read(position: position, into: whole) }
    }
    body(RecordView(position: position, base: UnsafeRawPointer(memory.baseAddress!), size: size))
  }
}
