import Base
import Journal

/// One order of a stream's records, with offsets from 0 and no gaps.
///
/// New records stand in the log: `recent` says where, at 8 bytes each. What is older than the log's window is in
/// segment files (`PartitionSegment`), of which memory has so many bytes each, whatever they hold. The log speaks
/// of a partition as of a lane: the record at an offset is the lane's message with the sequence one above.
///
/// Readers see a record once the log has it durably (`visibleEnd`). Otherwise an offset could have another
/// content after a crash than before.
final class Partition {
  /// As the log has it, among those of lanes.
  let id: UInt32
  /// Its number within the stream, from 0.
  let index: Int
  // Unsafe but sound: the stream has this, and is kept as long as it is in the broker's list.
  unowned(unsafe) let stream: Stream
  // Unsafe but sound: both outlive it.
  private unowned(unsafe) let broker: Broker
  private unowned(unsafe) let journal: Journal
  /// Where the records from `recentStart` on are.
  private var recent = Ring<RecordLocation>()
  /// The first offset that is in the log; those before are in segments.
  private(set) var recentStart: UInt64 = 0
  /// What has moved out of the log, in order; the last one grows.
  private(set) var segments: [PartitionSegment] = []
  /// Their bytes together.
  private(set) var segmentBytes = 0
  /// The first offset that is kept.
  private(set) var start: UInt64 = 0
  /// Where it is in the broker's list; nil once it is given up.
  var place: Int?
  /// A record in the log is damaged: it and what is behind it do not move.
  private(set) var staysInLog = false
  /// Records before this offset are durable.
  private(set) var visibleEnd: UInt64 = 0
  /// Dates at which records were stored, with the first offset of then; some way from each other.
  private var times = Ring<(offset: UInt64, date: Int64)>()
  /// Dates are known so exactly, in milliseconds.
  private static let timeMilliseconds: Int64 = 100
  /// Pages of segments that readers are at, by where they begin.
  private var pages: [PageKey: (slot: UInt32, users: Int)] = [:]
  /// Ends of the turns that brought records, with where the log ended then.
  private var appended = Ring<(end: UInt64, position: Int)>()
  /// It is in the broker's list of partitions with records of this turn.
  private var isNoted = false
  /// Readers that have seen all there is.
  private var waiting: [StreamFeed] = []
  /// What the account of memory has of it.
  private var countedBytes = 0

  init(id: UInt32, index: Int, stream: Stream) {
    self.id = id
    self.index = index
    self.stream = stream
    broker = stream.broker
    journal = stream.broker.journal
  }

  /// The offset that comes next.
  var end: UInt64 { recentStart + UInt64(recent.count) }
  /// Records that are kept.
  var count: Int { Int(end - start) }
  /// Records that have not moved out of the log.
  var recentCount: Int { recent.count }
  /// The oldest record was stored at this date or before: exactly if it is in the log, otherwise its segment ends
  /// then.
  var oldestDate: Int64? {
    if let first = segments.first, first.end > start { return first.timeMax }
    return recent.isEmpty ? nil : times.first?.date
  }

  // MARK: Appending

  /// Takes a record whose block was retained for it, and which is in the log.
  func append(_ location: RecordLocation) {
    if !isNoted {
      note(broker.now)
      isNoted = true
      broker.noteAppended(self)
    }
    recent.append(location)
  }

  /// The next record was stored at this date.
  private func note(_ date: Int64) {
    if let last = times.last, date < last.date + Self.timeMilliseconds { return }
    times.append((end, date))
  }

  /// The turn ends, with the log at this position. Returns whether this is the only turn with records that are
  /// not durable.
  func turnEnded(at position: Int) -> Bool {
    isNoted = false
    appended.append((end, position))
    countBytes()
    return appended.count == 1
  }

  /// The log is durable up to there. Returns whether something is still to become so.
  func becameDurable(upTo position: Int) -> Bool {
    var isNew = false
    while let first = appended.first, first.position <= position {
      visibleEnd = appended.removeFirst().end
      isNew = true
    }
    if isNew { wake() }
    return !appended.isEmpty
  }

