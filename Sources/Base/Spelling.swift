/// Finds what a mistyped word was meant to be.
public enum Spelling {
  /// The candidate nearest to `word`, if it is near enough to be worth suggesting: at most a third
  /// of its letters differ, or the word begins or ends it.
  public static func nearest(to word: String, among candidates: [String]) -> String? {
    let ranked = candidates.map { (word: $0, distance: distance(word, $0)) }
    let best = ranked.min { $0.distance < $1.distance }
    if let best, best.distance <= max(1, min(word.count, best.word.count) / 3) { return best.word }
    guard word.count >= 3 else { return nil }
    let similar = candidates.filter {
      $0.hasPrefix(word) || $0.hasSuffix("-" + word) || $0.contains(word + "-")
    }
    return similar.count == 1 ? similar[0] : nil
  }

  /// `; did you mean "listen"?`, or nothing.
  public static func suggestion(for word: String, among candidates: [String]) -> String {
    nearest(to: word, among: candidates).map { #"; did you mean "\#($0)"?"# } ?? ""
  }

  /// Insertions, removals, replacements and swaps of neighbours that make `left` into `right`.
  static func distance(_ left: String, _ right: String) -> Int {
    let left = Array(left.utf8)
    let right = Array(right.utf8)
    var beforeLast = [Int](repeating: 0, count: right.count + 1)
    var last = Array(0...right.count)
    for row in left.indices {
      var current = [row + 1]
      for column in right.indices {
        let isSame = left[row] == right[column]
        var cost = min(last[column] + (isSame ? 0 : 1), last[column + 1] + 1, current[column] + 1)
        if row > 0, column > 0, left[row] == right[column - 1], left[row - 1] == right[column] {
          cost = min(cost, beforeLast[column - 1] + 1)
        }
        current.append(cost)
      }
      beforeLast = last
      last = current
    }
    return last[right.count]
  }
}
