/// Problems not yet reported to the operator: the first few, each once, and how many came behind
/// them.
struct ProblemList: Sendable {
  static let countMax = 16
  private var texts: [String] = []
  private var droppedCount = 0

  mutating func add(_ text: String) {
    if texts.contains(text) { return }
    if texts.count < Self.countMax { texts.append(text) } else { droppedCount += 1 }
  }

  mutating func add(_ others: [String]) {
    for text in others { add(text) }
  }

  /// All of them, once.
  mutating func take() -> [String] {
    guard !texts.isEmpty else { return [] }
    defer { self = ProblemList() }
    return texts
      + (droppedCount == 0 ? [] : ["\(droppedCount) more problems of the journal are not named"])
  }
}
