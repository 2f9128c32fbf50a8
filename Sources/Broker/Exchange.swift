import AMQP
import Base

/// Routes messages by its bindings.
public final class Exchange {
  public enum Kind: String, Sendable {
    case direct, fanout, topic, headers
  }

  let id: UInt32
  public let name: Name
  let kind: Kind
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

  /// All bindings from here.
  private(set) var bindings: [BindingIdentity: Binding] = [:]
  /// Bindings that lead here.
  var incoming: [Binding] = []
  /// Set by the router to visit an exchange once.
  var routeMark: UInt64 = 0

  private var byKey: [Name: BindingList] = [:]
  private var all = BindingList()
  private var trie = TopicTrie()

  init(
    id: UInt32, name: Name, kind: Kind, isDurable: Bool, isAutoDelete: Bool = false,
    isInternal: Bool = false, arguments: FieldTable = FieldTable()
  ) {
    self.id = id
    self.name = name
    self.kind = kind
    self.isDurable = isDurable
    self.isAutoDelete = isAutoDelete
    self.isInternal = isInternal
    self.arguments = arguments
    alternate = arguments["alternate-exchange"]?.text.map { Name($0) }
  }

  /// One of those that every virtual host has.
  var isPredeclared: Bool { name.isEmpty || name.hasPrefix("amq.") }

  func add(_ binding: Binding, _ identity: BindingIdentity) {
    bindings[identity] = binding
    switch kind {
    case .direct: byKey[binding.key, default: BindingList()].add(binding)
    case .topic: trie.add(binding)
    case .fanout, .headers: all.add(binding)
    }
  }

  func remove(_ identity: BindingIdentity) {
    guard let binding = bindings.removeValue(forKey: identity) else { return }
    switch kind {
    case .direct:
      byKey[binding.key]?.remove(binding)
      if byKey[binding.key]?.isEmpty == true { byKey[binding.key] = nil }
    case .topic: trie.remove(binding)
    case .fanout, .headers: all.remove(binding)
    }
  }

  /// Forgets all bindings, without their destinations knowing.
  func removeAll() {
    bindings = [:]
    byKey = [:]
    all = BindingList()
    trie = TopicTrie()
  }

  /// Where bindings from here lead, each destination once.
  var destinations: [Destination] {
    var seen: Set<ObjectIdentifier> = []
    return bindings.values.map(\.destination).filter { seen.insert($0.object).inserted }
  }

  /// All bindings that fit.
  func match(_ key: Name, headers: FieldTable, _ body: (Binding) -> Void) {
    switch kind {
    case .direct:
      for binding in byKey[key]?.bindings ?? [] { body(binding) }
    case .topic: trie.match(key, body)
    case .fanout:
      for binding in all.bindings { body(binding) }
    case .headers:
      for binding in all.bindings where binding.predicate?.matches(headers) ?? false {
        body(binding)
      }
    }
  }
}
