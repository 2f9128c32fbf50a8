import Base
import Journal

/// Messages that leave from the middle of a lane since their time is over before that of one in front of them.
///
/// Those in memory are known by their dates when one before them lives longer (`ExpiryOrder`, `EarlyTimes`,
/// `Returned`). A block on disk is known by its next date (`RunTimes`), and is read when that has come. Either
/// way what is found leaves where it stands: a place in memory that is passed over, or an exception of a block.
extension Lane {
  /// Messages of one block that leave in one go.
  private static let takenAtOnce = 128
  /// Blocks whose time has come that are being read at a time.
  private static let readAtOnce = 8
  /// Messages of a block that are looked at in a step.
  private static let looksPerStep = 8

  /// Appends a message whose block was retained for this entry, and that expires at a date.
  func enqueue(
    _ location: RecordLocation, flags: Entry.Flags, expiringAt date: Int64
  ) {
    if !hasReady, unacknowledgedCount == 0 { order.reset(before: nextSequence) }
    let isEarly = order.isEarly(date, of: nextSequence)
    guard isEarly else { return enqueue(location, flags: flags) }
    waiting.append(
      Entry(sequence: nextSequence, location: location, flags: flags), leavingAt: date)
    nextSequence &+= 1
  }

  /// When a message of a block leaves that is read back, if not when it is the first; nil if it expires with
  /// its queue's time or not at all.
  func earlyDate(of entry: Entry) -> Int64? {
    guard role == .ready, entry.expires, let record = journal.pointer(entry.location),
      MessageView(record).hasExpiration
    else { return nil }
    return expiry(of: record)
  }

  /// When a message leaves that is given back; the past if that is not known before it is read.
  func date(ofReturned entry: Entry) -> Int64 {
    guard role == .ready, entry.expires else { return Returned.never }
    return journal.pointer(entry.location).map { expiry(of: $0) } ?? 0
  }

  /// Somebody is to look for such messages, now or at some time.
  var hasEarly: Bool { nextEarly != nil || waiting.awaitedRunCount > 0 }

  /// When somebody is to look again for messages that leave from the middle, as a date; nil for never.
  var nextEarly: Int64? {
    let next = min(returned.earliest, waiting.nextEarly ?? Returned.never)
    return next == Returned.never ? nil : next
  }

  /// What became of looking for messages that leave from the middle.
  enum Early {
    /// There is none before this date; nil for never.
    case until(Int64?)
    /// More are to leave than steps reach for.
    case more
    /// A block has to be read, which the queue is told of.
    case away
  }

  /// Messages leave from the middle whose time is over, as far as the steps reach. Those that wait for the log
  /// are looked at again at `later`.
  func dropEarly(at now: Int64, keepingUntil later: Int64, _ steps: inout Int) -> Early {
    let letters = queue.broker.deadLetters
    while !isDeleted {
      guard steps > 0 else { return .more }
      let copies = letters.copies
      defer { steps -= letters.copies - copies }
      if let run = waiting.takeAwaitedRun({ !journal.isLoading($0) }) {
        drop(from: run, at: now, &steps)
        continue
      }
      guard let next = nextEarly, next <= now else { return .until(nextEarly) }
      if let entry = returned.removeDue(at: now, keeping: keptForLog) {
        steps -= Queue.stepsPerMessage
        guard leaveReturned(entry, at: now) else { return .away }
      } else if let entry = waiting.removeEarly(at: now, keeping: keptForLog, until: later) {
        steps -= Queue.stepsPerMessage
        guard leaveWaiting(entry, at: now) else { return .away }
      } else if waiting.awaitedRunCount == Self.readAtOnce {
        return .away
      } else if let run = waiting.takeDueRun(at: now) {
        drop(from: run, at: now, &steps)
      } else {
        // What was due waits for the log.
        return .until(later)
      }
    }
    return .until(nil)
  }

  private func leave(_ entry: Entry) {
    if entry.isCounted { uncount(entry) }
    queue.broker.bury(entry, of: self, for: .expired)
  }

  /// A message that waited. Bytes are counted off when it was read, and until then it is among those that were
  /// given back. False if it has to be read.
  private func leaveWaiting(_ entry: Entry, at now: Int64) -> Bool {
    guard entry.isCounted, journal.pointer(entry.location) == nil else {
      leave(entry)
      return true
    }
    var entry = entry
    if queue.broker.isWalking { queue.broker.walked(&entry, of: self) }
    return leaveReturned(entry, at: now)
  }

  /// A message that was given back, and whose date may be unknown. False if it has to be read.
  private func leaveReturned(_ entry: Entry, at now: Int64) -> Bool {
    guard let record = journal.pointer(entry.location) else {
      let block = entry.location.block
      journal.load(block)
      let comes = queue.awaits(block)
      // It is looked at when it was read; one that cannot be leaves when it is the first.
      returned.insert(entry, leavingAt: comes ? 0 : Returned.never)
      return !comes
    }
    let date = expiry(of: record)
    if date <= now { leave(entry) } else { returned.insert(entry, leavingAt: date) }
    return true
  }

  /// Messages of a block on disk leave, or it is read.
  private func drop(from run: LaneRun, at now: Int64, _ steps: inout Int) {
    guard journal.isResident(run.block) else {
      steps -= 1
      journal.load(run.block)
      if queue.awaits(run.block) { return waiting.awaits(run) }
      // It cannot be read, and is told of when it is the next one.
      let isDamaged = journal.damage(of: run.block) != nil
      return waiting.remove(
        [], of: run, lookingAgainAt: isDamaged ? nil : now + Broker.unreadableMilliseconds,
        gone: noteGone)
    }
    var gone: [Entry] = []
    var next = Int64.max
    var looks = 0
    waiting.forEachOf(run, journal) { moved in
      looks += 1
      guard let record = journal.pointer(moved.location), MessageView(record).hasExpiration else {
        return
      }
      let date = expiry(of: record)
      if date <= now, gone.count < Self.takenAtOnce {
        gone.append(passed(Entry(moved)))
      } else {
        next = min(next, date)
      }
    }
    steps -= looks / Self.looksPerStep + gone.count * Queue.stepsPerMessage
    waiting.remove(
      gone.map(\.sequence), of: run, lookingAgainAt: next == .max ? nil : max(next, now),
      gone: noteGone)
    for entry in gone { leave(entry) }
  }
}
