import AMQP
import Base
import Journal

/// Whether, and how, a queue counts deliveries.
struct DeliveryCounting {
  /// A message that comes back more often leaves; nil is any number of times.
  let limit: UInt32?

  /// Nil if the arguments, which were checked, do not ask for it.
  init?(_ arguments: FieldTable) {
    let number = arguments["x-delivery-limit"]?.integer
    guard number != nil || arguments["x-queue-type"]?.text == "quorum" else { return nil }
    limit = number.flatMap { $0 < 0 ? nil : UInt32(clamping: $0) }
  }
}

/// How often messages of a lane came back that are still in it or out with clients.
///
/// Those that have an entry in memory are found by their sequences, and the entry says by a flag that it is
/// here (`Entry.Flags.cameBack`), so that nobody asks for others. Those that wait in lane files, which they
/// do only after a restart, stand in a list in their order, as they will be read back.
///
/// What would break: a count that outlives its message is memory for good. So whoever takes a message out of
/// the lane says so: by `forget` for an entry with the flag, by `left` for what leaves without being read.
final class DeliveryCounts {
  private struct Count {
    var count: UInt32
    var isDurable: Bool
    /// Stands in `unlogged`.
    var isUnlogged: Bool
  }

  private struct Key: SpreadKey {
    let sequence: UInt64
    var spread: UInt64 { sequence &* 0x9E37_79B9_7F4A_7C15 }
  }

  let limit: UInt32?
  private var present = SpreadDictionary<Key, Count>()
  private var moved = Ring<DeliveryCount>()
  /// Sequences whose counts the log does not have; some may be gone.
  private var unlogged = Ring<UInt64>()

  private static let recordMax = 4096
  /// About what a dictionary takes for each.
  private static let bytesEach = 32

  init(_ counting: DeliveryCounting) {
    limit = counting.limit
  }

  var byteCount: Int {
    present.count * Self.bytesEach + moved.count * MemoryLayout<DeliveryCount>.stride
      + unlogged.count * MemoryLayout<UInt64>.stride
  }

  /// 0 if it never came back.
  func count(of entry: Entry) -> UInt32 {
    entry.cameBack ? present[Key(sequence: entry.sequence)]?.count ?? 0 : 0
  }

  /// Counts a message that comes back; false if that is once too often, which is not counted. `isLogged`: the
  /// log is to know it.
  func comesBack(_ entry: Entry, isLogged: Bool) -> Bool {
    let key = Key(sequence: entry.sequence)
    let before = entry.cameBack ? present[key] : nil
    let (sum, isTooMuch) = (before?.count ?? 0).addingReportingOverflow(1)
    let count = isTooMuch ? .max : sum
    if let limit, count > limit + (Sabotage.is(.deliversOnceTooOften) ? 1 : 0) { return false }
    let isKnown = before?.isUnlogged == true
    if isLogged, !isKnown { unlogged.append(entry.sequence) }
    present[key] = Count(
      count: count, isDurable: entry.isDurable, isUnlogged: isKnown || isLogged)
    return true
  }

  /// The message has left for good.
  func forget(_ sequence: UInt64) { present[Key(sequence: sequence)] = nil }

  /// All have.
  func removeAll() {
    present = SpreadDictionary()
    moved.removeAll()
    unlogged.removeAll()
  }

  // MARK: Lane files

  /// The message has moved into a lane file, behind all that did before.
  func moves(_ sequence: UInt64) {
    guard let count = present[Key(sequence: sequence)] else { return }
    present[Key(sequence: sequence)] = nil
    moved.append(DeliveryCount(sequence: sequence, count: count.count))
  }

  /// The message was read back; whether it came back before. All before it have been.
  func opens(_ sequence: UInt64) -> Bool {
    if sequence > 0 { left(upTo: sequence - 1) }
    guard let first = moved.first, first.sequence == sequence else { return false }
    _ = moved.removeFirst()
    restore(first.count, of: sequence)
    return true
  }

