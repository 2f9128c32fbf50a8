/// When something is due at each of many places, with the next one at hand. A place is a small number
/// that its owner gives out, such as the index of a connection; it has one time at most, and holds no
/// more than that, so that what is due there is asked of the owner.
///
/// A binary heap of times, and for each place where it stands in it: 16 bytes for one that is armed, and
/// 4 for each that there ever was. To arm, arm anew or cancel costs the logarithm of how many there
/// are; to know the next one costs nothing.
public struct Deadlines: Sendable {
  private struct Item {
    var time: Int64
    var place: Int32
  }

  /// The earliest is the first; none is earlier than the one at half its index.
  private var heap: [Item] = []
  /// By place: its index in the heap, or `unarmed`.
  private var indices: [Int32] = []

  private static let unarmed: Int32 = -1

  public init() {}

  public var count: Int { heap.count }

  /// The earliest time; nil when nothing is armed.
  public var next: Int64? { heap.first?.time }

  /// The time of a place; nil when nothing is due there.
  public func time(of place: Int) -> Int64? {
    guard place < indices.count, indices[place] != Self.unarmed else { return nil }
    return heap[Int(indices[place])].time
  }

  /// Something is due at the place at this time, and at no other.
  public mutating func arm(_ place: Int, at time: Int64) {
    while indices.count <= place { indices.append(Self.unarmed) }
    let known = Int(indices[place])
    guard known >= 0 else {
      heap.append(Item(time: time, place: Int32(place)))
      rise(from: heap.count - 1)
      return
    }
    let former = heap[known].time
    heap[known].time = time
    if time < former { rise(from: known) } else { sink(from: known) }
  }

  /// Nothing is due at the place any more.
  public mutating func cancel(_ place: Int) {
    guard place < indices.count, indices[place] != Self.unarmed else { return }
    remove(at: Int(indices[place]))
  }

  /// The place whose time came first, of those whose time is not after `now`; it is armed no more. Nil
  /// if there is none.
  public mutating func takeDue(at now: Int64) -> Int? {
    guard let first = heap.first, first.time <= now else { return nil }
    remove(at: 0)
    return Int(first.place)
  }

  private mutating func remove(at index: Int) {
    indices[Int(heap[index].place)] = Self.unarmed
    let last = heap.removeLast()
    guard index < heap.count else { return }
    let former = heap[index].time
    heap[index] = last
    if last.time < former { rise(from: index) } else { sink(from: index) }
  }

  private mutating func rise(from start: Int) {
    let item = heap[start]
    var index = start
    while index > 0 {
      let parent = (index - 1) / 2
      guard item.time < heap[parent].time else { break }
      put(heap[parent], at: index)
      index = parent
    }
    put(item, at: index)
  }

  private mutating func sink(from start: Int) {
    let item = heap[start]
    var index = start
    while true {
      var child = 2 * index + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count, heap[child + 1].time < heap[child].time { child += 1 }
      guard heap[child].time < item.time else { break }
      put(heap[child], at: index)
      index = child
    }
    put(item, at: index)
  }

  private mutating func put(_ item: Item, at index: Int) {
    heap[index] = item
    indices[Int(item.place)] = Int32(index)
  }

  /// Whether what is held twice agrees; for tests.
  public func checkInvariants() {
    for (index, item) in heap.enumerated() {
      invariant(index == 0 || heap[(index - 1) / 2].time <= item.time, "a deadline is out of order")
      invariant(indices[Int(item.place)] == Int32(index), "a place does not know its deadline")
    }
    invariant(
      indices.count { $0 != Self.unarmed } == heap.count, "a place has a deadline that is not there"
    )
  }
}
