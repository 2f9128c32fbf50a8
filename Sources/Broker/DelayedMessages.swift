import AMQP
import Base
import Journal

/// What tells a message that waits for its time from all others, as long as it waits. It says when the message is due,
/// by which it is found.
public struct DelayedID: Hashable, Sendable {
  /// A date in wall-clock milliseconds.
  public let due: Int64
  let word: UInt64

  init(_ view: MessageView) {
    due = MessageDelay.due(view)
    word = view.waitingID
  }

  /// Reads what `text` writes.
  public init?(_ text: String) {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let due = Int64(parts[0], radix: 16), due >= 0, parts[1].count == 16,
      let word = UInt64(parts[1], radix: 16)
    else { return nil }
    self.due = due
    self.word = word
  }

  public var text: String {
    let digits = String(word, radix: 16)
    return String(due, radix: 16) + "-" + String(repeating: "0", count: 16 - digits.count) + digits
  }
}

/// A message that waits for its time.
public struct DelayedMessage {
  public let id: DelayedID
  public let exchange: Name
  public let key: Name
  /// Bytes of its body.
  public let bodySize: Int
  public let isPersistent: Bool

  init(_ view: MessageView) {
    id = DelayedID(view)
    let names = view.names
    (exchange, key) = RouteMemo.split(names.bytes)
    bodySize = view.bodySize
    isPersistent = MessageView.isPersistent(view.properties(behind: names).bytes)
  }
}

/// Which of those that wait are meant: all, if nothing is said.
public struct DelayedSelection: Sendable {
  /// The exchange that they wait at.
  public var exchange: Name?
  public var key: Name?
  /// Ends no later than that; a date.
  public var ids: Set<DelayedID>?

  public init() {}

  public var isAll: Bool { exchange == nil && key == nil && ids == nil }

  func matches(_ view: MessageView) -> Bool {
    if let ids, !ids.contains(DelayedID(view)) { return false }
    guard exchange != nil || key != nil else { return true }
    let names = RouteMemo.split(view.names.bytes)
    return exchange.map { $0 == names.exchange } ?? true && key.map { $0 == names.key } ?? true
  }
}

/// Where a walk over the messages that wait goes on: behind which message of which place.
public struct DelayedCursor: Sendable {
  var place: DelayWheel.Filled
  var behind: UInt64

  /// The beginning.
  public init() {
    place = DelayWheel.Filled(from: .min, level: DelayWheel.levelCount)
    behind = 0
  }

  /// Reads what `text` writes.
  public init?(_ text: String) {
    let parts = text.split(separator: ".")
    guard parts.count == 3, let from = Int64(parts[0]), let level = Int(parts[1]),
      -1..<DelayWheel.levelCount ~= level, let behind = UInt64(parts[2])
    else { return nil }
    self.init(DelayWheel.Filled(from: from, level: level), behind: behind)
  }

  init(_ place: DelayWheel.Filled, behind: UInt64) {
    self.place = place
    self.behind = behind
  }

  public var text: String { "\(place.from).\(place.level).\(behind)" }
}
