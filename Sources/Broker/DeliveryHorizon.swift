/// How far a lane's durable messages may be delivered, so that after a crash `redelivered` is
/// never false for a message that a client has seen.
///
/// The log says "delivered up to S" (record 18) durably before a message with sequence S leaves the
/// queue. `covers` is the quick question for each message. When it says no, the queue asks `wants`
/// what to write, tells of it with `requested`, and asks `allows` whether the message may leave
/// already; if not the queue waits for the next commit, and `reached` moves the durable bound.
///
/// One record for each message would have each delivery wait for the disk. So the log is told
/// ahead, by a window: one message for a queue that is used now and then, doubled each time that
/// somebody had to wait, and told anew when half of it is left, so that a busy queue does not wait.
/// When nobody takes messages any more, `tightened` writes down what was really delivered.
///
/// What the broker itself moves into the lane (a dead letter, a message that was kept back) is moved once more
/// after a crash that came before the log had the move, and would then be a new message to whoever had it.
/// So nobody gets it before: `moves` says which it is, and `movesEnd` where the log has it.
///
/// What would break: a bound that is too high calls messages redelivered that nobody has seen,
/// which AMQP allows, a window of them at most. One that is taken for durable too early hides from
/// a consumer that another has had the message, and may have acted on it.
struct DeliveryHorizon: BitwiseCopyable {
  /// The log durably knows of everything up to here.
  private var known: UInt64 = 0
  /// As `known`, and what comes before the first move that is not durable: may be delivered.
  private var durable: UInt64 = 0
  /// Moves that may not be durable. As they never end while messages are moved all the time, those that come
  /// while others wait for the log are kept apart.
  private var moved = Moves()
  private var movedLater = Moves()
  /// The log was told of everything up to here.
  private(set) var upTo: UInt64 = 0
  /// The log is durable as far as that when it has come here.
  private var requestPosition = 0
  /// The highest sequence that was delivered.
  private var deliveredUpTo: UInt64 = 0
  /// How far ahead the log is told next time.
  private var window: UInt64 = 1
  /// Messages had to wait since the log was told last: the window was too small.
  private var isShort = false

  static let windowMax: UInt64 = 1 << 16

  private struct Moves: BitwiseCopyable {
    /// The sequence of the first; above all if there are none.
    var first: UInt64 = .max
    /// The log is durable as far as that when it has all of them; above all in the turn in which they come.
    var position = Int.max

    var isEmpty: Bool { first == .max }
  }

  init() {}

  /// What a log said that was just recovered.
  init(upTo: UInt64) {
    known = upTo
    durable = upTo
    self.upTo = upTo
    deliveredUpTo = upTo
  }

  /// May be delivered, and there is no need to tell the log of more yet.
  @inline(__always)
  func covers(_ sequence: UInt64) -> Bool {
    sequence <= durable && sequence &+ window / 2 <= upTo
  }

  /// May be delivered; otherwise it has to wait for the log.
  mutating func allows(_ sequence: UInt64) -> Bool {
    if sequence <= durable { return true }
    if sequence > known { isShort = true }
    return false
  }

  /// The log is durable up to `position`.
  mutating func reached(_ position: Int) {
    if position >= requestPosition { known = upTo }
    while !moved.isEmpty, position >= moved.position {
      moved = movedLater
      movedLater = Moves()
    }
    bound()
  }

  private mutating func bound() { durable = min(known, moved.first - 1) }

  /// The message that comes next is moved. Returns whether `movesEnd` is still to be called in this turn, and
  /// was not before.
  mutating func moves(to sequence: UInt64) -> Bool {
    if moved.isEmpty {
      moved.first = sequence
      bound()
      return true
    }
    if moved.position == .max { return false }
    let isNew = movedLater.isEmpty || movedLater.position < .max
    movedLater.first = min(movedLater.first, sequence)
    movedLater.position = .max
    return isNew
  }

  /// The log is durable as far as that when it has all moves so far.
  mutating func movesEnd(at position: Int) {
    if !moved.isEmpty { moved.position = min(moved.position, position) }
    if !movedLater.isEmpty { movedLater.position = min(movedLater.position, position) }
  }

  /// What the log is to be told before this sequence, or soon after it; nil if nothing.
  mutating func wants(_ sequence: UInt64) -> UInt64? {
    let isAhead = sequence <= upTo
    guard !isAhead || (known == upTo && window > 1 && sequence + window / 2 > upTo) else {
      return nil
    }
    if isShort { window = min(window * 2, Self.windowMax) }
    isShort = false
    return (isAhead ? upTo + 1 : sequence) + window - 1
  }

  mutating func requested(_ sequence: UInt64, at position: Int) {
    upTo = sequence
    requestPosition = position
    known = min(known, sequence)
    bound()
  }

  /// Where the log will be when more may be delivered.
  var awaitedPosition: Int {
    moved.isEmpty ? requestPosition : max(requestPosition, moved.position)
  }

  @inline(__always)
  mutating func delivered(_ sequence: UInt64) {
    if sequence > deliveredUpTo { deliveredUpTo = sequence }
  }

  /// What was really delivered, when the log was told of more; the window starts anew.
  mutating func tightened() -> UInt64? {
    window = 1
    isShort = false
    return upTo > deliveredUpTo ? deliveredUpTo : nil
  }
}
