import Base
import Filters

/// The patterns of a topic exchange as a tree of words. A key walks down all branches that fit at
/// the same time, so that the cost depends on the key's words and on how many patterns fit, not on
/// how many there are; any number of `#` in a pattern costs no more than its length.
struct TopicTrie {
  private var root = Node("")
  private var nodeCount = 1
  /// Counts the steps of all walks; a node is entered once in each.
  private var step: UInt64 = 0
  /// The branches that fit a key so far, and with its next word.
  private var active: [Node] = []
  private var entered: [Node] = []

  private static let nodeBytes = 128

  private final class Node {
    /// What leads here.
    let word: Name
    /// Below, by their words: one, as along most patterns, or many.
    var child: Node?
    var children: SpreadDictionary<Name, Node>?
    /// `*`: exactly one word.
    var star: Node?
    /// `#`: any number of words, none among them.
    var hash: Node?
    /// This node stands for a `#` itself.
    let isHash: Bool
    var destinations = DestinationList()
    var enteredAt: UInt64 = 0

    init(_ word: Name, isHash: Bool = false) {
      self.word = word
      self.isHash = isHash
    }

    var isEmpty: Bool {
      destinations.isEmpty && child == nil && children == nil && star == nil && hash == nil
    }

    func find(_ word: Name) -> Node? {
      if let child { return child.word == word ? child : nil }
      return children?[word]
    }

    func add(_ node: Node) {
      if children == nil, child == nil {
        child = node
        return
      }
      var all = children ?? SpreadDictionary()
      children = nil
      if let child { all[child.word] = child }
      child = nil
      all[node.word] = node
      children = all
    }

    func remove(_ word: Name) {
      child = nil
      children?[word] = nil
      if children?.isEmpty == true { children = nil }
    }
  }

  /// What its nodes take of the memory.
  var bytes: Int { nodeCount * Self.nodeBytes }

  mutating func add(_ binding: Binding) {
    var node = root
    for word in Self.words(binding.key) { node = child(of: node, word) }
    node.destinations.add(binding)
  }

  /// Removes one binding of a pattern, and the nodes that are empty without it.
  mutating func remove(_ binding: Binding) {
    var path = [root]
    let words = Self.words(binding.key)
    for word in words { path.append(child(of: path[path.count - 1], word)) }
    path[words.count].destinations.remove(binding)
    for (index, word) in words.enumerated().reversed() {
      guard path[index + 1].isEmpty else { return }
      nodeCount -= 1
      switch word {
      case "*": path[index].star = nil
      case "#": path[index].hash = nil
      default: path[index].remove(word)
      }
    }
  }

  /// Shows a walk where bindings lead to whose patterns fit the key.
  mutating func match(_ key: Name, _ message: FilteredMessage, _ walk: inout RouteWalk) {
    defer {
      active.removeAll(keepingCapacity: true)
      entered.removeAll(keepingCapacity: true)
    }
    step += 1
    guard enter(root, &walk) else { return }
    swap(&active, &entered)
    for word in Self.words(key) {
      step += 1
      for node in active {
        if node.isHash { guard enter(node, &walk) else { return } }
        if let child = node.find(word) { guard enter(child, &walk) else { return } }
        if let star = node.star { guard enter(star, &walk) else { return } }
      }
      swap(&active, &entered)
      entered.removeAll(keepingCapacity: true)
    }
    for node in active where !node.destinations.forEach(of: message, &walk) { return }
  }

  /// A `#` that follows needs no word, so its node is entered too. Returns whether the walk goes on.
  private mutating func enter(_ node: Node, _ walk: inout RouteWalk) -> Bool {
    var next: Node? = node
    while let node = next, node.enteredAt != step {
      node.enteredAt = step
      entered.append(node)
      guard walk.step() else { return false }
      next = node.hash
    }
    return true
  }

  private static func words(_ key: Name) -> [Name] {
    guard !key.isEmpty else { return [] }
    return key.bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
      .map { Name(Array($0)) }
  }

  private mutating func child(of node: Node, _ word: Name) -> Node {
    switch word {
    case "*":
      if let star = node.star { return star }
      node.star = Node(word)
    case "#":
      if let hash = node.hash { return hash }
      node.hash = Node(word, isHash: true)
    default:
      if let child = node.find(word) { return child }
      node.add(Node(word))
    }
    nodeCount += 1
    return child(of: node, word)
  }
}
