import AMQP
import Base

/// Messages that are repeated, and what exchanges and queues remember to know them by.
extension Broker {
  /// Remembers values of messages that were stored; the log says so as well, in the same group if their
  /// message is in one.
  func remember(_ all: some Sequence<Remembrance>) {
    for each in all {
      each.values.remember(each.value, until: each.until, now: now)
      guard each.values.holder.isDurable, journal.failure == nil else { continue }
      catalog.append(each)
    }
  }

  /// Runs what may write several records, which are one if they are in the log at all.
  func together(isLogged: Bool, _ body: () -> Void) {
    if isLogged { journal.together(body) } else { body() }
  }

  /// The queues of a route that have not had such a message lately, with what they are to remember of it.
  func withoutRepeated(
    _ route: Route, _ names: RawSpan, _ properties: RawSpan
  ) throws(BrokerError) -> (Route, [(queue: ObjectIdentifier, remembrance: Remembrance)]) {
    guard route.destinations.contains(where: { $0._withUnsafeGuaranteedRef { $0.seen != nil } })
    else {
      return (route, [])
    }
    let headers = properties.extracting(PropertyFlags.headers.place(in: properties) ?? 0..<0)
    var walk = RouteWalk(mark: 0, stepsMax: limits.routingStepsMax)
    var repeated: Set<ObjectIdentifier> = []
    var remembrances: [(queue: ObjectIdentifier, remembrance: Remembrance)] = []
    for destination in route.destinations {
      let destination = destination.takeUnretainedValue()
      guard let seen = destination.seen, walk.step(),
        let value = seen.wanted.value(in: headers, &walk)
      else { continue }
      guard !seen.has(value, now: now) else {
        repeated.insert(ObjectIdentifier(destination))
        continue
      }
      let until = seen.wanted.until(headers, now: now, &walk)
      remembrances.append(
        (ObjectIdentifier(destination), Remembrance(values: seen, value: value, until: until)))
    }
    guard !walk.isTooLong else {
      let (exchange, _) = RouteMemo.split(names)
      throw .limitReached(
        .routingSteps(from: exchange, in: vhostName(of: route), max: limits.routingStepsMax))
    }
    guard !repeated.isEmpty else { return (route, remembrances) }
    return (
      Route(those: route.destinations[...]) { !repeated.contains(ObjectIdentifier($0)) },
      remembrances
    )
  }

  private func vhostName(of route: Route) -> Name {
    route.destinations.first.map { $0.takeUnretainedValue().vhost.name } ?? ""
  }
}
