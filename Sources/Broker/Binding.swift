import AMQP
import Base
import Filters

/// Where a binding leads.
enum BindingEnd {
  case destination(Destination)
  case exchange(Exchange)

  var id: UInt32 {
    switch self {
    case .destination(let destination): destination.id
    case .exchange(let exchange): exchange.id
    }
  }

  var name: Name {
    switch self {
    case .destination(let destination): destination.name
    case .exchange(let exchange): exchange.name
    }
  }

  var isExchange: Bool { if case .exchange = self { true } else { false } }

  var isDurable: Bool {
    switch self {
    case .destination(let destination): destination.isDurable
    case .exchange(let exchange): exchange.isDurable
    }
  }

  var isDeleted: Bool {
    switch self {
    case .destination(let destination): destination.isDeleted
    case .exchange(let exchange): exchange.isDeleted
    }
  }

  /// See `Dependents.count`.
  func countDependents(atMost limit: Int) -> [(exchange: Exchange, count: Int)]? {
    switch self {
    case .destination(let destination): destination.dependents.count(atMost: limit)
    case .exchange(let exchange): exchange.dependents.count(atMost: limit)
    }
  }

  /// It is deleted, and each exchange with bindings to it that goes with its last one has them in its
  /// `leavingCount`.
  var isCountedAsLeaving: Bool {
    switch self {
    case .destination(let destination): destination.dependents.areCounted
    case .exchange(let exchange): exchange.dependents.areCounted
    }
  }
}

/// A row of the binding table: messages of an exchange with a key, or with headers, go to a queue, a stream
/// or another exchange.
final class Binding {
  // Unsafe but sound: a deleted exchange is kept by `Unbinding` until its bindings are taken out.
  unowned(unsafe) let source: Exchange
  let destination: BindingEnd
  let key: Name
  /// As they are on the wire, with their length; nothing if there are none.
  let arguments: [UInt8]
  /// Of all that tells it from other bindings of its source.
  let hash: UInt64
  /// Where it stands in its destination's list, so that it is removed without a search.
  fileprivate(set) var place = 0
  /// What it asks of headers, until the source's index has it.
  private(set) var predicate: HeadersPredicate?
  /// Its row in the index of a headers exchange.
  var row: HeadersRow?
  /// What must be true of a message besides.
  let filter: Filter?
  /// Where it stands among bindings with filters of the same place in its source's router, or in its
  /// source's `BindingPool`.
  var routerPlace = 0
  /// Taken out of both of its ends.
  var isGone = false

  /// A binding that may be added, or the mistake in its arguments.
  convenience init(
    source: Exchange, destination: BindingEnd, key: Name, arguments: FieldTable
  ) throws(BrokerError) {
    var predicate: HeadersPredicate?
    switch source.kind {
    case .direct, .fanout, .topic, .modulusHash, .random, .deduplication, .recentHistory: break
    case .headers: predicate = try HeadersPredicate(arguments)
    case .consistentHash: _ = try Balancer.weight(key)
    case .localRandom: try Self.checkLocal(destination, key)
    }
    let filter = try Filter.wanted(by: arguments, of: .binding)
    self.init(
      source: source, destination: destination, key: key, arguments: arguments, filter: filter)
    self.predicate = predicate
  }

  /// Queues are on a node, and are bound without a key.
  private static func checkLocal(_ destination: BindingEnd, _ key: Name) throws(BrokerError) {
    guard key.isEmpty else {
      throw .refusedBinding(reason: "Non empty binding '\(key)' key not permitted")
    }
    guard !destination.isExchange else {
      throw .refusedBinding(reason: "Destination not found")
    }
  }

  /// One to look for that is the same.
  convenience init(
    unchecked source: Exchange, destination: BindingEnd, key: Name, arguments: FieldTable
  ) {
    self.init(
      source: source, destination: destination, key: key, arguments: arguments, filter: nil)
  }

  private init(
    source: Exchange, destination: BindingEnd, key: Name, arguments: FieldTable, filter: Filter?
  ) {
    self.source = source
    self.filter = filter
    self.destination = destination
    self.key = key
    var bytes: [UInt8] = []
    if !arguments.isEmpty {
      var buffer = ByteBuffer()
      buffer.append(arguments)
      bytes = Array(buffer.readable)
    }
    self.arguments = bytes
    let ends = UInt64(destination.id) << 1 | (destination.isExchange ? 1 : 0)
    hash =
      key.spread ^ bytes.withUnsafeBytes { SeededHash.hash($0) } &* 0xD6E8_FEB8_6659_FD93
      ^ ends &* 0x9E37_79B9_7F4A_7C15
  }

  /// Survives a restart because both of its ends do.
  var isDurable: Bool { source.isDurable && destination.isDurable && !destination.isDeleted }

  /// About how much memory it takes with its places in all tables.
  var bytes: Int {
    256 + key.bytes.count + arguments.count + (row?.bytes ?? 0) + (filter?.bytes ?? 0)
  }

  func takePredicate() -> HeadersPredicate? {
    defer { predicate = nil }
    return predicate
  }

  /// Declaring one twice is declaring it once.
  func isSame(as other: Binding) -> Bool {
    hash == other.hash && destination.id == other.destination.id
      && destination.isExchange == other.destination.isExchange && key == other.key
      && arguments == other.arguments
  }
}

/// A binding as the key of its source's table.
struct BindingKey: SpreadKey {
  let binding: Binding

  init(_ binding: Binding) { self.binding = binding }

  var spread: UInt64 { binding.hash }

  func hash(into hasher: inout Hasher) { hasher.combine(binding.hash) }

  static func == (left: BindingKey, right: BindingKey) -> Bool {
    left.binding.isSame(as: right.binding)
  }
}

/// The bindings that lead to one destination; adding and removing cost the same whatever their number.
struct BindingList {
  private var bindings: [Binding] = []

  var isEmpty: Bool { bindings.isEmpty }
  var count: Int { bindings.count }
  var last: Binding? { bindings.last }
  subscript(index: Int) -> Binding { bindings[index] }

  mutating func add(_ binding: Binding) {
    binding.place = bindings.count
    bindings.append(binding)
  }

  mutating func remove(_ binding: Binding) {
    let last = bindings.removeLast()
    if last !== binding {
      last.place = binding.place
      bindings[binding.place] = last
    }
    bindings.shrinkIfSparse()
  }
}
