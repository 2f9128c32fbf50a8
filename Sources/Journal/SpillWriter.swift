import Base
import Glibc
import IO

/// Writes a round into a lane file; on the background thread.
struct SpillWriter: ~Copyable {
  private let files: SegmentFiles
  private let round: SpillRound
  private let records: any LaneRecords
  /// The bytes of the log that the round needs, one block behind the other.
  private var staging = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  private var places: [UInt32: Place] = [:]
  /// The block that is being put together.
  private var buffer: UnsafeMutableRawBufferPointer
  private var offset = LaneTable.headerBytes
  /// Blocks that were read a second time.
  private var reread: Set<UInt32> = []

  /// A file that has become so large takes no more lanes.
  private static let fileBytesMax = 256 << 20

  private struct Place {
    let base: UnsafeRawPointer
    /// nil for what is only in memory and has no checksum.
    let log: (position: Int, used: Int, epoch: UInt32)?
  }

  init(_ round: SpillRound, files: SegmentFiles, records: any LaneRecords) {
    self.round = round
    self.files = files
    self.records = records
    buffer = .init(
      start: BlockMemory.map(BlockMemory.usualBytes), count: BlockMemory.usualBytes)
  }

  deinit {
    munmap(buffer.baseAddress, buffer.count)
    if let base = staging.baseAddress { munmap(base, staging.count) }
  }

  /// Writes the file and makes it and its name durable.
  consuming func write() -> SpillOutcome {
    let path = files.path(LaneTable.name(round.number, isScratch: round.isScratch))
    do throws(SystemError) {
      try stage()
      var outcome = SpillOutcome()
      outcome.partitions = try writePartitions()
      guard !round.lanes.isEmpty || !round.merges.isEmpty else { return outcome }
      outcome.hasFile = true
      let file = try files.disk.open(path + ".new", .readWrite, creates: true)
      for lane in round.lanes where offset < Self.fileBytesMax {
        outcome.lanes.append(try write(lane, to: file))
      }
      for merge in round.merges { outcome.merged.append(try copy(merge, to: file)) }
      outcome.bytes = offset
      try finish(file, outcome)
      try files.disk.rename(path + ".new", path)
      if !round.isScratch {
        try files.disk.syncDirectory(files.directory)
      }
      return outcome
    } catch {
      discard(path)
      return SpillOutcome(failure: "\(error)")
    }
  }

  /// What is left of a round that failed is removed again; the start removes it too.
  private func discard(_ path: String) {
    do throws(SystemError) {
      try files.disk.remove(path + ".new")
      try files.disk.remove(path)
    } catch {
      // The disk that failed before fails again; the next start looks for such files.
    }
  }

  /// Reads the log's blocks, in their order, into memory.
  private mutating func stage() throws(SystemError) {
    var logged: [(id: UInt32, position: Int, used: Int, epoch: UInt32)] = []
    for (id, source) in round.sources {
      switch source {
      case .memory(let base): places[id] = Place(base: base, log: nil)
      case .log(let position, let used, let epoch): logged.append((id, position, used, epoch))
      }
    }
    let total = logged.reduce(0) { $0 + $1.used }
    guard total > 0 else { return }
    staging = .init(start: BlockMemory.map(total), count: total)
    var filled = 0
    for source in logged.sorted(by: { $0.position < $1.position }) {
      let piece = UnsafeMutableRawBufferPointer(
        rebasing: staging[filled..<filled + source.used])
      try files.read(position: source.position, into: piece)
      places[source.id] = Place(
        base: UnsafeRawPointer(piece.baseAddress!),
        log: (source.position, source.used, source.epoch))
      filled += source.used
    }
  }

  /// The record of an entry, which was found sound.
  private func record(_ entry: LaneEntry) -> RecordView {
    guard let place = places[entry.location.block] else {
      invariantFailed("a message to be moved is in a block that is not")
    }
    let base = place.base + Int(entry.location.offset)
    return RecordView(position: 0, base: base, size: Int(base.load(as: UInt32.self)))
  }

