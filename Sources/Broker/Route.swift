import Base

/// The queues that a message goes to, each once.
final class Route {
  /// Kept alive by the virtual host: any change of bindings or queues drops its routes.
  let queues: ContiguousArray<Unmanaged<Queue>>
  let count: Int
  let durableCount: Int
  /// As `count`, if none of the queues has settings: a message need only be put behind the others. Else
  /// more than any route has.
  let plainCount: Int
  /// An exchange or a filter on the way looks at the message: the route holds for this one only.
  let needsMessage: Bool
  /// It is the same for all keys.
  let isKeyless: Bool
  /// What is to be remembered of the message once it is stored.
  let remembrances: [Remembrance]
  /// Exchanges that keep the message.
  let keepers: [RecentMessages]
  /// An exchange on the way has dropped the message.
  let isRepeated: Bool

  init(_ walk: RouteWalk) {
    queues = walk.queues
    count = queues.count
    durableCount = walk.durableCount
    plainCount = walk.hasSettings ? .max : walk.queues.count
    needsMessage = walk.needsMessage
    isKeyless = walk.isKeyless
    remembrances = walk.remembrances
    keepers = walk.keepers
    isRepeated = walk.isRepeated
  }

  /// Those of some queues that are still there.
  init(
    those queues: ContiguousArray<Unmanaged<Queue>>.SubSequence,
    remembrances: [Remembrance] = [], keepers: [RecentMessages] = [],
    where isWanted: (Queue) -> Bool = { !$0.isDeleted }
  ) {
    self.queues = ContiguousArray(queues.filter { $0._withUnsafeGuaranteedRef(isWanted) })
    count = self.queues.count
    let hasSettings = self.queues.contains { $0._withUnsafeGuaranteedRef { $0.settings != nil } }
    plainCount = hasSettings ? .max : count
    durableCount = self.queues.count { $0._withUnsafeGuaranteedRef(\.isDurable) }
    needsMessage = false
    isKeyless = false
    self.remembrances = remembrances
    self.keepers = keepers
    isRepeated = false
  }

  var isPlain: Bool { plainCount == count }

  /// What it takes of the memory.
  var bytes: Int { 96 + queues.capacity * MemoryLayout<Unmanaged<Queue>>.stride }
}

/// The route that a channel used last: publishers mostly repeat themselves. Wide ones are not kept, so
/// that what a channel holds is bounded; beside so many queues, looking one up costs nothing.
struct RouteMemo: ~Copyable {
  private var names: UnsafeMutableRawPointer?
  private var namesSize = -1
  private var generation = -1
  private var route: Route?

  private static let namesSizeMax = 512
  private static let queuesMax = 64

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
    guard route.count <= Self.queuesMax else { return }
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
