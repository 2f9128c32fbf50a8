import AMQP
import Base

/// Publishes messages that are to come later: none comes early, none is lost or comes twice, and those that
/// were due while nobody was there come in the order of their times.
final class DelayGuest: Guest {
  override class var name: String { "delays" }

  private let exchange: Name = "later"
  private let queue: Name = "due"
  /// The queue that has what waits for its time.
  private let waiting: Name = "amq.delayed"
  private static let backlogMax = 60

  /// The latest time of what came for the first time, by the life in which it was published.
  private var latest: [Int: Int64] = [:]
  /// Published before this one, it may come later than its time says: something could not be read.
  private var firstOrderly = 0

  override func arrive() throws(BrokenPromise) {
    try checkCounts("after a start")
    try declare(
      exchange: exchange, "x-delayed-message", ["x-delayed-type": .string("fanout")])
    try declare(queue)
    try bind(queue, to: exchange)
    if isFinishing || !random.oneIn(4) {
      try consume(queue, tag: "due", prefetch: random.choose([1, 5, 50]))
    }
  }

  override func act() throws(BrokenPromise) {
    if isTroubled { firstOrderly = ledger.all.last.map { $0.id + 1 } ?? firstOrderly }
    try checkCounts("in a turn")
    for parcel in ledger.all where parcel.isHeld && (isFinishing || random.oneIn(3)) {
      if !isFinishing, random.oneIn(6) { try giveBack(parcel) } else { try acknowledge(parcel) }
    }
    guard !isFinishing, ledger.count < Self.backlogMax else { return }
    for _ in 0..<random.number(0...3) where random.flag() { try publish() }
  }

  private func publish() throws(BrokenPromise) {
    let delay = Int64(
      random.choose([0, 1, 2, 30, 200, 200, 300, 1500, 20_000, 20_000, 250_000, 3_600_000]))
    let jitter = delay > 100 && random.flag() ? Int64(random.number(0...100)) : 0
    var properties = BasicProperties()
    properties.headers = ["x-delay": .int64(delay + jitter)]
    try publish(to: exchange, key: "k", properties) {
      $0.fate.delay = delay + jitter
      $0.fate.due = now + delay + jitter
    }
  }

  override func heard(_ arrival: Arrival, of parcel: Parcel) throws(BrokenPromise) {
    try promise(
      hasCome(parcel.fate.due, for: parcel), "nothing delayed is delivered early",
      "p\(parcel.id), due at \(parcel.fate.due), came at \(arrival.date)")
    try promise(
      arrival.properties.headers?["x-delay"]?.integer == -parcel.fate.delay,
      "what was delayed says so", "p\(parcel.id)")
    guard !parcel.isSeen, parcel.fate.delay > 0 else { return }
    world.coverage.note(.delayedDeliveries)
    try checkOrder(parcel)
  }

  /// What was there when another became due, and was due before that, came before it.
  private func checkOrder(_ parcel: Parcel) throws(BrokenPromise) {
    if parcel.id >= firstOrderly {
      for (number, due) in latest where number >= parcel.lifeNumber {
        try promise(
          due <= parcel.fate.due, "what is delayed comes in the order of its times",
          "p\(parcel.id), due at \(parcel.fate.due), after one that was due at \(due)")
      }
    }
    latest[parcel.lifeNumber] = max(latest[parcel.lifeNumber] ?? 0, parcel.fate.due)
  }

  /// Nothing is lost, and nothing doubled, wherever it is.
  private func checkCounts(_ when: String) throws(BrokenPromise) {
    let count = readyCount(waiting) + readyCount(queue)
    let (certain, possible) = ledger.counts()
    try promise(
      count >= certain && count <= possible, "what is delayed is in exactly one place",
      "\(count) messages \(when), and \(certain) to \(possible) must be there")
    ledger.resolve(count)
  }

  override func rested() throws(BrokenPromise) {
    let (_, early) = ledger.counts { !hasPassed($0.fate.due, for: $0) }
    let count = readyCount(waiting)
    try promise(
      count <= early, "what is due comes",
      "\(count) wait at \(now), and \(early) are not due: \(contents)")
  }

  /// For whoever looks for the cause of a failure.
  private var contents: String {
    ledger.all.filter(\.isWaiting)
      .map { "p\($0.id)" + ($0.isUncertain ? "?" : "") + " \($0.fate.due - now)" }
      .joined(separator: ", ")
  }

  override var latestDue: Int64 {
    ledger.all.reduce(0) { max($0, $1.isGone ? 0 : $1.fate.due) }
  }
}