  /// Whether the record is what was written; one that is not is read again before that is believed.
  private mutating func isSound(_ entry: LaneEntry) throws(SystemError) -> Bool {
    guard let place = places[entry.location.block], let log = place.log else { return true }
    if isValid(entry, place.base, log) { return true }
    guard reread.insert(entry.location.block).inserted else { return false }
    try files.read(
      position: log.position,
      into: UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(mutating: place.base), count: log.used))
    return isValid(entry, place.base, log)
  }

  /// The core may have let go of the block meanwhile, and used its slot for another.
  private func logPosition(_ entry: LaneEntry) -> Int? {
    places[entry.location.block]?.log.map { $0.position + Int(entry.location.offset) }
  }

  private func isValid(
    _ entry: LaneEntry, _ base: UnsafeRawPointer, _ log: (position: Int, used: Int, epoch: UInt32)
  ) -> Bool {
    let offset = Int(entry.location.offset)
    let size = Int((base + offset).load(as: UInt32.self))
    return size >= Record.headerSize && offset + size <= log.used
      && Record.isValid(base + offset, size, position: log.position + offset, epoch: log.epoch)
  }

  /// Writes records of streams behind those that moved before.
  private mutating func writePartitions() throws(SystemError) -> [MovedPartition] {
    var moved: [MovedPartition] = []
    var hasNewFiles = false
    for selection in round.partitions {
      var records: [RecordView] = []
      records.reserveCapacity(selection.records.count)
      var damagedAt: Int?
      for location in selection.records {
        let entry = LaneEntry(packed: 0, location: location)
        guard try isSound(entry) else {
          damagedAt = logPosition(entry)
          break
        }
        records.append(record(entry))
      }
      var writer = PartitionWriter(selection, files: files)
      moved.append(try writer.write(records, damagedAt: damagedAt))
      hasNewFiles = hasNewFiles || writer.madeFile
    }
    if hasNewFiles {
      try files.disk.syncDirectory(files.path(PartitionFiles.directory))
      try files.disk.syncDirectory(files.directory)
    }
    return moved
  }

  /// The messages of a lane in the order of their sequences, each once, up to one that is damaged.
  private mutating func sorted(
    _ selected: [LaneEntry]
  ) throws(SystemError) -> SpillOutcome.Lane {
    var lane = SpillOutcome.Lane()
    lane.entries.reserveCapacity(selected.count)
    var last: UInt64?
    for entry in selected.sorted(by: { $0.sequence < $1.sequence }) where entry.sequence != last {
      last = entry.sequence
      guard try isSound(entry) else {
        lane.damagedPosition = logPosition(entry)
        break
      }
      lane.entries.append(entry)
    }
    return lane
  }

  // MARK: Blocks

  /// Writes a lane's messages in blocks.
  private mutating func write(
    _ selected: SpillSelection.Lane, to file: any DiskFile
  ) throws(SystemError) -> SpillOutcome.Lane {
    var lane = try sorted(selected.entries)
    var index = 0
    while index < lane.entries.count {
      let end = blockEnd(lane.entries, from: index)
      lane.blocks.append(
        try write(selected.id, lane.entries[index..<end.index], end.size, to: file))
      index = end.index
    }
    return lane
  }

  /// How many entries make the next block, and its size.
  private func blockEnd(
    _ entries: [LaneEntry], from start: Int
  ) -> (index: Int, size: Int) {
    var size = LaneBlockFormat.headerBytes
    var index = start
    while index < entries.count {
      let record = record(entries[index])
      let next = size + LaneBlockFormat.indexBytes + Record.padded(records.size(of: record))
      if next > BlockMemory.usualBytes, index > start { break }
      size = next
      index += 1
    }
    return (index, size)
  }

  private mutating func write(
    _ lane: UInt32, _ entries: ArraySlice<LaneEntry>, _ size: Int, to file: any DiskFile
  ) throws(SystemError) -> SpillOutcome.Block {
    reserve(size)
    let base = buffer.baseAddress!
    var place = LaneBlockFormat.headerBytes + LaneBlockFormat.indexBytes * entries.count
    var offsets: [UInt32] = []
    offsets.reserveCapacity(entries.count)
    var durableCount = 0
    var durableBytes = 0
    var earliestExpiry = LaneBlock.neverExpires
    for (index, entry) in entries.enumerated() {
      let record = record(entry)
      let bytes = records.size(of: record)
      records.copy(record, to: base + place)
      LaneBlockFormat.writeIndex(base, index, packed: entry.packed, offset: place, size: bytes)
      offsets.append(UInt32(place))
      if entry.isDurable {
        durableCount += 1
        durableBytes += records.bodySize(of: record)
      }
      earliestExpiry = min(earliestExpiry, records.expiry(of: record))
      place += Record.padded(bytes)
    }
    invariant(place == size, "a block of a lane has another size than was counted")
    LaneBlockFormat.writeHeader(
      base, size: size, lane: lane, count: entries.count, earliestExpiry: earliestExpiry,
      durableBytes: durableBytes)
    let block = UnsafeRawBufferPointer(start: base, count: size)
    let sum = LaneBlockFormat.checksum(block, file: round.number)
    base.storeBytes(of: sum, toByteOffset: 4, as: UInt32.self)
    try file.write(at: offset, block)
    defer { offset += size }
    return SpillOutcome.Block(
      block: LaneBlock(
        file: round.number, offset: offset, size: size, lane: lane,
        first: entries.first!.sequence, last: entries.last!.sequence, count: entries.count,
        durableCount: durableCount, earliestExpiry: earliestExpiry, durableBytes: durableBytes),
      offsets: offsets)
  }

  /// Copies the blocks of another file; only their checksums change. nil if one of them is damaged:
  /// a block must not be alive in two files.
  private mutating func copy(
    _ merge: SpillRound.Merge, to file: any DiskFile
  ) throws(SystemError) -> [LaneBlock]? {
    let source = try files.disk.open(merge.path, .read)
    reserve(merge.blocks.reduce(0) { $0 + $1.size })
    var place = 0
    var copies: [UnsafeMutableRawBufferPointer] = []
    for block in merge.blocks {
      let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer[place..<place + block.size])
      let count = try source.read(at: block.offset, into: bytes)
      guard count == block.size, LaneBlockFormat.isValid(.init(bytes), file: merge.file) else {
        return nil
      }
      copies.append(bytes)
      place += block.size
    }
    var blocks: [LaneBlock] = []
    for bytes in copies {
      let sum = LaneBlockFormat.checksum(.init(bytes), file: round.number)
      bytes.storeBytes(of: sum, toByteOffset: 4, as: UInt32.self)
      try file.write(at: offset, UnsafeRawBufferPointer(bytes))
      blocks.append(
        LaneBlockFormat.description(.init(bytes), file: round.number, offset: offset))
      offset += bytes.count
    }
    return blocks
  }

  private mutating func reserve(_ size: Int) {
    guard size > buffer.count else { return }
    munmap(buffer.baseAddress, buffer.count)
    let count = BlockMemory.padded(size)
    buffer = .init(start: BlockMemory.map(count), count: count)
  }

  private func finish(_ file: any DiskFile, _ outcome: SpillOutcome) throws(SystemError) {
    let table = LaneTable(
      number: round.number, identity: files.identity,
      blocks: outcome.blocks)
    let bytes = table.encodedTable()
    try file.write(at: offset, bytes)
    try file.write(at: 0, table.encodedHeader(table: bytes, at: offset))
    if !round.isScratch, !Sabotage.is(.listsUnsyncedLaneFile) { try file.sync() }
  }
}
