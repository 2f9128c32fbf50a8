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
