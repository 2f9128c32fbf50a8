import Base

extension VirtualHost {
  /// The route of a message whose headers are not known; `names` is exchange and key as on the wire.
  func cachedRoute(_ names: RawSpan) throws(BrokerError) -> Route {
    if let route = routes.find(names) { return route }
    let (exchange, key) = RouteMemo.split(names)
    let source = try publishable(exchange)
    var walk = newWalk()
    // Whatever is said without headers does not hold with them.
    try route(source, [key], Self.noHeaders.span.bytes, &walk, stopsAtHeaders: true)
    let route = Route(walk)
    routes.insert(names, route)
    return route
  }

  /// All queues that the exchange, and those behind it, lead to with any of the keys. `headers` is a
  /// well-formed table with its length, or empty.
  func route(_ exchange: Exchange, keys: [Name], headers: RawSpan) throws(BrokerError) -> Route {
    var walk = newWalk()
    try route(exchange, keys, headers, &walk, stopsAtHeaders: false)
    return Route(walk)
  }

  private static let noHeaders: [UInt8] = []

  private func newWalk() -> RouteWalk {
    routeMark += 1
    return RouteWalk(mark: routeMark, stepsMax: broker.limits.routingStepsMax)
  }

  private func route(
    _ exchange: Exchange, _ keys: [Name], _ headers: RawSpan, _ walk: inout RouteWalk,
    stopsAtHeaders: Bool
  ) throws(BrokerError) {
    _ = walk.add(exchange)
    // Clients make chains of any length: they are followed without recursion.
    while let next = walk.next() {
      if walk.needsHeaders, stopsAtHeaders { return }
      visit(next, keys, headers, &walk)
      guard !walk.isTooLong else {
        throw .limitReached(
          .routingSteps(from: exchange.name, in: name, max: broker.limits.routingStepsMax))
      }
    }
  }

  private func visit(
    _ exchange: Exchange, _ keys: [Name], _ headers: RawSpan, _ walk: inout RouteWalk
  ) {
    for key in keys {
      guard walk.step() else { return }
      if exchange.name.isEmpty {
        if let queue = queues[key] { guard walk.add(queue) else { return } }
      } else {
        exchange.match(key, headers: headers, &walk)
        // Other keys make no difference.
        if exchange.kind == .fanout || exchange.kind == .headers { break }
      }
    }
    if !walk.hasFound, let name = exchange.alternate, let alternate = exchanges[name] {
      _ = walk.add(alternate)
    }
  }
}
