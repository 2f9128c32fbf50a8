import Base
import Glibc
import IO

/// What a log said when it was opened.
public struct Recovery: Equatable, Sendable {
  /// Records of the broker that were read.
  public var records = 0
  /// Bytes of the log that were read.
  public var bytes = 0
  /// The broker had stopped in order.
  public var wasClean = true
  /// There was no log before.
  public var isNew = false
  /// The log failed in the last life: all messages are taken for delivered.
  public var isAfterFailure = false
}

/// What the broker does with each of its records at recovery.
public protocol JournalReplay: AnyObject {
  /// A record of the catalog as the checkpoint has it; comes before all others.
  func replayCheckpoint(_ record: RecordView) throws(JournalError)
  /// A block of a lane file; comes behind the catalog and before the log.
  func replay(_ block: LaneBlock)
  /// A record of the log. `isBeforeCheckpoint`: what it says of the catalog is known already.
  func replay(
    _ record: RecordView, at location: RecordLocation, isBeforeCheckpoint: Bool
  ) throws(JournalError)
}

/// Recovery: what a start makes of the files.
///
/// The newest checkpoint says what held before its replay position; it must be whole, since nobody
/// else knows. Then come the tables of the lane files that it names (their blocks stay on disk),
/// then the log from the replay position to its end, record by record, into the broker
/// (`JournalReplay`). Records get places in blocks whose bytes stay on disk as well, so that a
/// start takes as long as the log's window, whatever waits. At last the log is set up to go on
/// behind its end, in a new epoch.
///
/// The end is the first place without a valid record. If something behind it proves that a record
/// there had been durable, this is damage, and the broker does not start; otherwise it is the torn
/// tail of the last batch, which nobody was promised. The new epoch is durable before anything else is
/// written in it (`beginningEnd`). Lane files that no checkpoint names are
/// rounds that were not over, and are removed; their messages are still in the log.
///
/// What would break: going on without a checkpoint, a segment or a lane file that is missing would
/// lose messages silently. Segments behind the end go from the last on, each with its mark taken
/// away first; in any other order a crash in between would look like a segment that somebody
/// removed.
extension Journal {
  /// Opens the log in `directory`, or begins one, and replays it. `now` is wall-clock milliseconds;
  /// `wake` is called on other threads when `poll` has something to take.
  public static func open(
    directory: String, settings: Settings, environment: Environment = Environment(), now: Int64,
    lanes: any LaneRecords = WholeRecords(), wake: @escaping @Sendable () -> Void,
    replay: (Journal) -> any JournalReplay
  ) throws(JournalError) -> (journal: Journal, recovery: Recovery) {
    let disk = environment.disk
    try system { () throws(SystemError) in try disk.makeDirectories(directory) }
    let names = try system { () throws(SystemError) in try JournalNames(disk, directory) }
    try names.refuseForeign(in: directory)
    let checkpoint = try newestCheckpoint(disk, directory, names)
    var list = try SegmentList(
      disk: disk, directory: directory, names: names, from: checkpoint?.replayFrom ?? 0)
    let isNew = list.headers.isEmpty && checkpoint == nil
    if isNew { try refuseOrphans(names, directory) }
    var settings = settings
    settings.segmentBytes = (settings.segmentBytes + 4095) & ~4095
    if let first = list.first { settings.segmentBytes = first.segmentBytes }
    let identity = list.first?.identity ?? checkpoint?.identity ?? environment.random()
    guard checkpoint?.identity ?? identity == identity else {
      throw .inconsistent("the checkpoint is of another log than the segments")
    }
    let spares = try system { () throws(SystemError) in
      try SegmentFiles.usable(
        list.spares, disk, directory, bytes: SegmentHeader.pageBytes + settings.segmentBytes,
        // What another log left in them would be taken for this one's, by chance.
        sparesMax: isNew ? 0 : Background.sparesMax)
    }
    let files = SegmentFiles(
      disk: disk, directory: directory, segmentBytes: settings.segmentBytes, identity: identity,
      spares: spares)
    let reader = try makeReader(files, list, checkpoint)
    let firstSegment = reader.position / settings.segmentBytes
    let journal = try system { () throws(SystemError) in
      try Journal(
        settings: settings, environment: environment, files: files, firstSegment: firstSegment,
        lanes: lanes, wake: wake)
    }
    journal.isAfterFailure = names.hasFailureMark
    var recovery = try journal.run(reader, checkpoint, replay(journal))
    recovery.isAfterFailure = names.hasFailureMark
    recovery.isNew = isNew
    try journal.resume(after: reader, &list, now: now)
    return (journal, recovery)
  }

