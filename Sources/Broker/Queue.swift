import AMQP
import Base
import Journal

/// A queue: messages are taken, locked while they are unacknowledged, and deleted.
public final class Queue {
  public let id: UInt32
  public let name: Name
  unowned(unsafe) let vhost: VirtualHost
  unowned(unsafe) let broker: Broker
  unowned(unsafe) let journal: Journal
  /// Survives a restart.
  public let isDurable: Bool
  public let isAutoDelete: Bool
  /// Exclusive to this connection; nil for a queue of all.
  unowned(unsafe) let owner: Peer?
  public let isExclusive: Bool
  public let arguments: FieldTable
  /// Where it is bound, so that deleting it costs what it is bound to.
  var bindings: [Binding] = []
  var isDeleted = false

  /// Never delivered, in order.
  private var lane = EntryLane()
  /// Given back, the next one last; always before all of `lane`.
  private var returned: [Entry] = []
  /// Delivered and not yet acknowledged.
  private(set) var unacknowledgedCount = 0
  var nextSequence: UInt64 = 1
  /// The highest sequence that was delivered for acknowledgement, and what of that the log knows.
  private(set) var deliveredUpTo: UInt64 = 0
  private var loggedDeliveredUpTo: UInt64 = 0
  private var durableUnacknowledgedCount = 0
  /// Durable messages that left the queue since settlements were last written.
  private var settled: [SettledRange] = []

  /// The order of service: by priority, then by arrival.
  private(set) var consumers: [Consumer] = []
  /// Where the round goes on within the first priority.
  private var nextConsumer = 0
  private(set) var hadConsumers = false
  /// Waits in the broker's list of queues to pump.
  private var isTouched = false
  /// Waits in the broker's list of queues with something to log.
  private var isUnlogged = false
  /// Set by the router to reach a queue once.
  var routeMark: UInt64 = 0

  struct SettledRange {
    var first: UInt64
    var count: UInt64
  }

  init(
    id: UInt32, name: Name, vhost: VirtualHost, isDurable: Bool, isAutoDelete: Bool,
    owner: Peer?, arguments: FieldTable
  ) {
    self.id = id
    self.name = name
    self.vhost = vhost
    broker = vhost.broker
    journal = vhost.broker.journal
    self.isDurable = isDurable
    self.isAutoDelete = isAutoDelete
    self.owner = owner
    isExclusive = owner != nil
    self.arguments = arguments
  }

  // MARK: Counts

  public var readyCount: Int { lane.count + returned.count }
  public var messageCount: Int { readyCount + unacknowledgedCount }
  public var consumerCount: Int { consumers.count }
  @inline(__always) var hasReady: Bool { lane.count > 0 || !returned.isEmpty }

  // MARK: Messages

  /// Appends a message whose block was retained for this entry.
  @inline(__always)
  func enqueue(_ location: RecordLocation, bodySize: Int, flags: Entry.Flags) {
    lane.append(
      Entry(
        sequence: nextSequence, location: location,
        bodySize: UInt32(truncatingIfNeeded: bodySize), flags: flags))
    nextSequence &+= 1
    touch()
  }

  /// The recovered entries, in order; all else is empty.
  func restore(_ entries: [Entry], nextSequence: UInt64, deliveredUpTo: UInt64) {
    invariant(lane.count == 0 && returned.isEmpty, "a queue was restored twice")
    for entry in entries { lane.append(entry) }
    // Transient messages had sequences too, which the log does not know unless they were delivered.
    self.nextSequence = max(nextSequence, deliveredUpTo + 1)
    self.deliveredUpTo = deliveredUpTo
    loggedDeliveredUpTo = deliveredUpTo
  }

  /// Takes the next message; it is locked until `settle` or `giveBack`, or settled at once.
  @inline(__always)
  func take() -> Entry {
    returned.isEmpty ? lane.removeFirst() : returned.removeLast()
  }

  /// Counts a message that was taken as unacknowledged.
  @inline(__always)
  func lock(_ entry: Entry) {
    unacknowledgedCount &+= 1
    if entry.sequence > deliveredUpTo { deliveredUpTo = entry.sequence }
    if entry.isDurable {
      durableUnacknowledgedCount &+= 1
      markUnlogged()
    }
  }

  /// A locked message is deleted.
  @inline(__always)
  func settleLocked(_ entry: Entry) {
    unacknowledgedCount &-= 1
    if entry.isDurable { durableUnacknowledgedCount &-= 1 }
    settle(entry)
  }

