import Base
import Filters

/// What one walk over the exchanges has found.
struct RouteWalk {
  private let mark: UInt64
  private let stepsMax: Int
  /// What was done beyond reaching each destination once: look-ups, comparisons, meeting one again.
  private(set) var steps = 0
  fileprivate(set) var destinations: ContiguousArray<Unmanaged<Destination>> = []
  private(set) var durableCount = 0
  /// All of them are plain.
  private(set) var isPlain = true
  /// Those that are still to be visited.
  private(set) var exchanges: [Exchange] = []
  /// A binding fits at the exchange that is being visited.
  private(set) var hasFound = false
  /// An exchange or a filter on the way looks at the message, or it is traced.
  private(set) var needsMessage: Bool
  /// What becomes of the message besides reaching destinations; where it waits for its time the walk does not go on.
  private(set) var effects = RouteEffects()
  /// The binding that an exchange has chosen which sends a message to one of them.
  private(set) var chosen: Unmanaged<Binding>?
  /// The exchange at which the message has waited for its time.
  var waited: Exchange?
  /// An impossible delay is a mistake of whoever publishes.
  var refusesDelay = true
  /// There is none to look at: the walk ends where one is needed.
  let isWithoutMessage: Bool
  /// No exchange on the way looks at the key.
  private(set) var isKeyless = true

  /// `needsMessage` says that each message is to be looked at in any case.
  init(mark: UInt64, stepsMax: Int, isWithoutMessage: Bool = false, needsMessage: Bool = false) {
    self.mark = mark
    self.isWithoutMessage = isWithoutMessage
    self.stepsMax = stepsMax
    self.needsMessage = needsMessage
  }

  var isTooLong: Bool { steps > stepsMax }

  /// What was found so far does not hold for every message.
  var isAtItsEnd: Bool { needsMessage && isWithoutMessage }

  /// The next exchange to visit.
  mutating func next() -> Exchange? {
    guard let exchange = exchanges.popLast() else { return nil }
    hasFound = false
    if exchange.needsMessage { needsMessage = true }
    if exchange.needsKey { isKeyless = false }
    return exchange
  }

  /// Notes what the walk costs; returns whether it goes on.
  @inline(__always)
  mutating func step(_ count: Int = 1) -> Bool {
    steps &+= count
    return steps <= stepsMax
  }

  /// A binding fits, if its filter is true of the message; returns whether the walk goes on.
  mutating func add(_ binding: Binding, for message: FilteredMessage) -> Bool {
    guard let filter = binding.filter else { return add(binding.destination) }
    needsMessage = true
    guard !isWithoutMessage else { return false }
    let isTrue = filter.matches(message, steps: &steps)
    guard isTrue, !isTooLong else { return !isTooLong }
    return add(binding.destination)
  }

  /// How long the message is to wait, in milliseconds.
  func delay(of message: FilteredMessage) throws(BrokerError) -> Int64 {
    do throws(BrokerError) {
      return try MessageDelay.milliseconds(in: message.headerTable)
    } catch {
      guard !refusesDelay else { throw error }
      return 0
    }
  }

  func hasWaited(at exchange: Exchange) -> Bool { waited === exchange }

  /// The message waits at the exchange that is being visited.
  mutating func wait(at exchange: DelayingExchange) {
    hasFound = true
    effects.delaying.append(exchange)
  }

  /// Whether an exchange that drops repeated messages has not had such a message before.
  mutating func isNew(_ message: FilteredMessage, to seen: SeenValues, now: Int64) -> Bool {
    guard let value = seen.wanted.value(in: message.headerTable, &self) else { return true }
    guard !seen.has(value, now: now) else {
      effects.isRepeated = true
      return false
    }
    let until = seen.wanted.until(message.headerTable, now: now, &self)
    effects.remembrances.append(Remembrance(values: seen, value: value, until: until))
    return true
  }

  /// An exchange on the way keeps messages, unless they say that they are not to be kept.
  mutating func note(_ recent: RecentMessages, for message: FilteredMessage) {
    if RecentMessages.wants(message, &self) { effects.keepers.append(recent) }
  }

  /// What became of a binding that is to have the message alone.
  enum Choice {
    case taken
    /// It leads to what is deleted, or its filter is not true.
    case passed
    /// The walk does not go on.
    case ended
  }

  /// Tries one of the bindings of which one is to have the message.
  mutating func choose(_ binding: Binding, for message: FilteredMessage) -> Choice {
    if let filter = binding.filter {
      needsMessage = true
      guard !isWithoutMessage else { return .ended }
      let isTrue = filter.matches(message, steps: &steps)
      guard !isTooLong else { return .ended }
      guard isTrue else { return step() ? .passed : .ended }
    }
    guard !binding.destination.isDeleted else { return step() ? .passed : .ended }
    chosen = .passUnretained(binding)
    return add(binding.destination) ? .taken : .ended
  }

  mutating func add(_ end: BindingEnd) -> Bool {
    switch end {
    case .destination(let destination): add(destination)
    case .exchange(let exchange): add(exchange)
    }
  }

  /// A binding that fits leads there; returns whether the walk goes on.
  mutating func add(_ destination: Destination) -> Bool {
    // Bindings of what is deleted are taken out little by little.
    guard !destination.isDeleted, destination.isRoutable else { return step() }
    hasFound = true
    guard destination.routeMark != mark else { return step() }
    destination.routeMark = mark
    destinations.append(.passUnretained(destination))
    if destination.isDurable { durableCount += 1 }
    if !destination.isPlain { isPlain = false }
    return true
  }

  mutating func add(_ exchange: Exchange) -> Bool {
    guard !exchange.isDeleted else { return step() }
    hasFound = true
    if exchange.routeMark != mark {
      exchange.routeMark = mark
      exchanges.append(exchange)
    }
    return step()
  }
}
