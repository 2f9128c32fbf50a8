import AMQP
import Base

/// Has several consumers at a queue that serves one at a time: the first that came gets all, until it goes;
/// then the next.
final class SingleGuest: Guest {
  override class var name: String { "single" }

  private let queue: Name = "alone"
  private static let backlogMax = 40
  private static let consumersMax = 4
  /// Those of this life, in the order in which they came.
  private var consumers: [String] = []
  private var number = 0

  override func arrive() throws(BrokenPromise) {
    consumers = []
    try declare(queue, ["x-single-active-consumer": .bool(true)])
    try join()
  }

  private func join() throws(BrokenPromise) {
    number += 1
    let tag = "alone\(number)"
    consumers.append(tag)
    try consume(queue, tag: tag, prefetch: isFinishing ? 10 : random.choose([1, 3, 10]))
  }

  override func act() throws(BrokenPromise) {
    for parcel in ledger.all where parcel.isHeld && (isFinishing || random.oneIn(3)) {
      if !isFinishing, random.oneIn(5) { try giveBack(parcel) } else { try acknowledge(parcel) }
    }
    guard !isFinishing else { return }
    if consumers.count < Self.consumersMax, random.oneIn(8) { try join() }
    if consumers.count > 1, random.oneIn(10) {
      let tag = consumers.remove(at: random.number(0...consumers.count - 1))
      try cancel(Name(tag))
    }
    guard ledger.count < Self.backlogMax else { return }
    for _ in 0..<random.number(0...3) where random.flag() { try publish(to: "", key: queue) }
  }

  override func heard(_ arrival: Arrival, of parcel: Parcel) throws(BrokenPromise) {
    try promise(
      arrival.consumer == consumers.first || isTroubled, "one consumer is served at a time",
      "\(arrival.consumer) got p\(parcel.id), and \(consumers.first ?? "nobody") is to be served")
    let older = ledger.all.first { $0.isCertain && $0.id < parcel.id }
    try promise(
      older == nil || isTroubled, "messages leave a queue in its order",
      "p\(parcel.id) came before p\(older?.id ?? 0)")
  }
}