  private func countBytes() {
    let bytes = recent.count * MemoryLayout<RecordLocation>.stride
    broker.account.add(bytes - countedBytes, to: .entries)
    countedBytes = bytes
  }

  // MARK: Reading

  /// The reader is told when there are more records. Returns its place among those that wait.
  func wait(_ feed: StreamFeed) -> Int {
    waiting.append(feed)
    return waiting.count - 1
  }

  /// Readers that wait.
  var waitingCount: Int { waiting.count }

  private func wake() {
    guard !waiting.isEmpty else { return }
    let feeds = waiting
    waiting.removeAll(keepingCapacity: true)
    for feed in feeds { feed.wake(by: self) }
  }

  /// A reader that waits has ended.
  func forget(_ feed: StreamFeed, at place: Int) {
    invariant(waiting[place] === feed, "a reader waits at another place than it knows")
    let last = waiting.removeLast()
    guard last !== feed else { return }
    waiting[place] = last
    last.waits(for: self, at: place)
  }

  /// The first offset that may have been stored at a date or later.
  func offset(storedFrom date: Int64) -> UInt64 {
    let place = (0..<times.count).partition { times[$0].date <= date }
    guard place > 0 else {
      return segments.first { $0.timeMax >= date }?.base ?? min(recentStart, visibleEnd)
    }
    // Of those that were noted last before the date some may be as late.
    let last = times[place - 1]
    if date < last.date + Self.timeMilliseconds { return last.offset }
    return place < times.count ? times[place].offset : visibleEnd
  }

  /// Where the record at an offset is, which is in the log.
  func location(of offset: UInt64) -> RecordLocation { recent[Int(offset - recentStart)] }

  // MARK: Checkpoints and recovery

  var stateRecords: [RawRecord] {
    [
      LaneStateRecord.raw(
        lane: id, nextSequence: end + 1, deliveredUpTo: 0, movedUpTo: recentStart),
      PartitionStateRecord.raw(lane: id, start: start, segments: segments.map(\.state)),
    ]
  }

  /// What the checkpoint says.
  func restore(_ record: PartitionStateRecord) {
    segments = record.segments.map { PartitionSegment($0) }
    segmentBytes = segments.reduce(0) { $0 + $1.bytes }
    start = record.start
    recentStart = max(start, segments.last?.end ?? 0)
    visibleEnd = recentStart
  }

  // MARK: Moving out of the log

  /// What a round takes that moves all before the cutoff: at most so many records.
  func selection(before cutoff: SpillCutoff, atMost limit: Int) -> PartitionSelection? {
    guard !staysInLog else { return nil }
    let count = min(
      limit,
      (0..<recent.count).partition { journal.isBefore(cutoff, recent[$0].block) })
    guard count > 0 else { return nil }
    return PartitionSelection(
      id: id, first: recentStart, records: (0..<count).map { recent[$0] },
      segment: segments.last.flatMap { $0.end == recentStart ? $0 : nil },
      segmentBytesMax: stream.settings.segmentBytesMax,
      form: StreamForm(key: stream.settings.key))
  }

  /// Records of a round are in segments: they leave memory, some at a time. Returns whether all have.
  func move(_ moved: MovedPartition, _ steps: inout Int) -> Bool {
    // Readers find at once where records are, while these leave memory.
    if let last = moved.segments.last, segments.last != last { take(moved.segments) }
    let end = moved.segments.last?.end ?? recentStart
    while recentStart < end {
      guard steps > 0 else { return false }
      for _ in 0..<Self.recordsPerStep where recentStart < end {
        journal.release(recent.removeFirst().block)
        recentStart += 1
      }
      steps -= 1
    }
    while times.count > 1, times[1].offset <= recentStart { _ = times.removeFirst() }
    if let damage = moved.damage {
      staysInLog = true
      journal.note(
        problem:
          "stream '\(stream.name)' stays in the log from offset \(recentStart) on: \(damage);"
          + " stop the broker and run `martlet journal repair`")
    }
    countBytes()
    trim()
    return true
  }

