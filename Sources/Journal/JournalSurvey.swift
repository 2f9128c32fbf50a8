import Base
import IO

/// What stands in a journal's directory, sound or not; reads it without changing it. Only what a newer
/// version wrote is refused.
public final class JournalSurvey {
  public struct Segment {
    public let firstPosition: Int
    /// nil if it is damaged or says something else than the name.
    let header: SegmentHeader?
    /// Of the file.
    let bytes: Int
  }

  public struct Checkpoint {
    public let name: String
    /// Its checksum is right.
    public let isSound: Bool
    public let position: Int
    public let replayFrom: Int
    let payload: [UInt8]
  }

  public struct LaneFile {
    public let number: UInt32
    public let name: String
    /// The checkpoint names it.
    public let isNamed: Bool
    /// Header and table are sound; otherwise `blocks` were looked for.
    public let isSound: Bool
    public let blocks: [LaneBlock]
    public let bytes: Int
  }

  public let directory: String
  let disk: any Disk
  public private(set) var problems: [JournalProblem] = []
  /// From the one on that the checkpoint needs.
  public private(set) var segments: [Segment] = []
  public private(set) var segmentBytes = 0
  public private(set) var spares: [String] = []
  public private(set) var checkpoint: Checkpoint?
  /// Those that the checkpoint names and that are missing.
  public private(set) var missingLaneFiles: [UInt32] = []
  public private(set) var laneFiles: [LaneFile] = []
  /// What the next start removes: rounds and checkpoints that were not over, scratch files.
  public private(set) var leftovers: [String] = []
  /// Names that no journal has.
  public private(set) var strangers: [String] = []
  var identity: UInt64?

  public init(directory: String, disk: any Disk = SystemDisk()) throws(JournalError) {
    self.directory = directory
    self.disk = disk
    let names = try system { () throws(SystemError) in try disk.list(directory) }
    try readCheckpoints(names.filter { $0.hasSuffix(".checkpoint") })
    try readSegments(names.filter { $0.hasSuffix(".segment") })
    try readLanes(names.filter { $0.hasSuffix(".lanes") })
    for name in names {
      if name.hasSuffix(".new") || name.hasSuffix(".scratch") {
        leftovers.append(name)
      } else if ![".segment", ".checkpoint", ".lanes"].contains(where: name.hasSuffix) {
        strangers.append(name)
      }
    }
  }

  /// There is neither a log nor a checkpoint: the broker would begin anew.
  public var isEmpty: Bool {
    segments.isEmpty && checkpoint == nil && laneFiles.isEmpty && problems.isEmpty
  }

  /// What the checkpoint says counts; or there is none, and the log is there from its beginning.
  public var isCheckpointProven: Bool {
    checkpoint?.isSound ?? (segments.first?.firstPosition == 0)
  }

  public var logEnd: Int { segments.last.map { $0.firstPosition + segmentBytes } ?? 0 }

  var lenientFiles: SegmentFiles {
    SegmentFiles(
      disk: LenientDisk(disk: disk), directory: directory, segmentBytes: segmentBytes,
      identity: identity ?? 0, spares: [])
  }

  /// The file of a position of the log, and the offset in it.
  public func place(_ position: Int) -> (file: String, offset: Int) {
    let first = position - position % max(segmentBytes, 1)
    return (SegmentFiles.name(first), SegmentHeader.pageBytes + position - first)
  }

  func path(_ name: String) -> String { directory + "/" + name }

  /// Whether there is a journal in `directory`, or could be one.
  public static func looksLikeJournal(_ names: [String]) -> Bool {
    names.contains { name in
      [".segment", ".checkpoint", ".lanes"].contains(where: name.hasSuffix)
    }
  }

  // MARK: Checkpoints

  /// Takes the newest that is sound, else the newest.
  private func readCheckpoints(_ names: [String]) throws(JournalError) {
    var damaged: Checkpoint?
    for name in names.reversed() {
      let bytes = try system { () throws(SystemError) in try disk.readWhole(path(name)) }
      do throws(CheckpointFile.Problem) {
        let file = try CheckpointFile(bytes)
        checkpoint = Checkpoint(
          name: name, isSound: true, position: file.position, replayFrom: file.replayFrom,
          payload: file.payload)
        identity = file.identity
        return
      } catch {
        switch error {
        case .newerVersion(let version): throw .newer(file: path(name), version: version)
        case .damaged: break
        }
      }
      problems.append(JournalProblem(name, offset: 0, "the checkpoint is damaged"))
      let payload = Array(bytes.dropFirst(CheckpointFile.headerBytes))
      damaged =
        damaged
        ?? Checkpoint(
          name: name, isSound: false, position: Int(name.prefix(16), radix: 16) ?? 0,
          replayFrom: 0, payload: payload)
    }
    checkpoint = damaged
  }

