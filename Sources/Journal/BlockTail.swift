/// Where the next record goes: the hot fields of an open block.
struct BlockTail {
  var base: UnsafeMutableRawPointer?
  var used = 0
  var capacity = 0
  var block: UInt32 = 0
  /// Log position of the block's first byte, or of the log's end when no block is open.
  var start = 0

  init() {}

  init(position: Int) {
    start = position
  }

  init(base: UnsafeMutableRawPointer, used: Int, capacity: Int, block: UInt32, start: Int) {
    self.base = base
    self.used = used
    self.capacity = capacity
    self.block = block
    self.start = start
  }

  /// Bytes that a record may take.
  @inline(__always) var room: Int { capacity &- used }
  var position: Int { start + used }

  mutating func rewind() {
    used = 0
  }

  @inline(__always)
  mutating func append(
    size: Int, padded: Int, kind: UInt8, flags: UInt8, count: UInt16, word: UInt32
  ) -> (location: RecordLocation, payload: UnsafeMutableRawPointer) {
    let record = base.unsafelyUnwrapped + used
    Record.writeHeader(
      record, size: size, kind: kind, flags: flags, count: count, word: word)
    let location = RecordLocation(block: block, offset: UInt32(truncatingIfNeeded: used))
    used &+= padded
    return (location, record + Record.headerSize)
  }
}
