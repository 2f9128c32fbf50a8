import Base
import IO

package enum CheckpointOutcome: Sendable {
  /// Segments before this index are no longer needed and were recycled, so many of them.
  case stored(firstSegment: Int, recycled: Int)
  case failed(String)
}

/// What was known at a position of the log; `Specs/Journal.md` has the picture.
package struct CheckpointFile: Sendable {
  static let magic = Array("MARTLETC".utf8)
  static let headerBytes = 64

  package let identity: UInt64
  /// The log reaches to here.
  package let position: Int
  /// What the log says of the catalog from here on is not all in it.
  package let catalogPosition: Int
  /// The log is read from here.
  package let replayFrom: Int
  package let payload: [UInt8]
  /// Every write of the log was durable when it returned.
  var isSynced = true

  static func name(_ position: Int) -> String {
    SegmentFiles.name(position).dropLast(".segment".count) + ".checkpoint"
  }

  /// Writes the file beside, makes it durable, renames it, removes older ones, and recycles the
  /// segments before `replayFrom`.
  package func store(_ files: SegmentFiles) -> CheckpointOutcome {
    let writer = CheckpointWriter(files, at: position)
    writer.append(payload)
    return writer.store(header, isSynced: isSynced)
  }

  private var header: CheckpointHeader {
    CheckpointHeader(
      identity: identity, position: position, replayFrom: replayFrom,
      catalogPosition: catalogPosition)
  }

  static func removeOlder(
    _ files: SegmentFiles, than name: String, replayFrom: Int
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

  enum Problem: Error, Equatable {
    case damaged
    case stranger(JournalFormat.Stranger)
  }

  init(_ bytes: [UInt8]) throws(Problem) {
    guard bytes.count >= 12, bytes.starts(with: Self.magic) else {
      throw .damaged
    }
    let version = Self.field(bytes, 8, as: UInt32.self)
    if let stranger = JournalFormat.stranger(version) { throw .stranger(stranger) }
    let headerBytes = Self.headerBytes
    guard version > 0, bytes.count >= headerBytes,
      Self.field(bytes, 12, as: UInt32.self) == Self.checksum(bytes, 16..<headerBytes),
      Self.field(bytes, 40, as: UInt64.self) == UInt64(bytes.count - headerBytes),
      Self.field(bytes, 56, as: UInt32.self) == Self.checksum(bytes, headerBytes..<bytes.count),
      Self.field(bytes, 24, as: UInt64.self) <= UInt64(SegmentHeader.positionMax),
      Self.field(bytes, 32, as: UInt64.self) <= Self.field(bytes, 24, as: UInt64.self),
      Self.field(bytes, 48, as: UInt64.self) <= Self.field(bytes, 24, as: UInt64.self),
      Self.hasWholeRecords(bytes, from: headerBytes)
    else { throw .damaged }
    identity = Self.field(bytes, 16, as: UInt64.self)
    position = Int(Self.field(bytes, 24, as: UInt64.self))
    replayFrom = Int(Self.field(bytes, 32, as: UInt64.self))
    catalogPosition = Int(Self.field(bytes, 48, as: UInt64.self))
    payload = Array(bytes[headerBytes...])
  }

  private static func field<Value: FixedWidthInteger & BitwiseCopyable>(
    _ bytes: [UInt8], _ offset: Int, as type: Value.Type
  ) -> Value {
    bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
  }

  private static func checksum(_ bytes: [UInt8], _ range: Range<Int>) -> UInt32 {
    bytes.withUnsafeBytes { CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[range])) }
  }

  /// A right checksum does not make records that can be walked over.
  private static func hasWholeRecords(_ bytes: [UInt8], from start: Int) -> Bool {
    bytes.withUnsafeBytes { bytes in
      var offset = start
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
      guard view.kind == OwnRecord.Kind.laneFile.rawValue else { return }
      numbers.append(
        UInt32(truncatingIfNeeded: view.payload.loadUnaligned(as: UInt64.self)))
    }
    return numbers
  }

  package init(
    identity: UInt64, position: Int, replayFrom: Int, payload: [UInt8], isSynced: Bool
  ) {
    self.isSynced = isSynced
    self.identity = identity
    self.position = position
    catalogPosition = position
    self.replayFrom = replayFrom
    self.payload = payload
  }
}
