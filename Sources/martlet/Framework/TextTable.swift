/// Rows of words under titles, in columns as wide as they need to be.
struct TextTable {
  enum Side { case left, right }

  private let sides: [Side]
  private var rows: [[String]]

  init(_ columns: (title: String, side: Side)...) {
    sides = columns.map(\.side)
    rows = [columns.map(\.title)]
  }

  mutating func add(_ words: String...) {
    rows.append(words)
  }

  /// Each line behind `indent` blanks; no line ends with one.
  func text(indent: Int = 0) -> String {
    let widths = sides.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      var line = ""
      var owed = indent
      for (column, word) in row.enumerated() {
        let padding = widths[column] - word.count
        let (before, behind) = sides[column] == .right ? (padding, 0) : (0, padding)
        line += String(repeating: " ", count: owed + before) + word
        owed = behind + 2
      }
      return line + "\n"
    }.joined()
  }
}
