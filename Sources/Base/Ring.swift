/// A first-in first-out buffer of plain values that doubles when it is full and halves when it has
/// become mostly empty.
public struct Ring<Element: BitwiseCopyable>: ~Copyable {
  @usableFromInline var base: UnsafeMutablePointer<Element>?
  /// A power of two, or 0.
  @usableFromInline var capacity = 0
  /// Counts of all removals and all appends; their difference is the number of elements.
  @usableFromInline var head = 0
  @usableFromInline var tail = 0

  @inlinable
  public init() {}

  deinit {
    base?.deallocate()
  }

  @inlinable public var count: Int { tail &- head }
  @inlinable public var isEmpty: Bool { tail == head }

  /// The element `index` places behind the first.
  @inlinable
  public subscript(index: Int) -> Element {
    get { base.unsafelyUnwrapped[slot(index)] }
    set { base.unsafelyUnwrapped[slot(index)] = newValue }
  }

  @inlinable public var first: Element? { isEmpty ? nil : self[0] }
  @inlinable public var last: Element? { isEmpty ? nil : self[count - 1] }

  @inlinable
  public mutating func append(_ element: Element) {
    if count == capacity { resize(max(16, capacity * 2)) }
    base.unsafelyUnwrapped[tail & (capacity &- 1)] = element
    tail &+= 1
  }

  @inlinable
  public mutating func removeFirst() -> Element {
    invariant(!isEmpty, "removed from an empty ring")
    let element = base.unsafelyUnwrapped[head & (capacity &- 1)]
    head &+= 1
    if capacity > 1024, count < capacity / 8 { resize(capacity / 4) }
    return element
  }

  public mutating func removeAll() {
    base?.deallocate()
    base = nil
    capacity = 0
    head = 0
    tail = 0
  }

  @usableFromInline
  @inline(__always)
  func slot(_ index: Int) -> Int {
    invariant(index >= 0 && index < count, "ring index out of range")
    return (head &+ index) & (capacity &- 1)
  }

  @usableFromInline
  @inline(never)
  mutating func resize(_ wanted: Int) {
    let fresh = UnsafeMutablePointer<Element>.allocate(capacity: wanted)
    let used = count
    for index in 0..<used { fresh[index] = base.unsafelyUnwrapped[slot(index)] }
    base?.deallocate()
    base = fresh
    capacity = wanted
    head = 0
    tail = used
  }
}
