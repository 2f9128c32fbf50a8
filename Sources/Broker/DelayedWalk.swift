import Base
import Journal

/// Goes over the messages of a virtual host that wait for their time, in slices.
///
/// It goes from place to place of the wheel, from the nearest time on, and from a coarse place to the finer ones that its
/// messages move to. So none is missed that moves meanwhile, as long as it waits; one that was seen in a
/// coarse place may be met again in a finer one. Blocks on disk are read back as it comes to them.
final class DelayedWalk {
  enum Step {
    /// There is more.
    case goesOn
    /// Something is to happen before: a block is being read, or messages are being moved.
    case waits
    case ended
  }

  private let vhost: VirtualHost
  private let selection: DelayedSelection
  private(set) var cursor: DelayedCursor
  /// The dates of the messages that are looked for, if they are; in order.
  private let dates: [Int64]?
  /// A block cannot be read: what is behind it in its place was not seen.
  private(set) var isIncomplete = false
  /// Where messages were looked at last.
  private(set) var last: (place: DelayWheel.Filled, lane: Lane)?

  private static let entriesAtOnce = 2048
  private static let entriesPerStep = 2
  /// To find the place.
  private static let stepsPerPlace = 16

  init(_ vhost: VirtualHost, _ selection: DelayedSelection, from cursor: DelayedCursor) {
    self.vhost = vhost
    self.selection = selection
    self.cursor = cursor
    dates = selection.ids.map { $0.map(\.due).sorted() }
  }

  /// Looks at some messages of one place, and shows `found` those that are meant, with their sequences, in order; it
  /// returns false if it has enough, and did not take what it was shown. They are in the lane of `last`.
  func advance(_ steps: inout Int, _ found: (MessageView, UInt64) -> Bool) -> Step {
    steps -= Self.stepsPerPlace
    guard let delays = vhost.delays else { return .ended }
    guard let next = delays.next(from: cursor.place) else { return .waits }
    guard let (filled, lane) = next else { return .ended }
    if filled != cursor.place { cursor = DelayedCursor(filled, behind: 0) }
    guard isWanted(filled) else { return skip() }
    let journal = vhost.broker.journal
    var missing: UInt32?
    var count = 0
    var isEnough = false
    let reading = lane.waiting.read(
      behind: cursor.behind, atMost: Self.entriesAtOnce, journal
    ) { entry in
      guard let record = journal.pointer(entry.location) else {
        missing = entry.location.block
        return false
      }
      count += 1
      let view = MessageView(record)
      if selection.matches(view), !found(view, entry.sequence) {
        isEnough = true
        return false
      }
      cursor.behind = entry.sequence
      return true
    }
    steps -= count / Self.entriesPerStep + lane.waiting.stepsToFind
    last = (filled, lane)
    if isEnough { return .ended }
    switch reading {
    case .end: return skip()
    case .needs(let block): return load(block, journal)
    case .cut: return missing.map { load($0, journal) } ?? .goesOn
    }
  }

  /// Goes on with what comes behind this place.
  private func skip() -> Step {
    cursor = DelayedCursor(cursor.place.next, behind: 0)
    return .goesOn
  }

  private func load(_ block: UInt32, _ journal: Journal) -> Step {
    guard journal.damage(of: block) == nil, !journal.hasFailed(block) else {
      isIncomplete = true
      return skip()
    }
    journal.load(block)
    return .waits
  }

  private func isWanted(_ filled: DelayWheel.Filled) -> Bool {
    guard let dates else { return true }
    // What was overdue when it came is at the time of then.
    let start = filled.level == 0 && filled.from <= vhost.broker.now ? Int64.min : filled.from
    let index = dates.indices.partition { dates[$0] < start }
    return index < dates.count && dates[index] < filled.end
  }
}