  private func take(_ written: [PartitionSegment]) {
    for segment in written {
      if segments.last?.base == segment.base { segmentBytes -= segments.removeLast().bytes }
      segments.append(segment)
      segmentBytes += segment.bytes
    }
  }

  private static let recordsPerStep = 16

  // MARK: Retention

  /// Segments that hold only what is too old, or too much, are given up; not the one that is written. The log is
  /// told, and the files go when it has that.
  func trim() {
    let settings = stream.settings
    var count = 0
    var bytes = segmentBytes
    while count + 1 < segments.count {
      let segment = segments[count]
      let isOld = settings.ageMax.map { segment.timeMax < broker.now - $0 } ?? false
      guard isOld || bytes > settings.bytesMax else { break }
      bytes -= segment.bytes
      count += 1
    }
    guard count > 0, journal.failure == nil else { return }
    let leaving = segments[..<count].map(\.base)
    segments.removeFirst(count)
    segmentBytes = bytes
    start = segments[0].base
    stream.rewindReaders(before: start, of: self)
    PartitionTrimmedRecord.append(to: journal, lane: id, start: start)
    broker.remove(segments: leaving, of: id)
  }

  /// The log says that records before this offset are gone.
  func trimmed(to offset: UInt64) {
    start = max(start, offset)
    segments.removeAll { $0.end <= offset }
    segmentBytes = segments.reduce(0) { $0 + $1.bytes }
  }

  // MARK: Cold records

  /// The segment that has the record of an offset, which has moved out of the log. A repair may have left a gap
  /// before a segment, or before the log: then it is the next one, or none.
  func segment(of offset: UInt64) -> PartitionSegment? {
    let place = segments.indices.partition { segments[$0].end <= offset }
    return place < segments.count ? segments[place] : nil
  }

  /// The segment behind one.
  func segment(behind other: PartitionSegment) -> PartitionSegment? { segment(of: other.end) }

  /// As it is now, since it may have grown.
  func current(_ segment: PartitionSegment) -> PartitionSegment? {
    segments.first { $0.base == segment.base }
  }

  struct PageKey: Hashable {
    let segment: UInt64
    let beginning: PageSource.Beginning
  }

  /// A page that begins there, shared with those who are at the same place; given back by `closePage`.
  func openPage(_ key: PageKey, in segment: PartitionSegment) -> UInt32 {
    if let (slot, users) = pages[key] {
      pages[key] = (slot, users + 1)
      return slot
    }
    let slot = journal.openPage(
      PageSource(
        partition: id, segment: segment, beginning: key.beginning,
        form: StreamForm(key: stream.settings.key)))
    pages[key] = (slot, 1)
    return slot
  }

  func closePage(_ key: PageKey) {
    guard let (slot, users) = pages[key] else { return }
    pages[key] = users > 1 ? (slot, users - 1) : nil
    if users == 1 { journal.release(slot) }
  }

  // MARK: The end

  /// Gives up some of what is in the log; true when nothing is left.
  func drop(_ steps: inout Int) -> Bool {
    while steps > 0, !recent.isEmpty {
      steps -= 1
      journal.release(recent.removeFirst().block)
      recentStart += 1
    }
    countBytes()
    return recent.isEmpty
  }
}

extension Partition: RecoveredLane {
  /// The log's records behind those that have moved into segments.
  func restore(_ remains: RecoveringLane.Remains, _ state: RecoveringLane) {
    recentStart = max(recentStart, start, state.movedUpTo)
    for (entry, date) in zip(remains.entries, remains.dates) {
      // What had moved and was given up, behind the checkpoint, does not come back.
      guard entry.sequence > recentStart else {
        journal.release(entry.location.block)
        continue
      }
      invariant(
        entry.sequence == end + 1, "a stream lacks the record of offset \(end) of partition \(id)")
      note(date)
      recent.append(entry.location)
    }
    visibleEnd = end
    countBytes()
    stream.watchAge()
  }
}
