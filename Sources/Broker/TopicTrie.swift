import Base

/// The patterns of a topic exchange as a tree of words. A key walks down all branches that fit at
/// the same time, so that the cost depends on the key's words and on how many patterns fit, not on
/// how many there are; any number of `#` in a pattern costs no more than its length.
struct TopicTrie {
  private var root = Node()
  /// Counts the steps of all walks; a node is entered once in each.
  private var step: UInt64 = 0

  private final class Node {
    var children: [Name: Node] = [:]
    /// `*`: exactly one word.
    var star: Node?
    /// `#`: any number of words, none among them.
    var hash: Node?
    /// This node stands for a `#` itself.
    var isHash = false
    var bindings = BindingList()
    var enteredAt: UInt64 = 0

    var isEmpty: Bool {
      bindings.isEmpty && children.isEmpty && star == nil && hash == nil
    }
  }

  mutating func add(_ binding: Binding) {
    var node = root
    for word in Self.words(binding.key) { node = Self.child(of: node, word) }
    node.bindings.add(binding)
  }

  mutating func remove(_ binding: Binding) {
    Self.remove(binding, Self.words(binding.key)[...], from: root)
  }

  /// All bindings whose pattern fits the key, each once.
  mutating func match(_ key: Name, _ body: (Binding) -> Void) {
    step += 1
    var active: [Node] = []
    enter(root, &active)
    for word in Self.words(key) {
      step += 1
      var next: [Node] = []
      for node in active {
        if node.isHash { enter(node, &next) }
        if let child = node.children[word] { enter(child, &next) }
        if let star = node.star { enter(star, &next) }
      }
      active = next
    }
    for node in active {
      for binding in node.bindings.bindings { body(binding) }
    }
  }

  /// A `#` that follows needs no word, so its node is entered too.
  private func enter(_ node: Node, _ nodes: inout [Node]) {
    guard node.enteredAt != step else { return }
    node.enteredAt = step
    nodes.append(node)
    if let hash = node.hash { enter(hash, &nodes) }
  }

  private static func words(_ key: Name) -> [Name] {
    guard !key.isEmpty else { return [] }
    return key.bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
      .map { Name(Array($0)) }
  }

  private static func child(of node: Node, _ word: Name) -> Node {
    switch word {
    case "*":
      if let star = node.star { return star }
      let star = Node()
      node.star = star
      return star
    case "#":
      if let hash = node.hash { return hash }
      let hash = Node()
      hash.isHash = true
      node.hash = hash
      return hash
    default:
      if let child = node.children[word] { return child }
      let child = Node()
      node.children[word] = child
      return child
    }
  }

  /// Removes a binding below `node`, and the nodes that are empty without it.
  private static func remove(_ binding: Binding, _ words: ArraySlice<Name>, from node: Node) {
    guard let word = words.first else {
      node.bindings.remove(binding)
      return
    }
    let child = child(of: node, word)
    remove(binding, words.dropFirst(), from: child)
    guard child.isEmpty else { return }
    switch word {
    case "*": node.star = nil
    case "#": node.hash = nil
    default: node.children[word] = nil
    }
  }
}
