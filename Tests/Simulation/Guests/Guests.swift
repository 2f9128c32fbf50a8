import Arbitrary
import Base

/// The guests of a run: those that were asked for, or some that its seed chooses.
final class Guests {
  static let kinds: [Guest.Type] = [
    DelayGuest.self, ExpiryGuest.self, PriorityGuest.self, LockGuest.self, BalanceGuest.self,
    SingleGuest.self, HistoryGuest.self,
  ]

  static let any = "any"

  private var all: [Guest] = []
  private static let countMax = 3

  /// `wanted` names them; `any` leaves them to the seed.
  func choose(for world: World, seed: UInt64, wanted: Set<String>) {
    var random = SeededGenerator(seed: seed ^ 0x6E57_5000)
    var kinds = Self.kinds.shuffled(using: &random)
    if wanted.contains(Self.any) {
      guard world.may(.settings) else { return }
      kinds = Array(kinds.prefix(random.number(1...Self.countMax)))
    } else {
      kinds = kinds.filter { wanted.contains($0.name) }
    }
    all = kinds.map { $0.init(world, SeededGenerator(seed: random.next())) }
  }

  // MARK: Lives

  func begin(_ life: Life) throws(BrokenPromise) {
    for guest in all {
      try guest.begin(life)
      try guest.check()
    }
  }

  func leave() { for guest in all { guest.leave() } }
  func ended(_ life: Life) { for guest in all { guest.ended(at: life.broker.now) } }

  func act() throws(BrokenPromise) {
    for guest in all {
      try guest.check()
      if guest.isServed { try guest.act() }
      try guest.check()
    }
  }

  /// One of them is to be given what it could not get for want of room in the broker's output.
  var isHeldBack: Bool { all.contains(where: \.isHeldBack) }
  func makeRoom() { for guest in all { guest.makeRoom() } }

  func rested() throws(BrokenPromise) {
    for guest in all where guest.isServed { try guest.rested() }
  }

  func logged(before position: Int) { for guest in all { guest.logged(before: position) } }

  func crash(_ bound: DurableBound) { for guest in all { guest.crash(bound) } }

  // MARK: What they have

  var isEmpty: Bool { all.isEmpty }
  /// Messages that may be with the broker.
  var alive: [Parcel] { all.flatMap(\.ledger.all) }
  var besides: Int { all.reduce(0) { $0 + $1.besides } }
  /// When all that waits has become due.
  var latestDue: Int64 { all.reduce(0) { max($0, $1.latestDue) } }

  func finish() { for guest in all { guest.isFinishing = true } }

  /// What must still come.
  var firstMissing: (guest: String, parcel: Parcel)? {
    for guest in all {
      if let parcel = guest.ledger.all.first(where: { $0.isHeld || $0.isCertain }) {
        return (guest.name, parcel)
      }
    }
    return nil
  }
}
