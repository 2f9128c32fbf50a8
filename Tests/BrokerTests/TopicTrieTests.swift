import Base
import Testbed
import Testing

@testable import Broker

@Suite struct TopicTrieTests {
  private let broker: TestBroker
  private let exchange = Exchange(id: 99, name: "topics", kind: .topic, isDurable: false)

  init() throws {
    broker = try TestBroker()
  }

  private func binding(_ pattern: Name) throws -> Binding {
    try Binding(
      source: exchange, destination: .queue(broker.vhost.replyQueue), key: pattern, arguments: [:])
  }

  private func matches(_ trie: inout TopicTrie, _ key: Name) -> [Name] {
    var patterns: [Name] = []
    trie.match(key) { patterns.append($0.key) }
    return patterns.sorted()
  }

  private func matches(_ pattern: Name, _ key: Name) throws -> Bool {
    var trie = TopicTrie()
    trie.add(try binding(pattern))
    return matches(&trie, key) == [pattern]
  }

  @Test(arguments: [
    ("a.b.c", "a.b.c", true), ("a.b.c", "a.b", false), ("a.b", "a.b.c", false),
    ("*.b.c", "a.b.c", true), ("*.b.c", "b.c", false), ("a.*.*", "a.b.c", true),
    ("#", "", true), ("#", "a", true), ("#", "a.b.c", true), ("#.#", "", true),
    ("a.#", "a", true), ("a.#", "a.b.c", true), ("a.#", "b", false), ("#.c", "a.b.c", true),
    ("#.b.#", "a.c", false), ("#.b.#", "b", true), ("#.#.b", "a.b", true),
    ("*.#", "", false), ("*.#", "a", true), ("#.*", "a.b", true), ("#.*.#", "", false),
    ("", "", true), ("", "a", false), ("*", "", false),
    ("a..b", "a..b", true), ("a.*.b", "a..b", true), ("a.b", "a..b", false),
    (".", ".", true), ("*.*", ".", true), ("*", ".", false), ("#.", "a.", true),
  ])
  func wordsAreMatched(_ pattern: String, _ key: String, _ fits: Bool) throws {
    #expect(try matches(Name(pattern), Name(key)) == fits, "\(pattern) and \(key)")
  }

  @Test(arguments: Seeds.all)
  func anyPatternsMatchWhatANaiveMatcherSays(seed: UInt64) throws {
    var random = SeededRandom(seed)
    var trie = TopicTrie()
    var patterns: [Name] = []
    for _ in 0..<80 {
      let pattern = randomName(["a", "b", "c", "", "*", "*", "#", "#"], &random)
      guard !patterns.contains(pattern) else { continue }
      patterns.append(pattern)
      trie.add(try binding(pattern))
    }
    for _ in 0..<200 {
      let key = randomName(["a", "b", "c", "", "d"], &random)
      let expected = patterns.filter { NaiveTopic.fits($0, key) }.sorted()
      #expect(matches(&trie, key) == expected, "seed \(seed), key '\(key)'")
    }
  }

  @Test(arguments: Seeds.all)
  func whatIsAddedAndRemovedLeavesTheTrieAsItWas(seed: UInt64) throws {
    var random = SeededRandom(seed)
    var trie = TopicTrie()
    var bindings: [Binding] = []
    for step in 0..<400 {
      if bindings.isEmpty || random.number(0..<5) < 3 {
        let binding = try binding(randomName(["a", "b", "", "*", "#"], &random))
        bindings.append(binding)
        trie.add(binding)
      } else {
        trie.remove(bindings.remove(at: random.number(0..<bindings.count)))
      }
      let key = randomName(["a", "b", ""], &random)
      let expected = bindings.map(\.key).filter { NaiveTopic.fits($0, key) }
      #expect(matches(&trie, key) == expected.sorted(), "seed \(seed), step \(step)")
    }
    for binding in bindings.shuffled(using: &random) { trie.remove(binding) }
    #expect(nodeCount(trie) == 1, "seed \(seed): only the root is left")
  }

  @Test func manyHashesCostNoMoreThanTheirNumber() throws {
    var trie = TopicTrie()
    let pattern = Name(Array(repeating: "#.a", count: 60).joined(separator: "."))
    trie.add(try binding(pattern))
    let fits = Name(Array(repeating: "a", count: 120).joined(separator: "."))
    let fails = Name(fits.description.dropLast() + "b")
    #expect(matches(&trie, fits) == [pattern])
    #expect(matches(&trie, fails) == [])
  }

  private func randomName(_ words: [String], _ random: inout SeededRandom) -> Name {
    let count = random.number(0..<6)
    return Name((0..<count).map { _ in random.element(words)! }.joined(separator: "."))
  }

  /// Nodes of the trie, found by walking its mirror, since they are nobody else's business.
  private func nodeCount(_ trie: TopicTrie) -> Int {
    func count(_ value: Any) -> Int {
      let mirror = Mirror(reflecting: value)
      let own = "\(type(of: value))" == "Node" ? 1 : 0
      return own + mirror.children.reduce(0) { $0 + count($1.value) }
    }
    return count(trie)
  }
}
