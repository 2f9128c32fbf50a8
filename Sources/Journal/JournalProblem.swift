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

/// Something in a journal that is not as it should be.
public struct JournalProblem: Equatable, Sendable, CustomStringConvertible {
  /// A name in the journal's directory; empty for the directory itself.
  public let file: String
  public var offset: Int?
  /// In the log.
  public var position: Int?
  public let text: String

  public init(_ file: String, offset: Int? = nil, position: Int? = nil, _ text: String) {
    self.file = file
    self.offset = offset
    self.position = position
    self.text = text
  }

  public var description: String {
    var place = file
    if let offset { place += ", offset \(offset)" }
    if let position { place += " (log position \(position))" }
    return place.isEmpty ? text : "\(place): \(text)"
  }
}
