import Base

/// What waits for its turn, in order, with the bytes that it takes.
struct Backlog<Element> {
  private var elements: [(element: Element, bytes: Int)?] = []
  private var next = 0
  /// Of all that waits.
  private(set) var bytes = 0

  /// Those that have left are taken out of the list when there are so many.
  private static var passedMax: Int { 1024 }

  var isEmpty: Bool { next == elements.count }
  var count: Int { elements.count - next }
  var first: Element? { isEmpty ? nil : elements[next]?.element }

  mutating func append(_ element: Element, bytes: Int) {
    elements.append((element, bytes))
    self.bytes += bytes
  }

  /// Forgets the first one; returns its bytes.
  @discardableResult
  mutating func removeFirst() -> Int {
    guard let first = elements[next] else { invariantFailed("a backlog has a hole") }
    elements[next] = nil
    next += 1
    bytes -= first.bytes
    if next == elements.count {
      elements.removeAll(keepingCapacity: next <= Self.passedMax)
      next = 0
    } else if next >= Self.passedMax, next > elements.count / 2 {
      elements.removeFirst(next)
      next = 0
    }
    return first.bytes
  }
}
