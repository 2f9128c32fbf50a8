import AMQP
import Base
import Filters

/// Routes messages by its bindings.
public final class Exchange {
  let id: UInt32
  public let name: Name
  /// As it was declared.
  let type: Name
  /// How it routes.
  let kind: Kind
  /// Messages with the header `x-delay` wait here for their time.
  let isDelaying: Bool
  /// Survives a restart.
  let isDurable: Bool
  /// Goes with its last binding.
  let isAutoDelete: Bool
  /// Takes messages from other exchanges only.
  let isInternal: Bool
  let arguments: FieldTable
  /// Where messages go that no binding fits.
  let alternate: Name?
  var isDeleted = false
  /// Where the log says that it was declared.
  var declaredAt = 0
  /// Where it is in the catalog, if it is durable.
  var catalogIndex: Int?
  /// The last checkpoint that has it.
  var snapshotNumber = 0

  /// All bindings from here.
  private(set) var bindings: SpreadDictionary<BindingKey, Binding> = SpreadDictionary()
  /// Of these so many lead to what is deleted, and are still to be taken out. Counted if it goes with its
  /// last binding.
  var leavingCount = 0
  /// Bindings that lead here.
  var incoming = BindingList()
  /// Whose bindings those are that go with their last one.
  var dependents = Dependents()
  /// What it knows repeated messages by; nil if it does not look for them.
  var seen: SeenValues?
  /// Its last messages; nil if it keeps none.
  var recent: RecentMessages?
  /// Set by the router to visit an exchange once.
  var routeMark: UInt64 = 0

  private var byKey: SpreadDictionary<Name, DestinationList> = SpreadDictionary()
  private var all = DestinationList()
  private var trie = TopicTrie()
  private var index = HeadersIndex()
  /// Nil if messages go to all bindings that fit, and not to one of them.
  private let balancer: Balancer?

  /// `seed` is where chance begins.
  init(
    id: UInt32, name: Name, type: Name, form: ExchangeForm, isDurable: Bool,
    isAutoDelete: Bool = false, isInternal: Bool = false, arguments: FieldTable = FieldTable(),
    seed: UInt64 = 0
  ) {
    self.id = id
    self.name = name
    self.type = type
    kind = form.kind
    isDelaying = form.isDelaying
    self.isDurable = isDurable
    self.isAutoDelete = isAutoDelete
    self.isInternal = isInternal
    self.arguments = arguments
    balancer = Balancer(kind, arguments, seed: seed)
    alternate = arguments["alternate-exchange"]?.text.map { Name($0) }
  }

  /// One of a kind that needs no arguments.
  convenience init(id: UInt32, name: Name, kind: Kind, isDurable: Bool, isInternal: Bool = false) {
    self.init(
      id: id, name: name, type: Name(kind.rawValue), form: ExchangeForm(kind),
      isDurable: isDurable, isInternal: isInternal)
  }

  /// One of those that every virtual host has.
  var isPredeclared: Bool { name.isEmpty || name.hasPrefix("amq.") }

  /// About what it takes of memory, without bindings.
  var memoryBytes: Int { MemoryAccount.bytes(640, name, arguments) }

  /// Bytes of the tables by which it routes, besides those of each binding.
  var routerBytes: Int { trie.bytes + (balancer?.bytes ?? 0) }

  /// Where a message goes depends on more of it than its routing keys.
  var needsMessage: Bool {
    kind == .headers || isDelaying || seen != nil || recent != nil
      || balancer?.needsMessage == true
  }

  /// Where a message goes depends on its routing key.
  var needsKey: Bool { kind.comparesKeys || balancer?.needsMessage == false }

  /// The binding that is the same as this one.
  func binding(like binding: Binding) -> Binding? { bindings[BindingKey(binding)] }

  /// Adds a binding that is not there.
  func add(_ binding: Binding) {
    bindings[BindingKey(binding)] = binding
    switch kind {
    case .direct: byKey[binding.key].add(binding)
    case .topic: trie.add(binding)
    case .fanout, .deduplication, .recentHistory: all.add(binding)
    case .headers: index.add(binding)
    case .consistentHash, .modulusHash, .random, .localRandom:
      balancer?.add(binding)
    }
  }

  /// Removes a binding that is there, or was among those of `takeSome`.
  func remove(_ binding: Binding) {
    bindings[BindingKey(binding)] = nil
    switch kind {
    case .direct: byKey[binding.key].remove(binding)
    case .topic: trie.remove(binding)
    case .fanout, .deduplication, .recentHistory: all.remove(binding)
    case .headers: index.remove(binding)
    case .consistentHash, .modulusHash, .random, .localRandom:
      balancer?.remove(binding)
    }
  }

  /// What adding or removing a binding costs beyond what any binding does, in steps of a chore.
  func steps(for binding: Binding) -> Int { balancer?.steps(for: binding) ?? 0 }

  /// Some of the bindings, no longer found among them; each is still to be removed.
  func takeSome() -> [Binding] { bindings.removeSome() }

  /// Shows a walk where the bindings that fit lead to.
  func match(_ key: Name, _ message: FilteredMessage, _ walk: inout RouteWalk) {
    switch kind {
    case .direct: byKey[key]?.forEach(of: message, &walk)
    case .topic: trie.match(key, message, &walk)
    case .fanout, .deduplication, .recentHistory: all.forEach(of: message, &walk)
    case .headers: index.match(message, &walk)
    case .consistentHash, .modulusHash, .random, .localRandom:
      balancer?.match(key, message, &walk)
    }
  }
}
