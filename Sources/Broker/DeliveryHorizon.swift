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
/// What would break: a bound that is too high calls messages redelivered that nobody has seen,
/// which AMQP allows, a window of them at most. One that is taken for durable too early hides from
/// a consumer that another has had the message, and may have acted on it.
struct DeliveryHorizon: BitwiseCopyable {
  /// The log durably knows of everything up to here.
  private var durable: UInt64 = 0
  /// The log was told of everything up to here.
  private(set) var upTo: UInt64 = 0
  /// The log is durable as far as that when it has come here.
  private(set) var requestPosition = 0
  /// The highest sequence that was delivered.
  private var deliveredUpTo: UInt64 = 0
  /// How far ahead the log is told next time.
  private var window: UInt64 = 1
  /// Messages had to wait since the log was told last: the window was too small.
  private var isShort = false

  static let windowMax: UInt64 = 1 << 16

  init() {}

  /// What a log said that was just recovered.
  init(upTo: UInt64) {
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
    isShort = true
    return false
  }

  /// The log is durable up to `position`.
  mutating func reached(_ position: Int) {
    if position >= requestPosition { durable = upTo }
  }

  /// What the log is to be told before this sequence, or soon after it; nil if nothing.
  mutating func wants(_ sequence: UInt64) -> UInt64? {
    let isAhead = sequence <= upTo
    guard !isAhead || (durable == upTo && window > 1 && sequence + window / 2 > upTo) else {
      return nil
    }
    if isShort { window = min(window * 2, Self.windowMax) }
    isShort = false
    return (isAhead ? upTo + 1 : sequence) + window - 1
  }

  mutating func requested(_ sequence: UInt64, at position: Int) {
    upTo = sequence
    requestPosition = position
    durable = min(durable, sequence)
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
