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
  // Unsafe but sound: both outlive it.
  private unowned(unsafe) let broker: Broker
  private unowned(unsafe) let journal: Journal
  /// Where the records from `recentStart` on are.
  private var recent = Ring<RecordLocation>()
  /// The first offset that is in the log; those before are in segments.
  private(set) var recentStart: UInt64 = 0
  /// The first offset that is kept.
  private(set) var start: UInt64 = 0
  /// Records before this offset are durable.
  private(set) var visibleEnd: UInt64 = 0
  /// Dates at which records were stored, with the first offset of then; some way from each other.
  private var times = Ring<(offset: UInt64, date: Int64)>()
  /// Dates are known so exactly, in milliseconds.
  private static let timeMilliseconds: Int64 = 100
  /// Ends of the turns that brought records, with where the log ended then.
  private var appended = Ring<(end: UInt64, position: Int)>()
  /// It is in the broker's list of partitions with records of this turn.
  private var isNoted = false
  /// Readers that have seen all there is.
  private var waiting: [StreamFeed] = []
  /// What the account of memory has of it.
  private var countedBytes = 0

  init(id: UInt32, index: Int, broker: Broker) {
    self.id = id
    self.index = index
    self.broker = broker
    journal = broker.journal
  }

  /// The offset that comes next.
  var end: UInt64 { recentStart + UInt64(recent.count) }
  /// Records that are kept.
  var count: Int { Int(end - start) }

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

  /// The reader is told when there are more records.
  func wait(_ feed: StreamFeed) { waiting.append(feed) }

  private func wake() {
    guard !waiting.isEmpty else { return }
    let feeds = waiting
    waiting.removeAll(keepingCapacity: true)
    for feed in feeds { feed.wake() }
  }

  /// A reader has ended.
  func forget(_ feed: StreamFeed) { waiting.removeAll { $0 === feed } }

  /// The first offset that may have been stored at a date or later.
  func offset(storedFrom date: Int64) -> UInt64 {
    // The one before may have some that are as late.
    let place = (0..<times.count).partition { times[$0].date <= date }
    guard place > 0 else { return start }
    return place == times.count && date > broker.now ? visibleEnd : times[place - 1].offset
  }

  /// Where the record at an offset is, which is in the log.
  func location(of offset: UInt64) -> RecordLocation { recent[Int(offset - recentStart)] }

  // MARK: Checkpoints and recovery

  var stateRecords: [RawRecord] {
    [
      LaneStateRecord.raw(
        lane: id, nextSequence: end + 1, deliveredUpTo: 0, movedUpTo: recentStart)
    ]
  }

  /// What the checkpoint says.
  func restore(start: UInt64, recentStart: UInt64) {
    self.start = start
    self.recentStart = recentStart
    visibleEnd = recentStart
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
    for (entry, date) in zip(remains.entries, remains.dates) {
      invariant(
        entry.sequence == end + 1, "a stream lacks the record of offset \(end) of partition \(id)")
      note(date)
      recent.append(entry.location)
    }
    visibleEnd = end
    countBytes()
  }
}
