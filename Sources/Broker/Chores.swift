/// A piece of work whose size a client decides, such as giving back a million deliveries. It is done
/// in slices between turns, so that no turn takes long whatever its size.
protocol Chore: AnyObject {
  /// Goes on with the work, and takes about a step off `steps` for each few hundred nanoseconds that
  /// it spends, until none is left. Returns whether all is done. What it refers to may have been
  /// changed or deleted since the last time.
  func advance(_ steps: inout Int) -> Bool
}

/// Objects that nobody needs any more: there may be many, and the end of each costs something.
private final class LettingGo<Object>: Chore {
  private static var stepsPerObject: Int { 2 }

  private var objects: [Object]

  init(_ objects: [Object]) {
    self.objects = objects
  }

  func advance(_ steps: inout Int) -> Bool {
    let count = min(objects.count, max(1, steps / Self.stepsPerObject))
    objects.removeLast(count)
    steps -= count * Self.stepsPerObject
    return objects.isEmpty
  }
}

extension Broker {
  /// So many objects end where they are let go of; more in slices.
  private static let endedAtOnce = 256

  /// Objects that the caller keeps no longer.
  public func letGo<Object>(of objects: [Object]) {
    guard objects.count > Self.endedAtOnce else { return }
    chores.begin(LettingGo(objects), for: nil)
  }
}

/// Chores that are underway. What fits into the turn's steps is done where it is begun; the rest waits
/// here, each chore getting a slice in its turn.
final class Chores {
  private struct Underway {
    /// nil once it had its slice of the round.
    var chore: (any Chore)?
    /// Whose requests wait until the chore is done; nil once its connection is gone, or for none.
    weak var peer: Peer?
  }

  /// Steps in a turn, of all chores together.
  private let stepsPerTurn: Int
  /// Steps of one chore before it is the next one's turn.
  private static let stepsPerSlice = 512
  /// Steps of a chore where it is begun, and when the turn has taken long: most chores are small, and
  /// nobody sees that they are chores.
  private static let stepsAtOnce = 2048
  private static let stepsAtOnceWhenLong = 256

  /// Those that get a slice in this round, the ones before `next` having had it, and those that go on
  /// in the next round.
  private var underway: [Underway] = []
  private var next = 0
  private var later: [Underway] = []
  private var stepsLeft: Int
  /// See `Broker.isTurnLong`.
  var isTurnLong: () -> Bool = { false }

  init(stepsPerTurn: Int) {
    self.stepsPerTurn = stepsPerTurn
    stepsLeft = stepsPerTurn
  }

  var isEmpty: Bool { next == underway.count && later.isEmpty }

  /// A turn begins.
  func renew() {
    stepsLeft = stepsPerTurn
  }

  /// Begins a chore, and finishes it if that is little and the turn has steps left. Otherwise no more
  /// requests are taken from the peer until it is done.
  func begin(_ chore: any Chore, for peer: Peer?) {
    let atOnce = isTurnLong() ? Self.stepsAtOnceWhenLong : Self.stepsAtOnce
    if stepsLeft > 0, slice(chore, min(stepsLeft, atOnce)) { return }
    add(chore, for: peer)
  }

  /// Begins a chore that does nothing yet, also if it is little. No more requests are taken from the peer until
  /// it is done.
  func add(_ chore: any Chore, for peer: Peer?) {
    underway.append(Underway(chore: chore, peer: peer))
    peer?.choreBegan()
  }

  /// Goes on with what is underway, as far as the turn's steps and time reach, by a slice at least.
  func advance() {
    var isFirst = true
    while stepsLeft > 0, !isEmpty, isFirst || !isTurnLong() {
      isFirst = false
      if next == underway.count {
        swap(&underway, &later)
        later.removeAll(keepingCapacity: underway.count <= 64)
        next = 0
      }
      let chosen = underway[next]
      underway[next].chore = nil
      next += 1
      guard let chore = chosen.chore else { continue }
      if slice(chore, min(stepsLeft, Self.stepsPerSlice)) {
        chosen.peer?.choreEnded()
      } else {
        later.append(chosen)
      }
    }
    guard next == underway.count else { return }
    underway.removeAll(keepingCapacity: underway.count <= 64)
    next = 0
  }

  /// The chore may begin others, which take their own steps.
  private func slice(_ chore: any Chore, _ steps: Int) -> Bool {
    var left = steps
    let isDone = chore.advance(&left)
    // Every slice costs something, so that this ends.
    stepsLeft -= max(1, steps - left)
    return isDone
  }
}
