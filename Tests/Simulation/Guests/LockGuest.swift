import AMQP
import Base
import Broker

/// Takes messages that are its own for a while only: nothing is delivered again before that is over, what was
/// not answered then comes again, and an answer that comes too late does no harm.
final class LockGuest: Guest {
  override class var name: String { "locks" }

  private let queue: Name = "locked"
  private static let backlogMax = 40
  private lazy var milliseconds: Int64 = random.choose([50, 300, 2000, 7000])
  /// Not the delivery alone goes back, but the consumer ends.
  private lazy var endsConsumer = random.oneIn(3)
  private var consumingIn = 0
  /// The life in which it answered too late last.
  private var lateIn = 0
  /// A part of its time by which a lock may last longer, and a millisecond.
  private var graceMilliseconds: Int64 { milliseconds / 256 + 1 }

  override func arrive() throws(BrokenPromise) {
    let count = readyCount(queue)
    let (certain, possible) = ledger.counts()
    try promise(
      count >= certain && count <= possible, "counts are right",
      "\(count) messages after a start, and \(certain) to \(possible) must be there")
    ledger.resolve(count)
    let argument: Name = endsConsumer ? "x-consumer-timeout" : "x-lock-timeout"
    try declare(
      queue, FieldTable([FieldTable.Entry(name: argument, value: .int64(milliseconds))]))
    try consume()
  }

  private func consume() throws(BrokenPromise) {
    try consume(queue, tag: "locked", prefetch: random.choose([1, 4, 20]))
    consumingIn = lifeNumber
  }

  override func act() throws(BrokenPromise) {
    if consumingIn != lifeNumber { try consume() }
    for parcel in ledger.all where parcel.isHeld && (isFinishing || random.oneIn(6)) {
      switch isFinishing ? 9 : random.number(0...9) {
      case 0: try prolong(parcel)
      case 1:
        guard !isOver(parcel) else { break }
        try giveBack(parcel)
      default: try answer(parcel)
      }
    }
    guard !isFinishing, ledger.count < Self.backlogMax else { return }
    for _ in 0..<random.number(0...2) where random.flag() { try publish(to: "", key: queue) }
  }

  /// Its lock may have ended.
  private func isOver(_ parcel: Parcel) -> Bool { time >= parcel.fate.since + milliseconds }

  private func answer(_ parcel: Parcel) throws(BrokenPromise) {
    let isLate = isOver(parcel)
    try acknowledge(parcel)
    // It was ignored, or not.
    guard isLate, parcel.isGone else { return }
    ledger.wasRevived(parcel)
    lateIn = lifeNumber
  }

  private func prolong(_ parcel: Parcel) throws(BrokenPromise) {
    guard case .held(let tag) = parcel.place, !isOver(parcel) else { return }
    let isDone = try ask { (visit) throws(BrokerError) in
      try visit.publish(to: Name("amq.lock.\(tag)"))
    }
    guard isDone else { return }
    trace("prolongs p\(parcel.id)")
    parcel.fate.since = time
  }

  override func isUnlocked(_ parcel: Parcel, at time: Int64) -> Bool {
    time >= parcel.fate.since + milliseconds
      || endsConsumer && consumingIn != lifeNumber
  }

  override func heard(_ arrival: Arrival, of parcel: Parcel) throws(BrokenPromise) {
    if parcel.isHeld { world.coverage.note(.locksOver) }
    parcel.fate.since = arrival.time
  }

  override func consumerTimedOut(_ tag: String) throws(BrokenPromise) {
    let oldest = ledger.all.filter(\.isHeld).map(\.fate.since).min() ?? .max
    try promise(
      endsConsumer && (time >= oldest + milliseconds || lateIn == lifeNumber),
      "a consumer ends when it has not answered in time",
      "\(tag) at \(time), the oldest since \(oldest), for \(milliseconds) ms")
    consumingIn = 0
    for parcel in ledger.all where parcel.isHeld { ledger.wasGivenBack(parcel) }
  }

  override func rested() throws(BrokenPromise) {
    let time = time
    let late = ledger.all.count {
      $0.isHeld && time > $0.fate.since + milliseconds + graceMilliseconds
    }
    let count = readyCount(queue)
    let (certain, _) = ledger.counts()
    try promise(
      count >= certain + late, "what was not answered in time is there again",
      "\(count) messages are ready, and \(certain) and \(late) whose time is over must be")
  }
}
