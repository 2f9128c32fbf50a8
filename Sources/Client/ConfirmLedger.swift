/// What was published on a channel in confirm mode and not yet confirmed. Numbers count the
/// channel's publishes from 1, on both sides.
struct ConfirmLedger {
  private enum Slot {
    case outstanding
    case tracked(PublishConfirmation)
    /// Confirmed, but something before it is not.
    case settled
  }

  /// A task that waits until everything up to a number is settled.
  private struct Barrier {
    let number: UInt64
    let waiter: Waiter<Void>
  }

  /// How many may be outstanding before `publish` waits.
  let window: Int
  /// Those from `first` on.
  private var slots = Backlog<Slot>()
  /// The lowest number that is not settled.
  private var first: UInt64 = 1
  /// Refused since the last `takeRefused`.
  private var refused = 0
  private var roomWaiters: [Waiter<Void>] = []
  private var barriers: [Barrier] = []

  init(window: Int) {
    self.window = max(1, window)
  }

  var outstanding: Int { slots.count }
  var isFull: Bool { slots.count >= window }

  /// Takes note of one more publish.
  mutating func add(_ confirmation: PublishConfirmation?) {
    slots.append(confirmation.map { .tracked($0) } ?? .outstanding)
  }

  /// Something to wait for before the next publish; nil if there is room.
  mutating func room() -> Waiter<Void>? {
    guard isFull else { return nil }
    let waiter = Waiter<Void>()
    roomWaiters.append(waiter)
    return waiter
  }

  /// Something to wait for until all that is outstanding now is settled; nil if nothing is.
  mutating func barrier() -> Waiter<Void>? {
    guard !slots.isEmpty else { return nil }
    let waiter = Waiter<Void>()
    barriers.append(Barrier(number: first + UInt64(slots.count) - 1, waiter: waiter))
    return waiter
  }

  mutating func takeRefused() -> Int {
    defer { refused = 0 }
    return refused
  }

  /// The broker has settled number `tag`, and with `isMultiple` all before it. Returns whom to wake.
  mutating func settle(tag: UInt64, isMultiple: Bool, isAccepted: Bool) -> [Waiter<Void>] {
    guard tag >= first, tag - first < UInt64(slots.count) else { return [] }
    let last = Int(tag - first)
    for index in (isMultiple ? 0 : last)...last { settle(index, isAccepted) }
    while slots.count > 0, case .settled = slots[0] {
      _ = slots.popFirst()
      first += 1
    }
    return takeWaiters()
  }

  /// Marks the confirmation of a returned message: the broker confirms it too, but it went nowhere.
  mutating func returned(_ message: ReturnedMessage) {
    for index in 0..<slots.count {
      if case .tracked(let confirmation) = slots[index], confirmation.takeReturned(message) {
        return
      }
    }
  }

  /// The channel has ended: nothing will be settled any more.
  mutating func fail(_ error: ClientError) -> [Waiter<Void>] {
    while let slot = slots.popFirst() {
      if case .tracked(let confirmation) = slot { confirmation.settle(.failure(error)) }
    }
    defer {
      roomWaiters = []
      barriers = []
    }
    return roomWaiters + barriers.map(\.waiter)
  }

  private mutating func settle(_ index: Int, _ isAccepted: Bool) {
    switch slots[index] {
    case .settled: return
    case .outstanding: break
    case .tracked(let confirmation):
      confirmation.settle(isAccepted ? .success(()) : .failure(.refused(count: 1)))
    }
    if !isAccepted { refused += 1 }
    slots[index] = .settled
  }

  /// Room is given in halves of the window, so that publishers wake up for more than one message.
  private mutating func takeWaiters() -> [Waiter<Void>] {
    var woken: [Waiter<Void>] = []
    if !roomWaiters.isEmpty, slots.count <= window / 2 {
      swap(&woken, &roomWaiters)
    }
    if let barrier = barriers.first, barrier.number < first {
      woken += barriers.filter { $0.number < first }.map(\.waiter)
      barriers.removeAll { $0.number < first }
    }
    return woken
  }
}
