import Base
import Testbed
import Testing

@testable import Broker

@Suite struct TopicTrieTests {
  private let broker: TestBroker
  private let kept = KeptBindings()
  private let exchange = Exchange(id: 99, name: "topics", kind: .topic, isDurable: false)

  init() throws {
    broker = try TestBroker()
  }

  private func binding(_ pattern: Name) throws -> Binding {
    try kept.keep(
      Binding(
        source: exchange, destination: .destination(broker.vhost.looseQueue(pattern)), key: pattern,
        arguments: [:]))
  }

  private func matches(_ trie: inout TopicTrie, _ key: Name) -> [Name] {
    var walk = RouteWalk.first
    trie.match(key, .nothing, &walk)
    let names = walk.names
    walk.forget()
    return names
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
    #expect(trie.bytes == TopicTrie().bytes, "seed \(seed): only the root is left")
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

  // MARK: What it costs

  /// Steps of finding what fits the key.
  private func steps(_ trie: inout TopicTrie, _ key: Name) -> Int {
    var walk = RouteWalk.first
    trie.match(key, .nothing, &walk)
    walk.forget()
    return walk.steps
  }

  @Test func patternsThatDoNotFitCostNothing() throws {
    var trie = TopicTrie()
    for number in 0..<5000 { trie.add(try binding(Name("a.\(number).*"))) }
    trie.add(try binding("a.17.#"))
    #expect(steps(&trie, "a.17.x") <= 8)
    #expect(matches(&trie, "a.17.x") == ["a.17.#", "a.17.*"])
    #expect(steps(&trie, "b.17.x") <= 2)
  }

  @Test func hashesOfAnyNumberCostKeyTimesPattern() throws {
    var trie = TopicTrie()
    trie.add(try binding(Name(Array(repeating: "#", count: 128).joined(separator: "."))))
    trie.add(try binding(Name(Array(repeating: "#.*", count: 64).joined(separator: "."))))
    let dots = Name(String(repeating: ".", count: 255))
    #expect(steps(&trie, dots) <= 256 * 320)
    #expect(matches(&trie, dots).count == 2)
  }

  @Test func aPatternThatBranchesAtEveryWordIsGivenUpAtTheLimit() throws {
    var trie = TopicTrie()
    for number in 0..<4096 {
      let words = (0..<12).map { number >> $0 & 1 == 0 ? "a" : "*" }
      trie.add(try binding(Name(words.joined(separator: "."))))
    }
    let key = Name(Array(repeating: "a", count: 12).joined(separator: "."))
    var walk = RouteWalk(mark: .max, stepsMax: 1000)
    trie.match(key, .nothing, &walk)
    #expect(walk.isTooLong && walk.steps == 1001)
    #expect(matches(&trie, key).count == 4096)
  }

  @Test func aPatternOfManyWordsTakesABoundedAmountOfMemory() throws {
    var trie = TopicTrie()
    let empty = trie.bytes
    let long = try binding(Name(String(repeating: ".", count: 255)))
    trie.add(long)
    #expect(trie.bytes - empty == 256 * 128)
    trie.remove(long)
    #expect(trie.bytes == empty)
  }

  private func randomName(_ words: [String], _ random: inout SeededRandom) -> Name {
    let count = random.number(0..<6)
    return Name((0..<count).map { _ in random.element(words)! }.joined(separator: "."))
  }
}
