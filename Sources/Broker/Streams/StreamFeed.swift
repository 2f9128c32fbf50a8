import AMQP
import Base
import Journal

/// Brings the records of a stream to one consumer, a few at a time: its own queue gets entries of them, and
/// delivers as queues do. So all that holds for consumers of queues (credit, flow, slow readers, turns, locks)
/// holds for readers, and a record that is out with a client is an entry of 16 bytes and no copy.
///
/// Entries refer to the blocks that have the records. They keep no block from moving out of the log: before
/// a round of spilling those that were not delivered are taken back (`rewind`), and those that were are forgotten
/// (`SpillSelector`): a record that comes back to its reader is looked up anew by its offset.
final class StreamFeed {
  /// Where the reader stands in one of the partitions.
  private struct Cursor {
    let partition: Partition
    let lane: Lane
    /// The offset that comes next.
    var next: UInt64
    /// Offsets that were given back, ascending.
    var again: [UInt64] = []
    /// Records that were gone before they were read; the next delivery tells.
    var skipped: UInt64 = 0
    /// The partition tells when there is more.
    var isWaiting = false
  }

  private let stream: Stream
  // Unsafe but sound: the queue has this.
  private unowned(unsafe) var queue: Queue!
  private var cursors: [Cursor] = []
  /// The partition that is looked at next.
  private var turn = 0
  private var properties = StreamProperties()

  /// Records that get entries at once.
  private static let recordsMax: UInt64 = 256

  init(_ stream: Stream) { self.stream = stream }

  func begin(_ reading: StreamReading, lanes: [UInt32], in queue: Queue) {
    self.queue = queue
    for (index, partition) in reading.partitions.enumerated() {
      let lane =
        index == 0
        ? queue.lane
        : Lane(
          id: lanes[index], role: .reader, priority: UInt32(index), isDurable: false,
          broker: stream.broker)
      if index > 0 { queue.add(lane) }
      cursors.append(
        Cursor(
          partition: partition, lane: lane, next: partition.offset(at: reading.beginning)))
    }
  }

  // MARK: Delivering

  /// The queue has delivered what it had, as far as its consumer takes it: it gets more. Returns whether nothing
  /// is left but for the budget.
  func goOn(_ budget: inout DeliveryBudget) -> Bool {
    while !queue.hasReady, !queue.isDeleted, fill() {
      guard queue.pump(&budget) else { return false }
    }
    return true
  }

  /// There may be more.
  func wake() {
    for index in cursors.indices { cursors[index].isWaiting = false }
    queue.touch()
  }

  /// Gives the queue some of the next records of one partition; false if there are none now.
  private func fill() -> Bool {
    for _ in cursors.indices {
      let index = turn
      turn = (turn + 1) % cursors.count
      guard fill(from: &cursors[index]) else { continue }
      queue.serve(cursors[index].lane)
      return true
    }
    return false
  }

  private func fill(from cursor: inout Cursor) -> Bool {
    let partition = cursor.partition
    if !cursor.again.isEmpty {
      let offset = cursor.again.removeFirst()
      add(offset, partition.location(of: offset), [.ofStream, .redelivered], to: cursor.lane)
      return true
    }
    if cursor.next < partition.start {
      cursor.skipped += partition.start - cursor.next
      cursor.next = partition.start
    }
    let end = min(partition.visibleEnd, cursor.next + Self.recordsMax)
    guard cursor.next < end else {
      if !cursor.isWaiting { partition.wait(self) }
      cursor.isWaiting = true
      return false
    }
    for offset in cursor.next..<end {
      add(offset, partition.location(of: offset), .ofStream, to: cursor.lane)
    }
    cursor.next = end
    return true
  }

  private func add(
    _ offset: UInt64, _ location: RecordLocation, _ flags: Entry.Flags, to lane: Lane
  ) {
    stream.broker.journal.retain(location.block)
    lane.put(Entry(sequence: offset + 1, location: location, flags: flags))
  }

  /// A client gave a record back, or lost it.
  func giveBack(_ entry: Entry, of lane: Lane) {
    let offset = entry.sequence - 1
    let index = Int(lane.priority)
    let again = cursors[index].again
    let place = again.indices.partition { again[$0] < offset }
    cursors[index].again.insert(offset, at: place)
    queue.touch()
  }

  /// What was not delivered is forgotten, and read anew.
  func rewind() {
    for index in cursors.indices {
      let lane = cursors[index].lane
      var first: UInt64?
      while lane.waiting.count > 0 {
        let entry = lane.take()
        stream.broker.journal.release(entry.location.block)
        if entry.isRedelivered {
          cursors[index].again.append(entry.sequence - 1)
        } else if first == nil {
          first = entry.sequence - 1
        }
      }
      cursors[index].again.sort()
      if let first { cursors[index].next = first }
    }
    queue.touch()
  }

  // MARK: What clients see

  /// The properties of a record as they are delivered; valid until the next call.
  func properties(of view: MessageView, _ entry: Entry, in lane: Lane) -> UnsafeRawBufferPointer {
    let index = Int(lane.priority)
    let skipped = cursors[index].skipped
    cursors[index].skipped = 0
    return properties.of(
      view.properties(behind: view.names), offset: entry.sequence - 1,
      partition: stream.partitions.count > 1 ? cursors[index].partition.index : nil,
      skipped: skipped)
  }

  /// Its consumer is gone.
  func ended() {
    stream.forget(queue)
    for cursor in cursors { cursor.partition.forget(self) }
    queue.drop()
    stream.broker.keepUntilDone(queue)
  }
}

extension Partition {
  /// The offset at which a reader begins.
  fileprivate func offset(at beginning: StreamReading.Beginning) -> UInt64 {
    switch beginning {
    case .first: start
    case .last: max(start, visibleEnd > 0 ? visibleEnd - 1 : 0)
    case .next: visibleEnd
    case .offset(let offset): max(start, offset)
    case .before(let count): max(start, count > visibleEnd ? 0 : visibleEnd - count)
    case .date(let date): offset(storedFrom: date)
    }
  }
}

/// The properties of records with what clients are to know of them among their headers.
struct StreamProperties: ~Copyable {
  private static let offsetHeader: Name = "x-stream-offset"
  private static let partitionHeader: Name = "x-stream-partition"
  private static let skippedHeader: Name = "x-stream-skipped"
  private var buffer = ByteBuffer()
  private var spare = ByteBuffer()

  /// Valid until the next call. The properties as they are if they can have no more headers.
  mutating func of(
    _ properties: UnsafeRawBufferPointer, offset: UInt64, partition: Int?, skipped: UInt64
  ) -> UnsafeRawBufferPointer {
    buffer.removeAll()
    guard
      buffer.append(
        properties: properties.bytes, settingHeader: Self.offsetHeader, to: Int64(offset))
    else { return properties }
    if let partition { add(Self.partitionHeader, Int64(partition)) }
    if skipped > 0 { add(Self.skippedHeader, Int64(clamping: skipped)) }
    return buffer.readable
  }

  private mutating func add(_ header: Name, _ value: Int64) {
    spare.removeAll()
    guard spare.append(properties: buffer.readable.bytes, settingHeader: header, to: value) else {
      return
    }
    swap(&buffer, &spare)
  }
}
