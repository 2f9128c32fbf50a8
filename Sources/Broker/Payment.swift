/// Work that was done at once although it took a while: the requests of the client that asked for it wait as long
/// as if it had been done in slices, so that many of its kind do not come into one turn.
final class Payment: Chore {
  private var left: Int

  init(steps: Int) { left = steps }

  func advance(_ steps: inout Int) -> Bool {
    let paid = max(0, min(left, steps))
    left -= paid
    steps -= paid
    return left == 0
  }
}

/// Values are given back that a deleted exchange or queue remembered.
final class Forgetting: Chore {
  private let seen: SeenValues

  init(_ seen: SeenValues) { self.seen = seen }

  func advance(_ steps: inout Int) -> Bool {
    while steps > 0 {
      let count = seen.forgetSome()
      guard count > 0 else { return true }
      steps -= count
    }
    return false
  }
}
