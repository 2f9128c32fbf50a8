/// Something in a journal that is not as it should be.
package struct JournalProblem: Equatable, Sendable, CustomStringConvertible {
  /// A name in the journal's directory; empty for the directory itself.
  package let file: String
  package var offset: Int?
  /// In the log.
  package var position: Int?
  package let text: String

  package init(_ file: String, offset: Int? = nil, position: Int? = nil, _ text: String) {
    self.file = file
    self.offset = offset
    self.position = position
    self.text = text
  }

  package var description: String {
    var place = file
    if let offset { place += ", offset \(offset)" }
    if let position { place += " (log position \(position))" }
    return place.isEmpty ? text : "\(place): \(text)"
  }
}
