extension [Entry] {
  /// Shows the entries with sequences below `bound`, the highest first, at most so many.
  mutating func walk(
    below bound: UInt64, atMost limit: Int, _ body: (inout Entry) -> Void
  ) -> UInt64? {
    var left = limit
    var last = bound
    for index in indices where self[index].sequence < bound {
      guard left > 0 else { return last }
      left -= 1
      last = self[index].sequence
      body(&self[index])
    }
    return nil
  }
}
