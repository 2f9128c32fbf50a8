import AMQP
import Base
import Filters

/// Sends each message to one of an exchange's bindings. One whose filter is not true of the message, or that
/// leads to what is deleted, is passed over for the next.
final class Balancer {
  private enum Way {
    /// Each binding has points on the ring in proportion to its weight. A message looks from some places of
    /// the ring, which its hash says, and takes the point that is nearest behind any of them.
    case weighted(HashSource)
    /// Each binding has one point on the ring. A message's hash, modulo their number, is the point's number.
    case counted
    case random
  }

  private let way: Way
  private var ring = BindingRing()
  /// The bindings where chance decides.
  private var pool = BindingPool()
  private var chance: UInt64

  /// Points for a weight of one, and places from which a message looks. So the shares of equal bindings are
  /// about 4 % apart; a ring with one place each would need five hundred points for that.
  private static let pointsPerWeight = 32
  private static let looks = 8
  /// Points that are passed over at the price of a look-up.
  private static let pointsPerStep = 16
  /// Points that come or go at the price of a chore's step.
  private static let changedPointsPerStep = 2

  /// Nil for an exchange whose messages go to all bindings that fit.
  init?(_ kind: Exchange.Kind, _ arguments: FieldTable, seed: UInt64) {
    chance = seed
    switch kind {
    case .direct, .fanout, .topic, .headers, .deduplication, .recentHistory: return nil
    case .consistentHash: way = .weighted(HashSource(arguments))
    case .modulusHash: way = .counted
    case .random, .localRandom: way = .random
    }
  }

  /// What it takes of the memory, besides its bindings.
  var bytes: Int { ring.bytes + pool.bytes }

  /// It chooses by more than the routing key.
  var needsMessage: Bool {
    switch way {
    case .weighted(.key), .counted: false
    case .weighted(.header), .weighted(.property), .random: true
    }
  }

  // MARK: Bindings

  /// The weight that a binding's key says, from 1 to the limit.
  static func weight(_ key: Name) throws(BrokerError) -> Int {
    guard let weight = Int(key.description) else {
      let told = key.isEmpty ? "" : "\"\(key)\""
      throw .refusedBinding(reason: "The binding key must be an integer: <<\(told)>>")
    }
    guard weight >= 1 else {
      throw .refusedBinding(reason: "The binding key must be greater than 0")
    }
    guard weight <= BrokerLimits.hashWeightMax else {
      throw .limitReached(.hashWeight(weight, max: BrokerLimits.hashWeightMax))
    }
    return weight
  }

  /// What adding or removing a binding costs beyond what any binding does, in steps of a chore.
  func steps(for binding: Binding) -> Int {
    switch way {
    case .weighted:
      (Int(binding.key.description) ?? 0) * Self.pointsPerWeight / Self.changedPointsPerStep
    case .counted, .random: 0
    }
  }

  func add(_ binding: Binding) {
    switch way {
    case .weighted: forEachPoint(of: binding) { ring.add(binding, at: $0) }
    case .counted: ring.add(binding, at: Self.seed(of: binding))
    case .random: pool.add(binding)
    }
  }

  func remove(_ binding: Binding) {
    switch way {
    case .weighted: forEachPoint(of: binding) { ring.remove(binding, at: $0) }
    case .counted: ring.remove(binding, at: Self.seed(of: binding))
    case .random: pool.remove(binding)
    }
  }

  /// One point at chance in each of as many equal parts of the ring as the binding has points. They
  /// follow from the destination's name and the key alone, so that they are the same after a restart.
  private func forEachPoint(of binding: Binding, _ body: (UInt64) -> Void) {
    let seed = Self.seed(of: binding) &+ (Sabotage.is(.movesKeys) ? UInt64(ring.count) : 0)
    let weight: Int
    do throws(BrokerError) {
      weight = try Self.weight(binding.key)
    } catch {
      invariantFailed("a binding has no weight: \(binding.key)")
    }
    let count = UInt64(weight * Self.pointsPerWeight)
    let part = UInt64.max / count
    for number in 0..<count {
      let within = StableHash.mix(seed &+ number).multipliedFullWidth(by: part).high
      body(number * part + within)
    }
  }

  private static func seed(of binding: Binding) -> UInt64 {
    let kind: UInt64 = binding.destination.isExchange ? 1 : 0
    let name = binding.destination.name.bytes.withUnsafeBytes { StableHash.hash($0, seed: kind) }
    return binding.key.bytes.withUnsafeBytes { StableHash.hash($0, seed: name) }
  }

  // MARK: Messages

  func match(_ key: Name, _ message: FilteredMessage, _ walk: inout RouteWalk) {
    switch way {
    case .weighted(let source):
      guard !ring.isEmpty else { return }
      take(from: nearest(source.hash(key, message, &walk)), message, &walk)
    case .counted:
      guard !ring.isEmpty else { return }
      let hash = HashSource.key.hash(key, message, &walk)
      take(from: ring.place(ofRank: Int(hash % UInt64(ring.count))), message, &walk)
    case .random: takeAny(message, &walk)
    }
  }

  private func takeAny(_ message: FilteredMessage, _ walk: inout RouteWalk) {
    let count = pool.count
    guard count > 0 else { return }
    chance &+= 0x9E37_79B9_7F4A_7C15
    var index = Int(StableHash.mix(chance).multipliedFullWidth(by: UInt64(count)).high)
    for _ in 0..<count {
      switch walk.choose(pool[index], for: message) {
      case .taken, .ended: return
      case .passed: index = index + 1 == count ? 0 : index + 1
      }
    }
  }

  private func nearest(_ hash: UInt64) -> BindingRing.Place {
    var look = StableHash.mix(hash)
    var nearest = ring.place(behind: look)
    var distance = ring.position(nearest) &- look
    for _ in 1..<Self.looks {
      look = StableHash.mix(look)
      let place = ring.place(behind: look)
      guard ring.position(place) &- look < distance else { continue }
      nearest = place
      distance = ring.position(place) &- look
    }
    return nearest
  }

  /// The binding at a place of the ring gets the message, or the next one that can have it.
  private func take(
    from first: BindingRing.Place, _ message: FilteredMessage, _ walk: inout RouteWalk
  ) {
    var passed: Set<ObjectIdentifier> = []
    var place = first
    for number in 1...ring.count {
      let binding = ring.binding(place)
      if passed.isEmpty || !passed.contains(ObjectIdentifier(binding)) {
        switch walk.choose(binding, for: message) {
        case .taken, .ended: return
        case .passed: passed.insert(ObjectIdentifier(binding))
        }
      }
      guard number % Self.pointsPerStep != 0 || walk.step() else { return }
      place = ring.next(place)
    }
  }
}
