import Base

/// An exchange on a message's way that keeps it back.
struct DelayingExchange {
  let name: Name
  let vhost: VirtualHost
  let milliseconds: Int64
}

/// What becomes of a message on its way, besides reaching destinations.
struct RouteEffects {
  /// Exchanges where it waits for its time.
  var delaying: [DelayingExchange] = []
  /// What is to be remembered of it once it is stored.
  var remembrances: [Remembrance] = []
  /// Exchanges that keep it.
  var keepers: [RecentMessages] = []
  /// An exchange has dropped it.
  var isRepeated = false
}

/// The destinations that a message goes to, each once.
final class Route {
  /// Kept alive by the virtual host: any change of bindings or destinations drops its routes.
  let destinations: ContiguousArray<Unmanaged<Destination>>
  let count: Int
  let durableCount: Int
  /// Those that keep messages which need not survive as well as others.
  let keepingCount: Int
  /// As `count`, if all are plain: a message need only be put behind the others. Else more than any route
  /// has.
  let plainCount: Int
  /// One may have no room for a message, or not want it again.
  let mayRefuse: Bool
  /// An exchange or a filter on the way looks at the message, or it is traced: the route holds for this one
  /// only.
  let needsMessage: Bool
  /// It is the same for all keys.
  let isKeyless: Bool
  /// What becomes of the message on its way, besides reaching destinations.
  let effects: RouteEffects

  /// To none.
  static var nowhere: Route { Route(those: []) }

  init(_ walk: RouteWalk) {
    destinations = walk.destinations
    count = destinations.count
    durableCount = walk.durableCount
    keepingCount = walk.isPlain ? 0 : Self.keepingCount(destinations)
    plainCount = walk.isPlain ? walk.destinations.count : .max
    mayRefuse = !walk.isPlain && Self.mayRefuse(destinations)
    needsMessage = walk.needsMessage
    isKeyless = walk.isKeyless
    effects = walk.effects
  }

  /// Those of some queues that are still there.
  init(
    those all: ContiguousArray<Unmanaged<Destination>>.SubSequence,
    effects: RouteEffects = RouteEffects(),
    where isWanted: (Destination) -> Bool = { !$0.isDeleted }
  ) {
    self.effects = effects
    let destinations = ContiguousArray(all.filter { $0._withUnsafeGuaranteedRef(isWanted) })
    self.destinations = destinations
    count = destinations.count
    let isPlain = destinations.allSatisfy { $0._withUnsafeGuaranteedRef(\.isPlain) }
    plainCount = isPlain ? count : .max
    mayRefuse = !isPlain && Self.mayRefuse(destinations)
    durableCount = destinations.count { $0._withUnsafeGuaranteedRef(\.isDurable) }
    keepingCount = isPlain ? 0 : Self.keepingCount(destinations)
    needsMessage = false
    isKeyless = false
  }

  private static func mayRefuse(_ all: ContiguousArray<Unmanaged<Destination>>) -> Bool {
    all.contains { $0._withUnsafeGuaranteedRef(\.mayRefuse) }
  }

  private static func keepingCount(_ all: ContiguousArray<Unmanaged<Destination>>) -> Int {
    all.count { $0._withUnsafeGuaranteedRef(\.keepsAll) }
  }

  /// How many of the destinations the log is told of, for a message that is to survive or not.
  @inline(__always)
  func placeCount(isPersistent: Bool) -> Int { isPersistent ? durableCount : keepingCount }

  /// The same with these of the destinations only.
  func only(_ isWanted: (Destination) -> Bool) -> Route {
    Route(those: destinations[...], effects: effects, where: isWanted)
  }

  var isPlain: Bool { plainCount == count }

  /// It leads nowhere, and nobody keeps the message.
  var isEmpty: Bool { count == 0 && delaying.isEmpty && keepers.isEmpty }

  var delaying: [DelayingExchange] { effects.delaying }
  var remembrances: [Remembrance] { effects.remembrances }
  var keepers: [RecentMessages] { effects.keepers }
  var isRepeated: Bool { effects.isRepeated }

  /// What it takes of the memory.
  var bytes: Int { 96 + destinations.capacity * MemoryLayout<Unmanaged<Destination>>.stride }
}

/// The route that a channel used last: publishers mostly repeat themselves. Wide ones are not kept, so
/// that what a channel holds is bounded; beside so many destinations, looking one up costs nothing.
struct RouteMemo: ~Copyable {
  private var names: UnsafeMutableRawPointer?
  private var namesSize = -1
  private var generation = -1
  private var route: Route?

  private static let namesSizeMax = 512
  private static let destinationsMax = 64

  init() {}

  deinit {
    names?.deallocate()
  }

  @inline(__always)
  func find(_ key: RawSpan, generation: Int) -> Route? {
    guard namesSize == key.byteCount, self.generation == generation else { return nil }
    let isSame = key.withUnsafeBytes { bytes in
      Self.equal(bytes.baseAddress.unsafelyUnwrapped, names.unsafelyUnwrapped, bytes.count)
    }
    return isSame ? route : nil
  }

  mutating func remember(_ key: RawSpan, _ route: Route, generation: Int) {
    guard route.count <= Self.destinationsMax else { return }
    let buffer =
      names ?? UnsafeMutableRawPointer.allocate(byteCount: Self.namesSizeMax, alignment: 8)
    names = buffer
    key.withUnsafeBytes { bytes in
      buffer.copyMemory(from: bytes.baseAddress.unsafelyUnwrapped, byteCount: bytes.count)
    }
    namesSize = key.byteCount
    self.generation = generation
    self.route = route
  }

  /// Exchange and routing key of the bytes that hold both, each with its length in front.
  static func split(_ names: RawSpan) -> (exchange: Name, key: Name) {
    let exchange = Int(names.unsafeLoad(fromByteOffset: 0, as: UInt8.self))
    let key = Int(names.unsafeLoad(fromByteOffset: 1 + exchange, as: UInt8.self))
    return (
      Name(copying: names.extracting(1..<1 + exchange)),
      Name(copying: names.extracting(2 + exchange..<2 + exchange + key))
    )
  }

  @inline(__always)
  private static func equal(
    _ left: UnsafeRawPointer, _ right: UnsafeMutableRawPointer, _ count: Int
  ) -> Bool {
    var offset = 0
    while offset &+ 8 <= count {
      let difference =
        left.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        ^ right.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      if difference != 0 { return false }
      offset &+= 8
    }
    while offset < count {
      if left.load(fromByteOffset: offset, as: UInt8.self)
        != right.load(fromByteOffset: offset, as: UInt8.self)
      {
        return false
      }
      offset &+= 1
    }
    return true
  }
}
