import AMQP
import Base

/// Publishes messages of different priorities: of what is there the highest comes first, and equal ones come
/// in their order, also right after a start.
final class PriorityGuest: Guest {
  override class var name: String { "priorities" }

  private let queue: Name = "ranked"
  private static let backlogMax = 60
  private lazy var highest = random.choose([1, 3, 10, 255])

  override func arrive() throws(BrokenPromise) {
    try checkCount("after a start")
    try declare(queue, ["x-max-priority": .int32(Int32(highest))])
    if isFinishing { try consume(queue, tag: "ranked", prefetch: 7) }
  }

  override func act() throws(BrokenPromise) {
    try checkCount("in a turn")
    guard !isFinishing else {
      for parcel in ledger.all where parcel.isHeld { try acknowledge(parcel) }
      return
    }
    if random.oneIn(10) { try toggle() }
    for parcel in ledger.all where parcel.isHeld && random.oneIn(3) {
      if random.oneIn(4) { try giveBack(parcel) } else { try acknowledge(parcel) }
    }
    guard ledger.count < Self.backlogMax else { return }
    for _ in 0..<random.number(0...3) where random.flag() { try publish() }
  }

  private var isConsuming = false
  private var consumingIn = 0

  /// A consumer comes or goes, so that messages gather.
  private func toggle() throws(BrokenPromise) {
    if isConsuming, consumingIn == lifeNumber {
      try cancel("ranked")
      isConsuming = false
    } else {
      try consume(queue, tag: "ranked", prefetch: random.choose([1, 2, 10]))
      (isConsuming, consumingIn) = (true, lifeNumber)
    }
  }

  private func publish() throws(BrokenPromise) {
    let wanted: UInt8? = random.choose([nil, 0, 1, 2, 5, 9, 200, 255])
    var properties = BasicProperties()
    properties.priority = wanted
    try publish(to: "", key: queue, properties) {
      $0.fate.priority = min(Int(wanted ?? 0), highest)
    }
  }

  override func heard(_ arrival: Arrival, of parcel: Parcel) throws(BrokenPromise) {
    guard !isTroubled else { return }
    for other in ledger.all where other.isCertain && other !== parcel {
      let isBefore =
        other.fate.priority > parcel.fate.priority
        || other.fate.priority == parcel.fate.priority && other.id < parcel.id
      try promise(
        !isBefore, "the highest priority comes first",
        "p\(parcel.id) of \(parcel.fate.priority) came before p\(other.id) of \(other.fate.priority)"
      )
    }
  }

  private func checkCount(_ when: String) throws(BrokenPromise) {
    let count = readyCount(queue)
    let (certain, possible) = ledger.counts()
    try promise(
      count >= certain && count <= possible, "counts are right",
      "\(count) messages \(when), and \(certain) to \(possible) must be there")
    ledger.resolve(count)
  }
}
