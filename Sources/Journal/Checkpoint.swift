import Base
import IO

/// A checkpoint that waits for the log before it to become durable, or is being written.
struct PendingCheckpoint {
  let file: CheckpointFile
  /// Lane files that it does not name any more.
  let retired: [UInt32]
  var isHandedOver = false
}

enum CheckpointOutcome: Sendable {
  /// Segments before this index are no longer needed and were recycled, so many of them.
  case stored(firstSegment: Int, recycled: Int)
  case failed(String)
}

/// What was known at a position of the log; `Specs/Journal.md` has the picture.
struct CheckpointFile: Sendable {
  static let magic = Array("MARTLETC".utf8)
  static let version: UInt32 = 2
  static let headerBytes = 48

  let identity: UInt64
  /// The catalog is that of this position.
  let position: Int
  /// The log is read from here.
  let replayFrom: Int
  let payload: [UInt8]
  /// Every write of the log was durable when it returned.
  var isSynced = true

  static func name(_ position: Int) -> String {
    SegmentFiles.name(position).dropLast(".segment".count) + ".checkpoint"
  }

  /// Writes the file beside, makes it durable, renames it, removes older ones, and recycles the
  /// segments before `replayFrom`.
  func store(_ files: SegmentFiles) -> CheckpointOutcome {
    do throws(SystemError) {
      // A checkpoint must not survive a power loss that the log before it does not.
      if !isSynced, !Sabotage.is(.checkpointsUnsyncedLog) {
        try files.sync(from: replayFrom, to: position)
      }
      let name = Self.name(position)
      let temporary = files.path(name + ".new")
      // An attempt that failed may have left a longer one.
      try files.disk.remove(temporary)
      let file = try files.disk.open(temporary, .readWrite, creates: true)
      try file.write(at: 0, encoded())
      if !Sabotage.is(.usesUnsyncedCheckpoint) { try file.sync() }
      try files.disk.rename(temporary, files.path(name))
      try files.disk.syncDirectory(files.directory)
      return try removeOlder(files, than: name)
    } catch {
      return .failed("\(error)")
    }
  }

  private func removeOlder(
    _ files: SegmentFiles, than name: String
  ) throws(SystemError) -> CheckpointOutcome {
    var retired: [String] = []
    let oldest = SegmentFiles.name(replayFrom - replayFrom % files.segmentBytes)
    for other in try files.disk.list(files.directory) {
      // Those that were being written when the broker went are of no use.
      switch JournalNames.kind(of: other) {
      case .checkpoint, .unfinishedCheckpoint:
        if other < name { try files.disk.remove(files.path(other)) }
      case .segment: if other < oldest { retired.append(other) }
      default: break
      }
    }
    try files.retire(retired, sparesMax: Background.sparesMax)
    return .stored(firstSegment: replayFrom / files.segmentBytes, recycled: retired.count)
  }

  private func encoded() -> [UInt8] {
    var bytes = Self.magic
    Self.append(&bytes, Self.version)
    Self.append(&bytes, UInt32(0))
    Self.append(&bytes, identity)
    Self.append(&bytes, UInt64(position))
    Self.append(&bytes, UInt64(replayFrom))
    Self.append(&bytes, UInt64(payload.count))
    bytes += payload
    let sum = bytes.withUnsafeBytes {
      CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[16...]))
    }
    withUnsafeBytes(of: sum) { sum in
      for index in 0..<4 { bytes[12 + index] = sum[index] }
    }
    return bytes
  }

  private static func append<Value: FixedWidthInteger>(_ bytes: inout [UInt8], _ value: Value) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  enum Problem: Error, Equatable {
    case damaged
    case newerVersion(UInt32)
  }

  /// Reads a checkpoint. Version 1 had no lane files; all else is the same.
  init(_ bytes: [UInt8]) throws(Problem) {
    guard bytes.count >= Self.headerBytes, bytes.starts(with: Self.magic) else { throw .damaged }
    let fields = bytes.withUnsafeBytes { buffer in
      (
        version: buffer.load(fromByteOffset: 8, as: UInt32.self),
        sum: buffer.load(fromByteOffset: 12, as: UInt32.self),
        identity: buffer.load(fromByteOffset: 16, as: UInt64.self),
        position: buffer.load(fromByteOffset: 24, as: UInt64.self),
        replayFrom: buffer.load(fromByteOffset: 32, as: UInt64.self),
        size: buffer.load(fromByteOffset: 40, as: UInt64.self),
        computed: CRC32C.checksum(UnsafeRawBufferPointer(rebasing: buffer[16...]))
      )
    }
    guard fields.version <= Self.version else { throw .newerVersion(fields.version) }
    guard fields.version > 0, fields.sum == fields.computed,
      fields.size == UInt64(bytes.count - Self.headerBytes),
      fields.position <= UInt64(SegmentHeader.positionMax), fields.replayFrom <= fields.position,
      Self.hasWholeRecords(bytes)
    else { throw .damaged }
    identity = fields.identity
    position = Int(fields.position)
    replayFrom = Int(fields.replayFrom)
    payload = Array(bytes[Self.headerBytes...])
  }

  /// A right checksum does not make records that can be walked over.
  private static func hasWholeRecords(_ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes { bytes in
      var offset = headerBytes
      while offset + Record.headerSize <= bytes.count {
        let size = Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        guard size >= Record.headerSize, size <= bytes.count - offset,
          RecordView(position: 0, base: bytes.baseAddress! + offset, size: size).hasOwnSize
        else { return false }
        offset += Record.padded(size)
      }
      return true
    }
  }

  /// The records of the payload; their form was checked by the checksum over all.
  func forEachRecord<Failure: Error>(
    _ body: (RecordView) throws(Failure) -> Void
  ) throws(Failure) {
    try payload.span.bytes.withUnsafeBytes { (bytes) throws(Failure) in
      var offset = 0
      while offset + Record.headerSize <= bytes.count {
        let size = Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        invariant(
          size >= Record.headerSize && offset + size <= bytes.count,
          "a checkpoint holds half a record")
        try body(RecordView(position: position, base: bytes.baseAddress! + offset, size: size))
        offset += Record.padded(size)
      }
    }
  }

  /// The numbers of the lane files that hold something.
  var laneFiles: [UInt32] {
    var numbers: [UInt32] = []
    forEachRecord { view in
      guard view.kind == Record.laneFile else { return }
      numbers.append(
        UInt32(truncatingIfNeeded: view.payload.loadUnaligned(as: UInt64.self)))
    }
    return numbers
  }

  init(identity: UInt64, position: Int, replayFrom: Int, payload: [UInt8], isSynced: Bool) {
    self.isSynced = isSynced
    self.identity = identity
    self.position = position
    self.replayFrom = replayFrom
    self.payload = payload
  }
}
