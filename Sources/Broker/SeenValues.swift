import Base

/// The values of messages that came lately to an exchange or a queue, the oldest of which are forgotten when
/// there are too many or too much memory goes to such values.
final class SeenValues {
  /// Whose values they are, as the log says it.
  struct Holder: Equatable {
    let id: UInt32
    let isQueue: Bool
    /// Survives a restart, and so do the values.
    let isDurable: Bool
  }

  let holder: Holder
  let wanted: Deduplication
  // Unsafe but sound: the broker outlives all exchanges and queues.
  private unowned(unsafe) let broker: Broker
  private var values: SpreadDictionary<Form, SeenValue> = SpreadDictionary()
  // Unsafe but sound: both are in `values`.
  private unowned(unsafe) var oldest: SeenValue?
  private unowned(unsafe) var newest: SeenValue?
  private var isForgotten = false

  private struct Form: SpreadKey {
    let bytes: [UInt8]
    var spread: UInt64 { bytes.withUnsafeBytes { SeededHash.hash($0) } }
  }

  /// What a value takes of memory besides its own bytes.
  private static let valueBytes = 160
  /// So many of the oldest go at once while too much memory is used for values.
  private static let forgottenAtOnce = 2

  init(_ holder: Holder, _ wanted: Deduplication, _ broker: Broker) {
    self.holder = holder
    self.wanted = wanted
    self.broker = broker
  }

  var count: Int { values.count }

  /// A message with this value came, and it is not too long ago.
  func has(_ value: [UInt8], now: Int64) -> Bool {
    guard !isForgotten, let seen = values[Form(bytes: value)] else { return false }
    return seen.isRemembered(at: now)
  }

  /// Remembers a value from now on; `until` is a date, or 0.
  func remember(_ value: [UInt8], until: Int64, now: Int64) {
    guard !isForgotten else { return }
    if let known = values[Form(bytes: value)] {
      unlink(known)
      known.until = until
      link(known)
    } else {
      let new = SeenValue(value, until: until)
      values[Form(bytes: value)] = new
      link(new)
      broker.account.add(Self.bytes(of: new), to: .remembered)
    }
    if values.count > wanted.sizeMax { forgetOldest() }
    for _ in 0..<Self.forgottenAtOnce {
      guard let oldest, oldest !== newest else { return }
      guard !oldest.isRemembered(at: now) || broker.account.isOverBudget(.remembered) else {
        return
      }
      forgetOldest()
    }
  }

  /// All of them, the oldest first.
  var all: [SeenValue] {
    var all: [SeenValue] = []
    all.reserveCapacity(values.count)
    var next = oldest
    while let seen = next {
      all.append(seen)
      next = seen.newer
    }
    return all
  }

  /// Its holder is gone.
  func forgetAll() {
    isForgotten = true
    oldest = nil
    newest = nil
    if broker.isRecovering {
      while forgetSome() > 0 {}
    } else {
      broker.chores.begin(Forgetting(self), for: nil)
    }
  }

  /// Some of the values go, now that its holder is gone; returns how many.
  func forgetSome() -> Int {
    invariant(isForgotten, "values are forgotten whose holder is there")
    let some = values.removeSome()
    broker.account.add(-some.reduce(0) { $0 + Self.bytes(of: $1) }, to: .remembered)
    return some.count
  }

  private func forgetOldest() {
    guard let oldest else { return }
    unlink(oldest)
    broker.account.add(-Self.bytes(of: oldest), to: .remembered)
    values[Form(bytes: oldest.value)] = nil
  }

  private static func bytes(of seen: SeenValue) -> Int { valueBytes + seen.value.count }

  private func link(_ seen: SeenValue) {
    seen.older = newest
    seen.newer = nil
    newest?.newer = seen
    newest = seen
    if oldest == nil { oldest = seen }
  }

  private func unlink(_ seen: SeenValue) {
    if let older = seen.older { older.newer = seen.newer } else { oldest = seen.newer }
    if let newer = seen.newer { newer.older = seen.older } else { newest = seen.older }
  }
}

/// One value, in the order in which they came.
final class SeenValue {
  let value: [UInt8]
  /// A date from which on it is forgotten, or 0.
  fileprivate(set) var until: Int64
  // Unsafe but sound: the dictionary keeps all that are linked.
  fileprivate unowned(unsafe) var older: SeenValue?
  fileprivate unowned(unsafe) var newer: SeenValue?

  fileprivate init(_ value: [UInt8], until: Int64) {
    self.value = value
    self.until = until
  }

  fileprivate func isRemembered(at now: Int64) -> Bool { until == 0 || now < until }
}