  /// The records of the checkpoint; of one that is damaged those that have the form of records.
  public func forEachCheckpointRecord(_ body: (RecordView) -> Void) {
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

  // MARK: Segments

  private func readSegments(_ names: [String]) throws(JournalError) {
    spares = names.filter { $0.hasPrefix("spare-") }
    let all = names.filter { !$0.hasPrefix("spare-") }
    let isBounded = checkpoint?.isSound ?? false
    let wanted = isBounded ? SegmentFiles.name(checkpoint!.replayFrom) : ""
    let first = all.last { $0 <= wanted } ?? ""
    for name in all where name >= first {
      guard let position = Int(name.dropLast(".segment".count), radix: 16) else {
        strangers.append(name)
        continue
      }
      let size = try system { () throws(SystemError) in try disk.open(path(name), .read).size }
      segments.append(
        Segment(firstPosition: position, header: try header(name, position), bytes: size))
    }
    if let sound = segments.lazy.compactMap(\.header).first {
      segmentBytes = sound.segmentBytes
      if identity == nil { identity = sound.identity }
    } else {
      segmentBytes = max(0, (segments.map(\.bytes).max() ?? 0) - SegmentHeader.pageBytes) & ~4095
    }
    checkSegments()
  }

  private func header(_ name: String, _ position: Int) throws(JournalError) -> SegmentHeader? {
    let page = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentHeader.pageBytes, alignment: 16)
    defer { page.deallocate() }
    let count = try system { () throws(SystemError) in
      try disk.open(path(name), .read).read(at: 0, into: page)
    }
    do throws(SegmentHeader.Problem) {
      let header = try SegmentHeader(UnsafeRawBufferPointer(rebasing: page[..<count]))
      guard header.firstPosition == position, header.segmentBytes > 0 else {
        let text = "its header says that it begins at \(header.firstPosition)"
        problems.append(JournalProblem(name, offset: 16, text))
        return nil
      }
      return header
    } catch {
      switch error {
      case .newerVersion(let version): throw .newer(file: path(name), version: version)
      case .notASegment: problems.append(JournalProblem(name, offset: 0, "this is no segment"))
      case .damaged: problems.append(JournalProblem(name, offset: 0, "its header is damaged"))
      }
      return nil
    }
  }

  func isCut(_ segment: Segment) -> Bool {
    segment.bytes < SegmentHeader.pageBytes + segmentBytes
  }

  /// Segments must be whole, of one log, and stand one behind the other.
  private func checkSegments() {
    for segment in segments {
      let name = SegmentFiles.name(segment.firstPosition)
      if isCut(segment) {
        problems.append(
          JournalProblem(
            name, offset: segment.bytes,
            "it ends here; a segment has \(SegmentHeader.pageBytes + segmentBytes) bytes"))
      }
      if let header = segment.header,
        header.identity != identity || header.segmentBytes != segmentBytes
      {
        problems.append(JournalProblem(name, offset: 24, "it is of another log"))
      }
    }
    let isKnown = checkpoint?.isSound ?? true
    if isKnown, let first = segments.first, first.firstPosition > checkpoint?.replayFrom ?? 0 {
      let text =
        checkpoint == nil
        ? "there is no checkpoint, and what stood before this segment is missing"
        : "the segments before this one, from position \(checkpoint!.replayFrom) on, are missing"
      problems.append(JournalProblem(SegmentFiles.name(first.firstPosition), text))
    }
    if segments.isEmpty, let checkpoint, checkpoint.isSound,
      checkpoint.position > checkpoint.replayFrom
    {
      problems.append(
        JournalProblem(checkpoint.name, "the segments that the checkpoint needs are missing"))
    }
    for (segment, next) in zip(segments, segments.dropFirst()) {
      var missing = segment.firstPosition + segmentBytes
      while segmentBytes > 0, missing < next.firstPosition {
        problems.append(JournalProblem(SegmentFiles.name(missing), "the segment is missing"))
        missing += segmentBytes
      }
    }
  }

  // MARK: Lane files

  private func readLanes(_ names: [String]) throws(JournalError) {
    var named: Set<UInt32> = []
    forEachCheckpointRecord { view in
      guard view.kind == Record.laneFile, view.payload.count == 8 else { return }
      named.insert(UInt32(truncatingIfNeeded: view.payload.loadUnaligned(as: UInt64.self)))
    }
    let isKnown = isCheckpointProven
    for name in names {
      guard let number = LaneTable.number(ofName: name) else {
        strangers.append(name)
        continue
      }
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
      case .newer: throw error
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
