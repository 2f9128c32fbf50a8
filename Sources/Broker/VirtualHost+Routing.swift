import Base
import Filters

extension VirtualHost {
  /// The route of any message; `names` is exchange and key as on the wire.
  func cachedRoute(_ names: RawSpan) throws(BrokerError) -> Route {
    if let route = routes.find(names) { return route }
    let (exchange, key) = RouteMemo.split(names)
    let source = try publishable(exchange)
    var walk = newWalk(isWithoutMessage: true)
    let nothing = FilteredMessage(
      names: names, properties: RawSpan(), headers: 0..<0, body: RawSpan())
    try route(source, [key], nothing, &walk)
    let route = Route(walk)
    routes.insert(names, route)
    return route
  }

  /// All destinations that the exchange, and those behind it, lead to with any of the keys. The message's headers
  /// are a well-formed table. It may have waited at the exchange for its time. A message that nobody publishes is
  /// not refused for an impossible delay, and does not wait.
  func route(
    _ exchange: Exchange, keys: [Name], _ message: FilteredMessage, hasWaited: Bool = false,
    refusesDelay: Bool = true
  ) throws(BrokerError) -> Route {
    var walk = newWalk(isWithoutMessage: false)
    walk.refusesDelay = refusesDelay
    if hasWaited { walk.waited = exchange }
    try route(exchange, keys, message, &walk)
    return Route(walk)
  }

  /// The destinations that a binding leads to with a message, and what finding them cost.
  func route(
    along binding: Binding, key: Name, _ message: FilteredMessage
  ) throws(BrokerError) -> (route: Route, steps: Int) {
    var walk = newWalk(isWithoutMessage: false)
    _ = walk.add(binding, for: message)
    try follow([key], message, &walk, from: binding.source)
    return (Route(walk), walk.steps)
  }

  /// What one exchange finds for a message by itself, whether or not it waits there.
  func matches(_ exchange: Exchange, keys: [Name], _ message: FilteredMessage) -> RouteWalk {
    var walk = newWalk(isWithoutMessage: false)
    match(exchange, keys, message, &walk)
    return walk
  }

  func newWalk(isWithoutMessage: Bool) -> RouteWalk {
    routeMark += 1
    return RouteWalk(
      mark: routeMark, stepsMax: broker.limits.routingStepsMax, isWithoutMessage: isWithoutMessage,
      needsMessage: isWithoutMessage && isTraced)
  }

  private func route(
    _ exchange: Exchange, _ keys: [Name], _ message: FilteredMessage, _ walk: inout RouteWalk
  ) throws(BrokerError) {
    _ = walk.add(exchange)
    try follow(keys, message, &walk, from: exchange)
  }

  /// Visits the exchanges that were reached, and those behind them.
  private func follow(
    _ keys: [Name], _ message: FilteredMessage, _ walk: inout RouteWalk, from exchange: Exchange
  ) throws(BrokerError) {
    // Clients make chains of any length: they are followed without recursion.
    while let next = walk.next() {
      if walk.isAtItsEnd { return }
      try visit(next, keys, message, &walk)
      guard !walk.isTooLong else {
        throw .limitReached(
          .routingSteps(from: exchange.name, in: name, max: broker.limits.routingStepsMax))
      }
    }
  }

  private func visit(
    _ exchange: Exchange, _ keys: [Name], _ message: FilteredMessage, _ walk: inout RouteWalk
  ) throws(BrokerError) {
    // What has waited here was looked at when it came.
    if !walk.hasWaited(at: exchange) {
      if let seen = exchange.seen, !walk.isNew(message, to: seen, now: broker.now) { return }
      if exchange.isDelaying {
        let delay = try walk.delay(of: message)
        guard delay == 0 else {
          return walk.wait(
            at: DelayingExchange(name: exchange.name, vhost: self, milliseconds: delay))
        }
      }
    }
    if let recent = exchange.recent { walk.note(recent, for: message) }
    match(exchange, keys, message, &walk)
    if !walk.hasFound, let name = exchange.alternate, let alternate = exchanges[name] {
      _ = walk.add(alternate)
    }
  }

  private func match(
    _ exchange: Exchange, _ keys: [Name], _ message: FilteredMessage, _ walk: inout RouteWalk
  ) {
    for key in keys {
      guard walk.step() else { return }
      if exchange.name.isEmpty {
        if let found = destinations[key] { guard walk.add(found) else { return } }
      } else {
        exchange.match(key, message, &walk)
        // Other keys make no difference.
        if !exchange.kind.comparesKeys { break }
      }
    }
  }
}
