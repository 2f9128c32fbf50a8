/// A first-in first-out buffer of anything.
struct Backlog<Element> {
  /// Those in front of `head` are gone.
  private var elements: [Element?] = []
  private var head = 0

  var count: Int { elements.count - head }
  var isEmpty: Bool { count == 0 }

  /// The element `index` places behind the first.
  subscript(index: Int) -> Element {
    get { elements[head + index]! }
    set { elements[head + index] = newValue }
  }

  mutating func append(_ element: Element) {
    elements.append(element)
  }

  mutating func popFirst() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements[head]
    elements[head] = nil
    head += 1
    if head == elements.count {
      elements.removeAll(keepingCapacity: elements.count <= 1024)
      head = 0
    } else if head >= 64, head * 2 >= elements.count {
      elements.removeFirst(head)
      head = 0
    }
    return element
  }

  /// Everything there is, in order; nothing remains.
  mutating func takeAll() -> [Element] {
    defer { self = Backlog() }
    return elements[head...].compactMap { $0 }
  }
}
