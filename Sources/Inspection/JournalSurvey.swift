import Base
import IO
import Journal

/// What stands in a journal's directory, sound or not; reads it without changing it. Only what another
/// version wrote is refused.
package final class JournalSurvey {
  package struct Segment {
    let firstPosition: Int
    /// nil if it is damaged or says something else than the name.
    let header: SegmentHeader?
    /// Of the file.
    let bytes: Int

    var name: String { SegmentFiles.name(firstPosition) }
  }

  package struct Checkpoint {
    package let name: String
    /// Its checksum is right.
    package let isSound: Bool
    package let position: Int
    package let replayFrom: Int
    /// What the log says of the catalog from here on is not all in it.
    let catalogPosition: Int
    let payload: [UInt8]
  }

  package struct LaneFile {
    package let number: UInt32
    package let name: String
    /// The checkpoint names it.
    package let isNamed: Bool
    /// Header and table are sound; otherwise `blocks` were looked for.
    package let isSound: Bool
    package let blocks: [LaneBlock]
    package let bytes: Int
  }

  package let directory: String
  let disk: any Disk
  package internal(set) var problems: [JournalProblem] = []
  /// From the one on that the checkpoint needs.
  package internal(set) var segments: [Segment] = []
  /// As a sound header says, else a guess.
  package internal(set) var segmentBytes = 0
  var isSegmentSizeKnown = false
  /// The last segment says that there was one behind it.
  var isTailMissing = false
  package private(set) var spares: [String] = []
  package private(set) var checkpoint: Checkpoint?
  /// Those that the checkpoint names and that are missing.
  package private(set) var missingLaneFiles: [UInt32] = []
  package private(set) var laneFiles: [LaneFile] = []
  /// Files of streams' segments, by partitions and offsets.
  package internal(set) var partitionFiles: [PartitionFile] = []
  /// What the next start removes: rounds and checkpoints that were not over, scratch files.
  package private(set) var leftovers: [String] = []
  /// The log failed in the last life.
  package private(set) var isAfterFailure = false
  /// Names that no journal has.
  package private(set) var strangers: [String] = []
  var identity: UInt64?

  package init(directory: String, disk: any Disk = SystemDisk()) throws(JournalError) {
    self.directory = directory
    self.disk = disk
    let names = try system { () throws(SystemError) in try JournalNames(disk, directory) }
    for (name, text) in names.foreign { problems.append(JournalProblem(name, text)) }
    try readCheckpoints(names.checkpoints)
    spares = names.spares.map(\.name)
    try readSegments(names)
    doubtCheckpoint()
    try readLanes(names.lanes)
    try readPartitions(names)
    leftovers += names.unfinishedCheckpoints + names.unfinishedLanes.map(\.name)
    isAfterFailure = names.hasFailureMark
    strangers = names.strangers
  }

  /// There is neither a log nor a checkpoint: the broker would begin anew.
  package var isEmpty: Bool {
    segments.isEmpty && checkpoint == nil && laneFiles.isEmpty && partitionFiles.isEmpty
      && problems.isEmpty
  }

  /// What the checkpoint says counts; or there is none, and the log is there from its beginning.
  var isCheckpointProven: Bool {
    checkpoint?.isSound ?? (segments.first?.firstPosition == 0)
  }

  /// The end of the last segment, also of one that is missing.
  var logEnd: Int {
    segments.last.map { $0.firstPosition + (isTailMissing ? 2 : 1) * segmentBytes } ?? 0
  }

  var lenientFiles: SegmentFiles {
    SegmentFiles(
      disk: LenientDisk(disk: disk), directory: directory, segmentBytes: segmentBytes,
      identity: identity ?? 0, spares: [])
  }

  /// The file of a position of the log, and the offset in it.
  package func place(_ position: Int) -> (file: String, offset: Int) {
    let first = position - position % max(segmentBytes, SegmentHeader.pageBytes)
    return (SegmentFiles.name(first), SegmentHeader.pageBytes + position - first)
  }

  func path(_ name: String) -> String { directory + "/" + name }

  /// There is a file of that name, and nothing else.
  func hasFile(_ name: String) -> Bool { disk.kind(path(name)) == .file }

  /// Whether there is a journal in a directory with these names, or could be one.
  package static func looksLikeJournal(_ names: [String]) -> Bool {
    names.contains { JournalNames.kind(of: $0) != .stranger }
  }

  // MARK: Checkpoints

  /// Takes the newest that is sound, else the newest.
  private func readCheckpoints(
    _ names: [(name: String, position: Int)]
  ) throws(JournalError) {
    var damaged: Checkpoint?
    for (name, position) in names.reversed() {
      switch try CheckpointFile.read(disk, path(name)) {
      case .whole(let file):
        checkpoint = Checkpoint(
          name: name, isSound: true, position: file.position, replayFrom: file.replayFrom,
          catalogPosition: file.catalogPosition, payload: file.payload)
        identity = file.identity
        return
      case .stranger(let stranger): throw stranger.error(path(name))
      case .damaged(let reason, let payload):
        problems.append(
          JournalProblem(name, offset: 0, "the checkpoint is damaged: \(reason)"))
        damaged =
          damaged
          ?? Checkpoint(
            name: name, isSound: false, position: position, replayFrom: 0, catalogPosition: 0,
            payload: payload)
      }
    }
    checkpoint = damaged
  }

  /// Of one that is damaged the position is what its name says, and that may be anything.
  private func doubtCheckpoint() {
    guard let found = checkpoint, !found.isSound, found.position - logEnd > Self.gapMax else {
      return
    }
    checkpoint = Checkpoint(
      name: found.name, isSound: false, position: logEnd, replayFrom: 0, catalogPosition: 0,
      payload: found.payload)
  }

  /// The records of the checkpoint; of one that is damaged those that have the form of records.
  package func forEachCheckpointRecord(_ body: (RecordView) -> Void) {
    guard let checkpoint else { return }
    checkpoint.payload.withUnsafeBytes { bytes in
      var offset = 0
      while offset + Record.headerSize <= bytes.count {
        let size = Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        let sum = bytes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)
        guard size >= Record.headerSize, size <= bytes.count - offset, sum == 0 else {
          offset += Record.alignment
          continue
        }
        body(
          RecordView(
            position: checkpoint.position, base: bytes.baseAddress! + offset, size: size))
        offset += Record.padded(size)
      }
    }
  }

  // MARK: Lane files

  private func readLanes(_ names: [(name: String, number: UInt32)]) throws(JournalError) {
    var named: Set<UInt32> = []
    forEachCheckpointRecord { view in
      guard view.kind == OwnRecord.Kind.laneFile.rawValue, view.payload.count == 8
      else { return }
      named.insert(UInt32(truncatingIfNeeded: view.payload.loadUnaligned(as: UInt64.self)))
    }
    let isKnown = isCheckpointProven
    for (name, number) in names {
      let isNamed = named.remove(number) != nil
      // Without a checkpoint nothing says which files count.
      if isKnown, !isNamed {
        leftovers.append(name)
      } else if let file = try laneFile(number, name, isNamed: isNamed) {
        laneFiles.append(file)
      }
    }
    missingLaneFiles = isKnown ? named.sorted() : []
    if checkpoint == nil, segments.isEmpty, !laneFiles.isEmpty {
      problems.append(JournalProblem("", "there are lane files, but neither log nor checkpoint"))
    }
  }

  private func laneFile(
    _ number: UInt32, _ name: String, isNamed: Bool
  ) throws(JournalError) -> LaneFile? {
    let bytes = try system { () throws(SystemError) in try disk.open(path(name), .read).size }
    do throws(JournalError) {
      let table = try LaneTable(disk, path(name))
      guard table.identity == identity ?? table.identity, table.number == number else {
        problems.append(
          JournalProblem(name, offset: 16, "it is of another log, or has another file's name"))
        return nil
      }
      identity = table.identity
      return LaneFile(
        number: number, name: name, isNamed: isNamed, isSound: true, blocks: table.blocks,
        bytes: bytes)
    } catch {
      switch error {
      case .older, .newer, .unknown: throw error
      case .damaged(_, let offset, _, let reason):
        problems.append(JournalProblem(name, offset: offset, reason))
      case .inconsistent:
        problems.append(JournalProblem(name, offset: 0, "this is no lane file"))
      case .system(let error): problems.append(JournalProblem(name, "\(error)"))
      }
    }
    return LaneFile(
      number: number, name: name, isNamed: isNamed, isSound: false,
      blocks: try LaneScan(disk, path(name), number).blocks, bytes: bytes)
  }
}