  /// Messages in lane files up to this one have left for good.
  func left(upTo last: UInt64) {
    while let first = moved.first, first.sequence <= last { _ = moved.removeFirst() }
    if moved.isEmpty { moved.removeAll() }
  }

  // MARK: The log

  /// Recovery found a message of the log that came back.
  func restore(_ count: UInt32, of sequence: UInt64) {
    present[Key(sequence: sequence)] = Count(count: count, isDurable: true, isUnlogged: false)
  }

  /// Recovery found messages in lane files that came back, in their order.
  func restore(_ counts: [DeliveryCount]) {
    for count in counts { moved.append(count) }
  }

  /// Tells the log what it does not know, as far as `left` reaches; false if some is left.
  func log(to journal: Journal, lane: UInt32, _ left: inout Int) -> Bool {
    if Sabotage.is(.forgetsDeliveryCounts) { unlogged.removeAll() }
    while !unlogged.isEmpty {
      guard left > 0 else { return false }
      var counts: [DeliveryCount] = []
      while left > 0, counts.count < Self.recordMax, !unlogged.isEmpty {
        left -= 1
        let key = Key(sequence: unlogged.removeFirst())
        guard let count = present[key] else { continue }
        present[key]?.isUnlogged = false
        counts.append(DeliveryCount(sequence: key.sequence, count: count.count))
      }
      guard !counts.isEmpty else { continue }
      DeliveryCountsRecord.raw(lane: lane, counts: counts).append(to: journal)
    }
    unlogged.removeAll()
    return true
  }

  /// Where somebody goes on who looks at all of them.
  enum Place {
    case moved(behind: UInt64)
    case present(part: Int)
  }

  /// What is counted of durable messages, some of it; `place` becomes where to go on, nil at the end. Whoever
  /// goes on so sees each that is here all the time, and some twice: messages are read back meanwhile, but
  /// none moves.
  func some(from place: inout Place?) -> [DeliveryCount] {
    switch place {
    case .moved(let behind):
      let start = (0..<moved.count).partition { moved[$0].sequence <= behind }
      let end = min(moved.count, start + Self.recordMax)
      let counts = (start..<end).map { moved[$0] }
      place = end < moved.count ? .moved(behind: moved[end - 1].sequence) : .present(part: 0)
      return counts
    case .present(let part):
      guard part < present.partCount else {
        place = nil
        return []
      }
      place = .present(part: part + 1)
      return present.part(part).compactMap { key, count in
        count.isDurable ? DeliveryCount(sequence: key.sequence, count: count.count) : nil
      }
    case nil: return []
    }
  }
}

extension Lane {
  /// What that costs beside what it costs where nothing is counted: an entry of a table, or storing the
  /// message in other queues.
  var stepsToTakeBack: Int {
    guard let counts, !isDeleted else { return 0 }
    return counts.limit == nil ? 1 : 4
  }

  @inline(never)
  func takeBackCounted(_ entry: Entry) {
    guard let counts, !isDeleted else { return giveBack(entry) }
    let isLogged = entry.isDurable && journal.failure == nil
    guard counts.comesBack(entry, isLogged: isLogged) else {
      return queue.broker.deadLetters.buryLocked(entry, of: self, for: .deliveryLimit)
    }
    if isLogged { markUnlogged() }
    var entry = entry
    entry.flags.insert(.cameBack)
    giveBack(entry)
  }
}

extension DeliveryCount {
  package var text: String { "\(sequence)=\(count)" }
}

/// The properties of a message that came back, as it is delivered: with its count among the headers. Made in a
/// buffer that serves all.
struct CountedProperties: ~Copyable {
  private static let header: Name = "x-delivery-count"
  private var buffer = ByteBuffer()

  /// Valid until the next call. The properties as they are if they can have no more headers, or it never
  /// came back.
  mutating func of(
    _ properties: UnsafeRawBufferPointer, count: UInt32
  ) -> UnsafeRawBufferPointer {
    buffer.removeAll()
    guard count > 0,
      buffer.append(properties: properties.bytes, settingHeader: Self.header, to: Int64(count))
    else { return properties }
    return buffer.readable
  }
}
