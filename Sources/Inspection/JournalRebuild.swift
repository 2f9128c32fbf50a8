import Base
import IO
import Journal

/// Writes a new journal beside another, of what is sound in that: lane files that are linked or copied
/// block by block, messages of the log in new lane files, and a checkpoint in front of an empty log.
final class JournalRebuild {
  let directory: String
  let survey: JournalSurvey
  let files: SegmentFiles
  private let records: any LaneRecords
  private var numbers: [UInt32] = []
  private var nextNumber: UInt32
  private var current: LaneFileWriter?
  /// There is a directory for segments of streams.
  var hasPartitions = false

  /// `directory` is empty, and on the file system of the journal.
  init(
    _ survey: JournalSurvey, into directory: String, records: any LaneRecords
  ) throws(JournalError) {
    self.survey = survey
    self.directory = directory
    self.records = records
    try system { () throws(SystemError) in try FileSystem.makeDirectories(directory) }
    let all = survey.laneFiles.map(\.number) + survey.missingLaneFiles
    nextNumber = (all.max() ?? 0) &+ 1
    files = SegmentFiles(
      disk: survey.disk, directory: directory,
      segmentBytes: survey.isSegmentSizeKnown
        ? survey.segmentBytes : Journal.Settings().segmentBytes,
      identity: survey.identity ?? .random(in: .min ... .max), spares: [])
  }

  /// Keeps a lane file as it is.
  func link(_ file: JournalSurvey.LaneFile) throws(JournalError) {
    let (old, new) = (survey.path(file.name), files.path(file.name))
    try system { () throws(SystemError) in try FileSystem.link(old, as: new) }
    numbers.append(file.number)
  }

  /// Keeps some blocks of a lane file, which are sound.
  func copy(
    _ file: JournalSurvey.LaneFile, _ blocks: [LaneBlock]
  ) throws(JournalError) {
    guard !blocks.isEmpty else { return }
    let writer = try LaneFileWriter(files, number: file.number)
    for block in blocks { try writer.append(block, try survey.bytes(of: block)) }
    try writer.finish()
    numbers.append(file.number)
  }

  /// Puts a durable message of the log into a lane. Messages come by lanes and in order; where
  /// `beginsBlock` is set others stand between it and the one before.
  func add(lane: UInt32, sequence: UInt64, position: Int, beginsBlock: Bool)
    throws(JournalError)
  {
    if let writer = current, writer.isFull {
      try writer.finish()
      current = nil
    }
    let writer: LaneFileWriter
    if let current {
      writer = current
    } else {
      writer = try LaneFileWriter(files, number: nextNumber)
      current = writer
      numbers.append(nextNumber)
      nextNumber += 1
    }
    var bytes: [UInt8] = []
    var expiry = LaneBlock.neverExpires
    var bodySize = 0
    try survey.readRecord(at: position) { record in
      expiry = records.expiry(of: record)
      bodySize = records.bodySize(of: record)
      let size = records.size(of: record)
      bytes = [UInt8](repeating: 0, count: Record.padded(size))
      bytes.withUnsafeMutableBytes { records.copy(record, to: $0.baseAddress!) }
    }
    try writer.append(
      lane: lane, packed: sequence << 8 | 1, bytes, expiry: expiry, bodySize: bodySize,
      beginsBlock: beginsBlock)
  }

  /// Writes the log and the checkpoint and makes everything durable. `epoch` is above all that were.
  func finish(catalog: [UInt8], epoch: UInt64, now: Int64) throws(JournalError) {
    try current?.finish()
    try finishPartitions()
    let size = files.segmentBytes
    let end = max(survey.logEnd, survey.checkpoint?.position ?? 0)
    let position = (end + size - 1) / size * size
    let header = SegmentHeader(
      firstPosition: position, segmentBytes: size, identity: files.identity,
      firstRecord: position, epoch: epoch)
    let log = Self.emptyLog(at: position, epoch: epoch, now: now)
    let path = files.path(SegmentFiles.name(position))
    try system { () throws(SystemError) in
      _ = try files.create(header, isSynced: false)
      let file = try files.disk.open(path, .readWrite)
      try file.write(at: SegmentHeader.pageBytes, log)
      try file.sync()
    }
    var payload: [UInt8] = []
    for number in numbers.sorted() {
      LaneFileRecord.raw(number: UInt64(number)).append(to: &payload)
    }
    payload += catalog
    let checkpoint = CheckpointFile(
      identity: files.identity, position: position + log.count, replayFrom: position,
      payload: payload,
      isSynced: true)
    if case .failed(let reason) = checkpoint.store(files) { throw .inconsistent(reason) }
  }

