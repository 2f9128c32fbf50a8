import Base

/// Bindings at points of a ring of 2^64 positions, in the ring's order. It is kept in arcs of some hundred
/// points, so that a point comes and goes at the cost of one arc, and is found by halving.
struct BindingRing {
  private struct Point {
    let position: UInt64
    // Unsafe but sound: a binding is taken out of its exchange before anybody lets it go.
    let binding: Unmanaged<Binding>
  }

  private final class Arc {
    var points: ContiguousArray<Point>

    init(_ points: ContiguousArray<Point>) { self.points = points }

    func index(behind position: UInt64) -> Int {
      BindingRing.partition(points.count) { points[$0].position < position }
    }
  }

  /// Where a point stands, until the ring changes.
  struct Place {
    fileprivate var arc: Int
    fileprivate var index: Int
  }

  /// None is empty.
  private var arcs: [Arc] = []
  /// The position of each arc's first point.
  private var starts: [UInt64] = []
  private(set) var count = 0

  private static let arcMax = 512
  /// What an arc takes besides its points.
  private static let arcBytes = 112

  var isEmpty: Bool { count == 0 }

  /// What it takes of the memory.
  var bytes: Int { count * MemoryLayout<Point>.stride * 3 / 2 + arcs.count * Self.arcBytes }

  // MARK: Finding

  /// The first point at or behind a position. There is one.
  func place(behind position: UInt64) -> Place {
    // Points of one position may be in two arcs: the first of them is wanted.
    let arc = max(0, Self.partition(starts.count) { starts[$0] < position } - 1)
    return settled(Place(arc: arc, index: arcs[arc].index(behind: position)))
  }

  /// The point of this number, in the order of positions.
  func place(ofRank rank: Int) -> Place {
    var left = rank
    for (arc, each) in arcs.enumerated() {
      if left < each.points.count { return Place(arc: arc, index: left) }
      left -= each.points.count
    }
    invariantFailed("a ring has no point \(rank)")
  }

  func next(_ place: Place) -> Place {
    settled(Place(arc: place.arc, index: place.index + 1))
  }

  func position(_ place: Place) -> UInt64 { arcs[place.arc].points[place.index].position }

  func binding(_ place: Place) -> Binding {
    arcs[place.arc].points[place.index].binding.takeUnretainedValue()
  }

  /// What is behind an arc's end is the next one's first.
  private func settled(_ place: Place) -> Place {
    guard place.index == arcs[place.arc].points.count else { return place }
    return Place(arc: place.arc + 1 == arcs.count ? 0 : place.arc + 1, index: 0)
  }

  /// How many of the numbers below `count`, all of them first, are `before`.
  @inline(__always)
  fileprivate static func partition(_ count: Int, _ before: (Int) -> Bool) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low &+ high) >> 1
      if before(middle) { low = middle &+ 1 } else { high = middle }
    }
    return low
  }

  // MARK: Changing

  mutating func add(_ binding: Binding, at position: UInt64) {
    let point = Point(position: position, binding: .passUnretained(binding))
    count += 1
    guard !arcs.isEmpty else {
      arcs = [Arc([point])]
      starts = [position]
      return
    }
    let arc = max(0, Self.partition(starts.count) { starts[$0] <= position } - 1)
    let index = arcs[arc].index(behind: position)
    arcs[arc].points.insert(point, at: index)
    if index == 0 { starts[arc] = position }
    if arcs[arc].points.count > Self.arcMax { split(arc) }
  }

  /// Takes out a point that is there.
  mutating func remove(_ binding: Binding, at position: UInt64) {
    var place = place(behind: position)
    while self.binding(place) !== binding {
      invariant(self.position(place) == position, "a binding is not at its place in the ring")
      place = next(place)
    }
    count -= 1
    let arc = place.arc
    arcs[arc].points.remove(at: place.index)
    guard let first = arcs[arc].points.first else {
      arcs.remove(at: arc)
      starts.remove(at: arc)
      return
    }
    starts[arc] = first.position
    joinIfSparse(arc)
    if arc > 0 { joinIfSparse(arc - 1) }
  }

  private mutating func split(_ arc: Int) {
    let points = arcs[arc].points
    let half = points.count / 2
    arcs[arc].points = ContiguousArray(points[..<half])
    arcs.insert(Arc(ContiguousArray(points[half...])), at: arc + 1)
    starts.insert(points[half].position, at: arc + 1)
  }

  /// An arc and the one behind it become one if both have little.
  private mutating func joinIfSparse(_ arc: Int) {
    guard arc + 1 < arcs.count,
      arcs[arc].points.count + arcs[arc + 1].points.count < Self.arcMax / 4
    else { return }
    arcs[arc].points.append(contentsOf: arcs[arc + 1].points)
    arcs.remove(at: arc + 1)
    starts.remove(at: arc + 1)
  }
}
