import AMQP
import Base

/// Publishes to exchanges that send each message to one of their bindings: one queue gets it, and where a hash
/// says which, a key's messages go to the same one in all lives.
final class BalanceGuest: Guest {
  override class var name: String { "balance" }

  private let queues: [Name] = ["share0", "share1", "share2", "share3"]
  private static let backlogMax = 60
  private static let keys = 24
  private lazy var exchange: (name: Name, type: Name, isFixed: Bool) = random.choose([
    ("ring", "x-consistent-hash", true), ("ring", "x-consistent-hash", true),
    ("modulus", "x-modulus-hash", true), ("dice", "x-random", false),
  ])
  /// The queue of each key.
  private var places: [Int: String] = [:]

  override func arrive() throws(BrokenPromise) {
    try checkCount("after a start")
    try declare(exchange: exchange.name, exchange.type)
    for (index, queue) in queues.enumerated().shuffled(using: &random) {
      try declare(queue)
      try bind(queue, to: exchange.name, key: Name(String(1 + index % 3)))
      if isFinishing || random.flag() {
        try consume(queue, tag: queue.description, prefetch: 5)
      }
    }
  }

  override func act() throws(BrokenPromise) {
    try checkCount("in a turn")
    for parcel in ledger.all where parcel.isHeld && (isFinishing || random.oneIn(3)) {
      try acknowledge(parcel)
    }
    guard !isFinishing, ledger.count < Self.backlogMax else { return }
    for _ in 0..<random.number(0...3) where random.flag() {
      let key = random.number(1...Self.keys)
      try publish(to: exchange.name, key: Name("key-\(key)")) { $0.fate.value = key }
    }
  }

  private func checkCount(_ when: String) throws(BrokenPromise) {
    let count = queues.reduce(0) { $0 + readyCount($1) }
    let (certain, possible) = ledger.counts()
    try promise(
      count >= certain && count <= possible, "one queue of several gets a message",
      "\(count) messages \(when), and \(certain) to \(possible) must be there")
    ledger.resolve(count)
  }

  override func heard(_ arrival: Arrival, of parcel: Parcel) throws(BrokenPromise) {
    guard exchange.isFixed else { return }
    let place = places[parcel.fate.value] ?? arrival.consumer
    try promise(
      place == arrival.consumer, "a key keeps its queue",
      "p\(parcel.id) with key \(parcel.fate.value) went to \(arrival.consumer), not \(place)")
    places[parcel.fate.value] = place
  }
}
