/// Random numbers that are the same for the same seed, on every machine (SplitMix64).
public struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  public init(seed: UInt64) {
    state = seed
  }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var word = state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }

  /// A whole number of the range.
  public mutating func number(_ range: ClosedRange<Int>) -> Int {
    Int.random(in: range, using: &self)
  }

  /// True in one of `count` cases.
  public mutating func oneIn(_ count: Int) -> Bool {
    number(1...count) == 1
  }

  public mutating func flag() -> Bool {
    oneIn(2)
  }

  /// One of the elements, of which there must be some.
  public mutating func choose<Element>(_ elements: [Element]) -> Element {
    elements[number(0...elements.count - 1)]
  }
}