  /// A message that was taken is deleted.
  @inline(__always)
  func settle(_ entry: Entry) {
    journal.release(entry.location.block)
    if entry.isDurable { noteSettled(entry.sequence) }
  }

  /// Locked messages come back, before all that was never delivered, in their old order.
  func giveBack(_ entries: [Entry]) {
    unacknowledgedCount -= entries.count
    durableUnacknowledgedCount -= entries.count(where: \.isDurable)
    if isDeleted {
      for entry in entries { journal.release(entry.location.block) }
      return
    }
    for var entry in entries {
      entry.flags.insert(.redelivered)
      returned.append(entry)
    }
    returned.sort { $0.sequence > $1.sequence }
    if isDurable { markUnlogged() }
    touch()
  }

  /// Deletes all ready messages; returns how many.
  func purge() -> Int {
    let count = readyCount
    while hasReady { settle(take()) }
    return count
  }

  /// Gives up all ready messages without a word to the log, which knows that the queue is gone.
  func dropAll() {
    isDeleted = true
    settled = []
    while hasReady { journal.release(take().location.block) }
  }

  // MARK: The log

  private func noteSettled(_ sequence: UInt64) {
    guard !isDeleted else { return }
    if let last = settled.last, last.first &+ last.count == sequence {
      settled[settled.count &- 1].count &+= 1
    } else {
      settled.append(SettledRange(first: sequence, count: 1))
    }
    markUnlogged()
  }

  @inline(__always)
  private func markUnlogged() {
    if !isUnlogged {
      isUnlogged = true
      broker.noteUnlogged(self)
    }
  }

  /// Writes what left the queue, and what clients have seen, to the log.
  func logProgress() {
    isUnlogged = false
    guard isDurable, !isDeleted else { return }
    let wasSeen = durableUnacknowledgedCount > 0 || !returned.isEmpty
    if wasSeen, deliveredUpTo > loggedDeliveredUpTo {
      loggedDeliveredUpTo = deliveredUpTo
      CatalogRecord.appendDelivered(journal, queue: id, upTo: deliveredUpTo)
    }
    if !settled.isEmpty {
      settled.sort { $0.first < $1.first }
      CatalogRecord.appendSettled(journal, queue: id, ranges: settled)
      settled.removeAll(keepingCapacity: settled.count <= 64)
    }
  }

  // MARK: Consumers

  func add(_ consumer: Consumer) {
    let place = consumers.firstIndex { $0.priority < consumer.priority } ?? consumers.count
    consumers.insert(consumer, at: place)
    hadConsumers = true
    touch()
  }

  func remove(_ consumer: Consumer) {
    guard let index = consumers.firstIndex(where: { $0 === consumer }) else { return }
    consumers.remove(at: index)
    if nextConsumer > index { nextConsumer -= 1 }
    touch()
  }

  /// Somebody may be able to take a message now.
  @inline(__always)
  func touch() {
    if !isTouched {
      isTouched = true
      broker.noteTouched(self)
    }
  }

  /// Delivers as long as there are messages and consumers that can take them.
  func pump() {
    isTouched = false
    if consumers.count == 1 {
      let consumer = consumers[0]
      while hasReady, consumer.isReady {
        guard deliver(to: consumer) else { return }
      }
    } else {
      while hasReady, let consumer = nextReady() {
        guard deliver(to: consumer) else { return }
      }
    }
  }

  /// The consumer whose turn it is: round robin among those of the highest priority that can take.
  private func nextReady() -> Consumer? {
    var start = 0
    while start < consumers.count {
      let priority = consumers[start].priority
      var end = start + 1
      while end < consumers.count, consumers[end].priority == priority { end += 1 }
      let offset = start <= nextConsumer && nextConsumer < end ? nextConsumer - start : 0
      for step in 0..<end - start {
        let index = start + (offset + step) % (end - start)
        if consumers[index].isReady {
          nextConsumer = index + 1
          return consumers[index]
        }
      }
      start = end
    }
    return nil
  }

  /// Hands over the next message; false if it cannot be read.
  @inline(__always)
  private func deliver(to consumer: Consumer) -> Bool {
    let entry = take()
    guard let record = journal.pointer(entry.location) else {
      putBack(entry)
      return false
    }
    consumer.channel.deliver(entry, record, from: self, to: consumer)
    return true
  }

  /// Undoes `take`.
  func putBack(_ entry: Entry) {
    returned.append(entry)
    returned.sort { $0.sequence > $1.sequence }
  }
}
