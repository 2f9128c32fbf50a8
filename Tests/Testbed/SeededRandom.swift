import IO

/// Random numbers that a seed determines (SplitMix64).
package struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64

  package init(_ seed: UInt64) {
    state = seed
  }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  package mutating func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &self) }

  /// True once in `count` times.
  package mutating func isOne(in count: Int) -> Bool { number(0..<count) == 0 }

  package mutating func element<Element>(_ elements: [Element]) -> Element? {
    elements.randomElement(using: &self)
  }
}

/// The seeds that a property is tried with. `MARTLET_TEST_SEED` asks for one, such as that of a
/// failure; otherwise they are a few fixed ones and one that is new each time.
package enum Seeds {
  package static let all: [UInt64] = {
    if let text = Environment.variables()["MARTLET_TEST_SEED"], let seed = UInt64(text) {
      return [seed]
    }
    return [1, 2, 3, 4, 5, 6, 7, UInt64.random(in: 100...1_000_000_000)]
  }()
}
