import Filters

/// Where bindings of one place in a router lead: each destination once, however many of them lead to
/// it; bindings with filters each for itself. Adding and removing cost the same whatever their number.
/// Bindings keep destinations alive.
struct DestinationList {
  private struct Item {
    let destination: Unmanaged<AnyObject>
    let isExchange: Bool
    /// Bindings of this place that lead there.
    var count: UInt32 = 1

    init(_ end: BindingEnd) {
      switch end {
      case .destination(let found): destination = .passUnretained(found)
      case .exchange(let exchange): destination = .passUnretained(exchange)
      }
      isExchange = end.isExchange
    }

    var key: UInt64 { UInt64(UInt(bitPattern: destination.toOpaque())) &* 0x9E37_79B9_7F4A_7C15 }
  }

  private final class Many {
    var items: [Item] = []
    var places: SpreadDictionary<UInt64, UInt32> = SpreadDictionary()
  }

  /// Most places have one.
  private enum Content {
    case none
    case one(Item)
    case many(Many)
  }

  private var content = Content.none
  private var filtered: FilteredBindings?

  var isEmpty: Bool {
    if case .none = content { filtered == nil } else { false }
  }

  mutating func add(_ binding: Binding) {
    guard binding.filter == nil else {
      let filtered = filtered ?? FilteredBindings()
      filtered.add(binding)
      self.filtered = filtered
      return
    }
    let item = Item(binding.destination)
    switch content {
    case .none: content = .one(item)
    case .one(var only) where only.key == item.key:
      only.count += 1
      content = .one(only)
    case .one(let only):
      let many = Many()
      content = .many(many)
      Self.append(only, to: many)
      Self.append(item, to: many)
    case .many(let many):
      if let place = many.places[item.key] {
        many.items[Int(place)].count += 1
      } else {
        Self.append(item, to: many)
      }
    }
  }

  private static func append(_ item: Item, to many: Many) {
    many.places[item.key] = UInt32(many.items.count)
    many.items.append(item)
  }

  mutating func remove(_ binding: Binding) {
    if let filtered, binding.filter != nil {
      filtered.remove(binding)
      if filtered.isEmpty { self.filtered = nil }
      return
    }
    let key = Item(binding.destination).key
    switch content {
    case .none: break
    case .one(var only):
      only.count -= 1
      content = only.count == 0 ? .none : .one(only)
    case .many(let many):
      guard let place = many.places[key].map({ Int($0) }) else { return }
      many.items[place].count -= 1
      guard many.items[place].count == 0 else { return }
      many.places[key] = nil
      let last = many.items.removeLast()
      if place < many.items.count {
        many.items[place] = last
        many.places[last.key] = UInt32(place)
      }
      if many.items.isEmpty { content = .none } else { many.items.shrinkIfSparse() }
    }
  }

  /// Shows each destination until one of them is enough; returns whether all were shown. Those behind
  /// filters only if these are true of the message.
  @discardableResult
  func forEach(of message: FilteredMessage, _ walk: inout RouteWalk) -> Bool {
    switch content {
    case .none: break
    case .one(let item): guard Self.visit(item, &walk) else { return false }
    case .many(let many):
      for item in many.items where !Self.visit(item, &walk) { return false }
    }
    return filtered?.forEach(of: message, &walk) ?? true
  }

  private static func visit(_ item: Item, _ walk: inout RouteWalk) -> Bool {
    if item.isExchange {
      return item.destination._withUnsafeGuaranteedRef {
        walk.add(unsafeDowncast($0, to: Exchange.self))
      }
    }
    return item.destination._withUnsafeGuaranteedRef {
      walk.add(unsafeDowncast($0, to: Destination.self))
    }
  }
}

/// Bindings with filters of one place in a router.
private final class FilteredBindings {
  // Unsafe but sound: a binding is taken out of its exchange before anybody lets it go.
  private var bindings: [Unmanaged<Binding>] = []

  var isEmpty: Bool { bindings.isEmpty }

  func add(_ binding: Binding) {
    binding.routerPlace = bindings.count
    bindings.append(.passUnretained(binding))
  }

  func remove(_ binding: Binding) {
    let last = bindings.removeLast()
    if binding.routerPlace < bindings.count {
      last._withUnsafeGuaranteedRef { $0.routerPlace = binding.routerPlace }
      bindings[binding.routerPlace] = last
    }
    bindings.shrinkIfSparse()
  }

  func forEach(of message: FilteredMessage, _ walk: inout RouteWalk) -> Bool {
    for binding in bindings {
      let goesOn = binding._withUnsafeGuaranteedRef { walk.add($0, for: message) }
      guard goesOn else { return false }
    }
    return true
  }
}

extension DestinationList? {
  mutating func add(_ binding: Binding) {
    if self == nil { self = DestinationList() }
    self?.add(binding)
  }

  mutating func remove(_ binding: Binding) {
    self?.remove(binding)
    if self?.isEmpty == true { self = nil }
  }
}

extension Array {
  /// Gives memory back when little of much is left, so little that it is copied in no time.
  mutating func shrinkIfSparse() {
    guard count <= 4096, capacity > 16_384 else { return }
    var smaller: [Element] = []
    smaller.reserveCapacity(2 * count)
    smaller.append(contentsOf: self)
    self = smaller
  }
}
