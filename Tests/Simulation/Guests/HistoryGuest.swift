import AMQP
import Base
import Broker

/// Publishes to an exchange that keeps its last messages, and now and then binds a queue to it: that gets
/// exactly those, in their order, also when they were kept before a crash.
final class HistoryGuest: Guest {
  override class var name: String { "history" }

  private let exchange: Name = "past"
  private let queue: Name = "replay"
  private lazy var countMax = random.choose([1, 3, 8, 20])

  /// What the exchange was sent and knows for sure, and behind that what a crash left open: a first part of it.
  private var sure: [Int] = []
  private var open: [Int] = []
  /// Of this life.
  private var fresh: [Parcel] = []
  /// What the queue has got; nil while there is none.
  private var got: [Int]?

  override func arrive() throws(BrokenPromise) {
    got = nil
    try declare(
      exchange: exchange, "x-recent-history", ["x-recent-history-length": .int32(Int32(countMax))])
    try delete()
  }

  private func delete() throws(BrokenPromise) {
    try ask { (visit) throws(BrokerError) in
      guard visit.peer.vhost.hasQueue(queue) else { return }
      _ = try visit.peer.vhost.deleteQueue(
        queue, ifUnused: false, ifEmpty: false, on: visit.channel)
    }
  }

  override func act() throws(BrokenPromise) {
    if got != nil { return try look(isOver: false) }
    if open.isEmpty, !isFinishing, random.flag() {
      guard
        let parcel = try publish(to: exchange, key: "k", size: Parcel.sizeMin, isPersistent: true)
      else { return }
      // Nobody gets it; it is kept.
      ledger.forget(parcel)
      fresh.append(parcel)
    } else if !open.isEmpty || random.oneIn(8) {
      try replay()
    }
  }

  private func replay() throws(BrokenPromise) {
    got = []
    trace("binds a queue to what is kept")
    try declare(queue)
    try consume(queue, tag: "replay", prefetch: 0)
    try bind(queue, to: exchange)
  }

  override func mayEnd(_ consumer: String) -> Bool { true }
  override func isOwn(_ arrival: Arrival) -> Bool {
    trace("hears kept p\(arrival.id)")
    got?.append(arrival.id)
    return true
  }

  override func rested() throws(BrokenPromise) { if got != nil { try look(isOver: true) } }

  /// All has come when the queue is empty and what must come is there.
  private func look(isOver: Bool) throws(BrokenPromise) {
    guard let got, readyCount(queue) == 0 || isOver else { return }
    let certain = sure + fresh.map(\.id)
    guard isOver || got.count >= min(countMax, certain.count) else { return }
    let cut = (0...open.count).first { cut in
      got == (sure + open[..<cut] + fresh.map(\.id)).suffix(countMax)
    }
    // More may be underway.
    if cut == nil, !isOver { return }
    guard let cut else {
      throw BrokenPromise(
        "an exchange keeps its last messages",
        "\(got) came of \(sure.suffix(countMax)), perhaps \(open), and \(fresh.map(\.id))")
    }
    // What else may come belongs to a longer beginning.
    guard isOver || open.isEmpty || cut == open.count else { return }
    sure = (sure + open[..<cut]).suffix(2 * countMax)
    open = []
    self.got = nil
    try delete()
  }

  override var besides: Int { 2 * countMax }

  override func crashed(_ bound: DurableBound) {
    for parcel in fresh {
      if open.isEmpty, parcel.isSure(bound) {
        sure.append(parcel.id)
      } else {
        open.append(parcel.id)
      }
    }
    fresh = []
  }
}