  /// Messages and records of streams without the log that knows of them: a new log would remove them.
  private static func refuseOrphans(
    _ names: JournalNames, _ directory: String
  ) throws(JournalError) {
    if let (name, _) = names.lanes.first {
      throw .inconsistent("\(directory)/\(name) has messages, and the log that has them is missing")
    }
    if let (name, _) = names.partitionFiles.first {
      throw .inconsistent("\(directory)/\(name) is of a stream, and the log that has it is missing")
    }
  }

  private static func makeReader(
    _ files: SegmentFiles, _ list: SegmentList, _ checkpoint: CheckpointFile?
  ) throws(JournalError) -> LogReader {
    guard let first = list.first else {
      guard checkpoint.map({ $0.position <= $0.replayFrom }) ?? true else {
        throw .inconsistent("the segments behind the checkpoint are missing")
      }
      return LogReader(files: files, position: checkpoint?.replayFrom ?? 0, epoch: 0, end: 0)
    }
    let expected = checkpoint?.replayFrom ?? 0
    guard first.firstPosition <= expected else {
      throw .inconsistent("\(files.path(SegmentFiles.name(expected))) is missing")
    }
    guard first.firstRecord <= list.end else {
      throw .damaged(
        file: files.path(SegmentFiles.name(first.firstPosition)), offset: 40,
        position: first.firstPosition, reason: "its first record begins behind the log's end")
    }
    return LogReader(
      files: files, position: first.firstRecord, epoch: first.epoch, end: list.end)
  }

  /// The newest checkpoint that is whole; nil if there is none.
  static func newestCheckpoint(
    _ disk: any Disk, _ directory: String, _ names: JournalNames
  ) throws(JournalError) -> CheckpointFile? {
    guard let name = names.checkpoints.last?.name else { return nil }
    let path = directory + "/" + name
    switch try CheckpointFile.read(disk, path) {
    case .whole(let file): return file
    case .stranger(let stranger): throw stranger.error(path)
    case .damaged(let reason, _): throw .inconsistent("\(path) is damaged: \(reason)")
    }
  }

  private func run(
    _ reader: LogReader, _ checkpoint: CheckpointFile?, _ target: any JournalReplay
  ) throws(JournalError) -> Recovery {
    var recovery = Recovery()
    let start = reader.position
    if let checkpoint { try replay(checkpoint, target) }
    var missing = try replayLanes(checkpoint, target)
    while let view = try reader.next() {
      guard view.kind >= Record.brokerKinds else {
        try replayOwn(view, &missing)
        continue
      }
      let location = place(view, reader.epoch)
      try target.replay(
        view, at: location,
        isBeforeCheckpoint: checkpoint.map { view.position < $0.catalogPosition } ?? false)
      recovery.records += 1
    }
    closeReplayBlock()
    if let number = missing.min() {
      throw .inconsistent("the lane file \(files.path(LaneTable.name(number))) is missing")
    }
    guard reader.position >= checkpoint?.position ?? 0 else {
      throw .inconsistent("the log ends before its checkpoint")
    }
    recovery.bytes = reader.position - start
    recovery.wasClean = reader.isClean || recovery.bytes == 0
    return recovery
  }

  private func replay(
    _ checkpoint: CheckpointFile, _ target: any JournalReplay
  ) throws(JournalError) {
    try checkpoint.forEachRecord { (view) throws(JournalError) in
      if view.kind >= Record.brokerKinds {
        try target.replayCheckpoint(view)
      } else if OwnRecord.Kind(rawValue: view.kind) != .laneFile {
        throw RecordProblem.unknownKind(view.kind).error(at: view.position)
      }
    }
  }

  /// Hands over what the lane files of the checkpoint have, and removes files of rounds that were not
  /// over. Returns the numbers of files that are missing; the log may say why.
  private func replayLanes(
    _ checkpoint: CheckpointFile?, _ target: any JournalReplay
  ) throws(JournalError) -> Set<UInt32> {
    let listed = Set(checkpoint?.laneFiles ?? [])
    var missing = listed
    let names = try system { () throws(SystemError) in
      // The checkpoint's name must be durable before anything goes that only an older one names.
      try files.disk.syncDirectory(files.directory)
      return try JournalNames(files.disk, files.directory)
    }
    for (name, number) in names.lanes + names.unfinishedLanes {
      laneFiles.used(number)
      if listed.contains(number), name == LaneTable.name(number) {
        missing.remove(number)
      } else {
        try system { () throws(SystemError) in try files.disk.remove(files.path(name)) }
      }
    }
    for number in listed.sorted() {
      laneFiles.used(number)
      if missing.contains(number) { continue }
      let table = try LaneTable(files.disk, files.path(LaneTable.name(number)))
      guard table.number == number, table.identity == files.identity else {
        throw .inconsistent(
          "\(files.path(LaneTable.name(number))) is of another log, or has another file's name")
      }
      laneFiles.add(number, isScratch: false, table.blocks, areAlive: false)
      for block in table.blocks { target.replay(block) }
    }
    return missing
  }

