import Base
import IO

/// Writes a checkpoint beside the others, piece by piece as the core makes it.
///
/// Sendable, unchecked: after `init` only jobs of the background worker touch it, one after the
/// other.
final class CheckpointWriter: @unchecked Sendable {
  private let files: SegmentFiles
  private let temporary: String
  private var file: (any DiskFile)?
  private var bytes = 0
  private var sum: UInt32 = 0
  /// Why it cannot be stored.
  private var failure: SystemError?

  init(_ files: SegmentFiles, at position: Int) {
    self.files = files
    temporary = files.path(CheckpointFile.name(position) + ".new")
  }

  func append(_ piece: [UInt8]) {
    guard failure == nil else { return }
    do throws(SystemError) {
      let file = try opened()
      try file.write(at: CheckpointFile.headerBytes + bytes, piece)
      bytes += piece.count
      sum = piece.withUnsafeBytes { CRC32C.checksum($0, seed: sum) }
    } catch {
      failure = error
    }
  }

  private func opened() throws(SystemError) -> any DiskFile {
    if let file { return file }
    // An attempt that failed may have left a longer one.
    try files.disk.remove(temporary)
    let file = try files.disk.open(temporary, .readWrite, creates: true)
    self.file = file
    return file
  }

  /// Makes it durable, renames it, removes older ones, and recycles the segments before its replay
  /// position.
  func store(_ header: CheckpointHeader, isSynced: Bool) -> CheckpointOutcome {
    if let failure { return .failed("\(failure)") }
    do throws(SystemError) {
      // A checkpoint must not survive a power loss that the log before it does not.
      if !isSynced, !Sabotage.is(.checkpointsUnsyncedLog) {
        try files.sync(from: header.replayFrom, to: header.position)
      }
      let name = CheckpointFile.name(header.position)
      let file = try opened()
      try file.write(at: 0, header.encoded(payloadBytes: bytes, sum: sum))
      if !Sabotage.is(.usesUnsyncedCheckpoint) { try file.sync() }
      try files.disk.rename(temporary, files.path(name))
      try files.disk.syncDirectory(files.directory)
      return try CheckpointFile.removeOlder(files, than: name, replayFrom: header.replayFrom)
    } catch {
      return .failed("\(error)")
    }
  }
}

/// What a checkpoint says of itself; `Specs/Journal.md` has the picture.
struct CheckpointHeader: Equatable, Sendable {
  let identity: UInt64
  /// The log must reach to here: the checkpoint tells of what it said up to there.
  let position: Int
  /// The log is read from here.
  let replayFrom: Int
  /// What the log says of the catalog from here on is not, or not all, in the checkpoint.
  let catalogPosition: Int

  func encoded(payloadBytes: Int, sum: UInt32) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: CheckpointFile.headerBytes)
    bytes.withUnsafeMutableBytes { bytes in
      bytes.copyBytes(from: CheckpointFile.magic)
      bytes.storeBytes(of: JournalFormat.version, toByteOffset: 8, as: UInt32.self)
      bytes.storeBytes(of: identity, toByteOffset: 16, as: UInt64.self)
      bytes.storeBytes(of: UInt64(position), toByteOffset: 24, as: UInt64.self)
      bytes.storeBytes(of: UInt64(replayFrom), toByteOffset: 32, as: UInt64.self)
      bytes.storeBytes(of: UInt64(payloadBytes), toByteOffset: 40, as: UInt64.self)
      bytes.storeBytes(of: UInt64(catalogPosition), toByteOffset: 48, as: UInt64.self)
      bytes.storeBytes(of: sum, toByteOffset: 56, as: UInt32.self)
      let covered = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[16...])
      bytes.storeBytes(of: CRC32C.checksum(covered), toByteOffset: 12, as: UInt32.self)
    }
    return bytes
  }
}