  /// The record of an epoch, and that the broker stopped in order.
  private static func emptyLog(at position: Int, epoch: UInt64, now: Int64) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 48)
    bytes.withUnsafeMutableBytes { bytes in
      let base = bytes.baseAddress!
      Record.writeHeader(
        base, size: 32, kind: OwnRecord.Kind.epoch.rawValue, flags: 0, count: 0, word: 0)
      base.storeBytes(of: epoch, toByteOffset: 16, as: UInt64.self)
      base.storeBytes(of: now, toByteOffset: 24, as: Int64.self)
      Record.writeHeader(
        base + 32, size: 16, kind: OwnRecord.Kind.stop.rawValue, flags: 0, count: 0, word: 0)
      for (offset, size) in [(0, 32), (32, 16)] {
        let sum = Record.checksum(
          base + offset, size: size, position: position + offset, epoch: epoch)
        base.storeBytes(of: sum, toByteOffset: offset + Record.checksumOffset, as: UInt32.self)
      }
    }
    return bytes
  }
}

/// Writes a lane file block by block, or message by message.
private final class LaneFileWriter {
  private let number: UInt32
  private let files: SegmentFiles
  private let file: any DiskFile
  private var offset = LaneTable.headerBytes
  private var blocks: [LaneBlock] = []
  private var lane: UInt32 = 0
  private var messages: [(packed: UInt64, bytes: [UInt8])] = []
  private var messageBytes = 0
  /// Of `messages`.
  private var earliestExpiry = LaneBlock.neverExpires
  private var bodyBytes = 0

  private static let bytesMax = 256 << 20

  init(_ files: SegmentFiles, number: UInt32) throws(JournalError) {
    self.number = number
    self.files = files
    let path = files.path(LaneTable.name(number))
    file = try system { () throws(SystemError) in
      try files.disk.open(path, .readWrite, creates: true)
    }
  }

  var isFull: Bool { offset > Self.bytesMax }

  /// A block of this file as it was, at another offset.
  func append(_ block: LaneBlock, _ bytes: [UInt8]) throws(JournalError) {
    try system { () throws(SystemError) in try file.write(at: offset, bytes) }
    blocks.append(
      LaneBlock(
        file: number, offset: offset, size: block.size, lane: block.lane, first: block.first,
        last: block.last, count: block.count, durableCount: block.durableCount,
        earliestExpiry: block.earliestExpiry, durableBytes: block.durableBytes))
    offset += block.size
  }

  func append(
    lane: UInt32, packed: UInt64, _ bytes: [UInt8], expiry: UInt64, bodySize: Int,
    beginsBlock: Bool
  ) throws(JournalError) {
    let size = messageBytes + bytes.count + LaneBlockFormat.indexBytes * (messages.count + 1)
    if beginsBlock || lane != self.lane
      || size + LaneBlockFormat.headerBytes > BlockMemory.usualBytes
    {
      try closeBlock()
    }
    self.lane = lane
    messages.append((packed, bytes))
    messageBytes += bytes.count
    earliestExpiry = min(earliestExpiry, expiry)
    bodyBytes += bodySize
  }

  private func closeBlock() throws(JournalError) {
    guard let first = messages.first, let last = messages.last else { return }
    var place = LaneBlockFormat.headerBytes + LaneBlockFormat.indexBytes * messages.count
    var bytes = [UInt8](repeating: 0, count: place)
    bytes.withUnsafeMutableBytes { bytes in
      let base = bytes.baseAddress!
      LaneBlockFormat.writeHeader(
        base, size: place + messageBytes, lane: lane, count: messages.count,
        earliestExpiry: earliestExpiry, durableBytes: bodyBytes)
      for (index, message) in messages.enumerated() {
        let size = message.bytes.withUnsafeBytes { Int($0.loadUnaligned(as: UInt32.self)) }
        LaneBlockFormat.writeIndex(base, index, packed: message.packed, offset: place, size: size)
        place += message.bytes.count
      }
    }
    for message in messages { bytes += message.bytes }
    let sum = bytes.withUnsafeBytes { LaneBlockFormat.checksum($0, file: number) }
    bytes.withUnsafeMutableBytes { $0.storeBytes(of: sum, toByteOffset: 4, as: UInt32.self) }
    let block = LaneBlock(
      file: number, offset: offset, size: bytes.count, lane: lane, first: first.packed >> 8,
      last: last.packed >> 8, count: messages.count, durableCount: messages.count,
      earliestExpiry: earliestExpiry, durableBytes: bodyBytes)
    messages = []
    messageBytes = 0
    earliestExpiry = LaneBlock.neverExpires
    bodyBytes = 0
    try append(block, bytes)
  }

  func finish() throws(JournalError) {
    try closeBlock()
    let table = LaneTable(number: number, identity: files.identity, blocks: blocks)
    let bytes = table.encodedTable()
    try system { () throws(SystemError) in
      try file.write(at: offset, bytes)
      try file.write(at: 0, table.encodedHeader(table: bytes, at: offset))
      try file.sync()
    }
  }
}