  /// A record of the journal itself.
  private func replayOwn(
    _ view: RecordView, _ missing: inout Set<UInt32>
  ) throws(JournalError) {
    switch try ownRecord(view) {
    case .epoch: closeReplayBlock()
    case .laneFileRemoved(let record):
      let number = UInt32(truncatingIfNeeded: record.number)
      missing.remove(number)
      laneFiles.used(number)
    case .pad, .batch, .stop, .laneFile, .groupBegin, .groupEnd: break
    }
  }

  private func ownRecord(_ view: RecordView) throws(JournalError) -> OwnRecord {
    do throws(RecordProblem) {
      return try OwnRecord(view)
    } catch {
      throw error.error(at: view.position)
    }
  }

  /// Gives a record that was read a place in a block whose bytes stay on disk until they are needed.
  private func place(_ view: RecordView, _ epoch: UInt64) -> RecordLocation {
    let end = view.position + Record.padded(view.size)
    if let index = replayBlock {
      let block = blocks[Int(index)]
      // Records of the journal itself may stand between; they are part of the block.
      if end - block.start <= BlockMemory.usualBytes {
        blocks[Int(index)].used = end - block.start
        return RecordLocation(block: index, offset: UInt32(view.position - block.start))
      }
    }
    closeReplayBlock()
    let index = takeSlot()
    var block = Block(home: .log, start: view.position, used: end - view.position, capacity: 0)
    block.isOpen = true
    block.epoch = UInt32(truncatingIfNeeded: epoch)
    blocks[Int(index)] = block
    replayBlock = index
    return RecordLocation(block: index, offset: 0)
  }

  private func closeReplayBlock() {
    guard let index = replayBlock else { return }
    replayBlock = nil
    var block = blocks[Int(index)]
    block.isOpen = false
    block.capacity = BlockMemory.padded(block.used)
    segments.opened(block)
    blocks[Int(index)] = block
    logOrder.append(OrderedBlock(block: index, start: block.start), blocks, .log)
    if block.references == 0 { free(index) }
  }

  /// Sets the log up to be continued where the reader found its end.
  private func resume(
    after reader: LogReader, _ list: inout SegmentList, now: Int64
  ) throws(JournalError) {
    let end = reader.position
    var lastEpoch = reader.epoch
    try system { () throws(SystemError) in
      // From the last one on, each for good: what a crash leaves must have no gap, and the segment
      // before must not say that there is another.
      while let stale = list.dropLast(from: end) {
        lastEpoch = max(lastEpoch, stale.epoch)
        if let last = list.headers.last, !Sabotage.is(.keepsStaleMark) {
          try files.mark(last.firstPosition, hasSuccessor: false)
        }
        try files.retire(
          [SegmentFiles.name(stale.firstPosition)], sparesMax: Background.sparesMax)
      }
      // What was read may be in the page cache only; what comes next builds upon it.
      if let first = list.first { try files.sync(from: first.firstPosition, to: end) }
      durablePosition = end
      syncedPosition = end
      sealedPosition = end
      try resumeTail(at: end)
    }
    begin(epoch: Self.epoch(after: lastEpoch, lastRecord: reader.epoch, now: now))
    EpochRecord.append(to: self, epoch: epoch, beganAt: UInt64(bitPattern: now))
    appendBatchRecord(now: now)
    if !Sabotage.is(.sharesFirstBatch) { beginningEnd = endPosition }
  }

  /// Above those of lives that came to nothing, whose records may still be somewhere; and near that of the
  /// last record, or what this life writes could not prove that its own beginning was damaged.
  private static func epoch(
    after last: UInt64, lastRecord: UInt64, now: Int64
  ) -> UInt64 {
    let chance = UInt64(truncatingIfNeeded: now)
    let next = last + 1 + chance % LogReader.epochStepMax
    guard next - lastRecord > LogReader.epochGapMax else { return next }
    // So many came to nothing that only chance can tell this one from them.
    return lastRecord + 1 + chance % LogReader.epochGapMax
  }
}

/// Does `body` and says its failure as the journal's.
package func system<Result: ~Copyable>(
  _ body: () throws(SystemError) -> Result
) throws(JournalError) -> Result {
  do throws(SystemError) {
    return try body()
  } catch {
    throw .system(error)
  }
}
