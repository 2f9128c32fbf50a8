import Base
import IO

/// Looks at a log without changing it: what stands in it, and whether all of it is sound. For a
/// stopped broker, or a copy of its directory.
public struct JournalInspection {
  /// One record, in words.
  public struct Line {
    public let position: Int
    public let file: String
    public let offset: Int
    public let size: Int
    public let kind: UInt8
    public let record: RecordView
  }

  /// What was found.
  public struct Summary: Equatable, Sendable {
    public var segments = 0
    public var segmentBytes = 0
    public var spares = 0
    public var checkpointPosition: Int?
    public var records = 0
    public var recordsByKind: [UInt8: Int] = [:]
    public var bytes = 0
    public var start = 0
    public var end = 0
    public var epoch: UInt64 = 0
    /// The broker stopped in order; otherwise the end is where a crash cut it.
    public var isClean = false
  }

  private let directory: String
  private let list: SegmentList
  private let files: SegmentFiles
  private let checkpoint: CheckpointFile?

  /// `directory` is the data directory of a broker.
  public init(directory: String, disk: any Disk = SystemDisk()) throws(JournalError) {
    self.directory = directory + "/journal"
    checkpoint = try Journal.newestCheckpoint(disk, self.directory)
    list = try SegmentList(
      disk: disk, directory: self.directory, from: checkpoint?.replayFrom ?? 0)
    files = SegmentFiles(
      disk: disk, directory: self.directory, segmentBytes: list.first?.segmentBytes ?? 1,
      identity: list.first?.identity ?? 0, spares: list.spares)
  }

  /// Reads and checks every record from the oldest segment to the log's end and hands each to
  /// `body`; throws where the log is damaged.
  public func read(_ body: (Line) -> Void) throws(JournalError) -> Summary {
    var summary = Summary()
    summary.segments = list.headers.count
    summary.segmentBytes = list.first?.segmentBytes ?? 0
    summary.spares = list.spares.count
    summary.checkpointPosition = checkpoint?.position
    guard let first = list.first else { return summary }
    let reader = LogReader(
      files: files, position: first.firstRecord, epoch: first.epoch, end: list.end)
    summary.start = reader.position
    while let view = try reader.next() {
      summary.records += 1
      summary.recordsByKind[view.kind, default: 0] += 1
      let segment = view.position - view.position % files.segmentBytes
      body(
        Line(
          position: view.position, file: SegmentFiles.name(segment),
          offset: SegmentHeader.pageBytes + view.position - segment, size: view.size,
          kind: view.kind, record: view))
    }
    summary.end = reader.position
    summary.bytes = summary.end - summary.start
    summary.epoch = reader.epoch
    summary.isClean = reader.isClean
    return summary
  }
}
