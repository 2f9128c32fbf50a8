import Base

/// Bindings in no order, any of which is reached by its number.
struct BindingPool {
  // Unsafe but sound: a binding is taken out of its exchange before anybody lets it go.
  private var bindings: [Unmanaged<Binding>] = []

  var count: Int { bindings.count }
  /// What it takes of the memory.
  var bytes: Int { bindings.count * MemoryLayout<Unmanaged<Binding>>.stride }
  subscript(index: Int) -> Binding { bindings[index].takeUnretainedValue() }

  mutating func add(_ binding: Binding) {
    binding.routerPlace = bindings.count
    bindings.append(.passUnretained(binding))
  }

  mutating func remove(_ binding: Binding) {
    let last = bindings.removeLast().takeUnretainedValue()
    if last !== binding {
      last.routerPlace = binding.routerPlace
      bindings[binding.routerPlace] = .passUnretained(last)
    }
    bindings.shrinkIfSparse()
  }
}
