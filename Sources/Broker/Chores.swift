/// A piece of work whose size a client decides, such as giving back a million deliveries. It is done
/// in slices between turns, so that no turn takes long whatever its size.
protocol Chore: AnyObject {
  /// Goes on with the work, and takes about a step off `steps` for each few hundred nanoseconds that
  /// it spends, until none is left. Returns whether all is done. What it refers to may have been
  /// changed or deleted since the last time.
  func advance(_ steps: inout Int) -> Bool
}

/// Chores that are underway. What fits into the turn's steps is done where it is begun; the rest waits
/// here, each chore getting a slice in its turn.
final class Chores {
  private struct Underway {
    let chore: any Chore
    /// Whose requests wait until the chore is done; nil once its connection is gone, or for none.
    weak var peer: Peer?
  }

  /// Steps in a turn, of all chores together.
  private let stepsPerTurn: Int
  /// Steps of one chore before it is the next one's turn.
  private static let stepsPerSlice = 2048

  private var underway: [Underway] = []
  private var stepsLeft: Int

  init(stepsPerTurn: Int) {
    self.stepsPerTurn = stepsPerTurn
    stepsLeft = stepsPerTurn
  }

  var isEmpty: Bool { underway.isEmpty }

  /// A turn begins.
  func renew() {
    stepsLeft = stepsPerTurn
  }

  /// Begins a chore, and finishes it if the turn's steps are enough. Otherwise no more requests are
  /// taken from the peer until it is done.
  func begin(_ chore: any Chore, for peer: Peer?) {
    if stepsLeft > 0 {
      // It may begin another one, which takes of the same steps.
      let given = stepsLeft
      var steps = given
      let isDone = chore.advance(&steps)
      stepsLeft -= given - steps
      if isDone { return }
    }
    underway.append(Underway(chore: chore, peer: peer))
    peer?.choreBegan()
  }

  /// Goes on with what is underway, as far as the turn's steps reach.
  func advance() {
    while stepsLeft > 0, !underway.isEmpty {
      let next = underway.removeFirst()
      var steps = min(stepsLeft, Self.stepsPerSlice)
      let given = steps
      let isDone = next.chore.advance(&steps)
      // Every slice costs something, so that this ends.
      stepsLeft -= max(1, given - steps)
      if isDone { next.peer?.choreEnded() } else { underway.append(next) }
    }
  }
}
