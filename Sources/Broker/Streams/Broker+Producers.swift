import Base
import Journal

extension Broker {
  /// As `storeWithSettings`, for what a client publishes: streams do not take what they have of its producer. A
  /// message and its sequence are one in the log.
  func storePublished(
    names: RawSpan, properties: RawSpan, body: RawSpan, _ draft: RecordDraft?, in route: Route,
    isPersistent: Bool
  ) throws(BrokerError) -> Bool {
    guard route.keepingCount > 0, journal.failure == nil,
      let mark = try ProducerMark(in: properties)
    else {
      return try storeWithSettings(
        names: names, properties: properties, body: body, draft, in: route,
        isPersistent: isPersistent)
    }
    let isRepeated = route.destinations.contains {
      $0._withUnsafeGuaranteedRef { $0.hasStored(mark) }
    }
    let fresh = isRepeated ? route.only { !$0.hasStored(mark) } : route
    guard fresh.count > 0 else { return true }
    var hasRoom = true
    var mistake: BrokerError?
    together(isLogged: fresh.keepingCount > 0) {
      do throws(BrokerError) {
        hasRoom = try storeWithSettings(
          names: names, properties: properties, body: body, draft, in: fresh,
          isPersistent: isPersistent)
      } catch {
        mistake = error
        return
      }
      for destination in fresh.destinations {
        destination._withUnsafeGuaranteedRef { $0.stored(mark) }
      }
    }
    if let mistake { throw mistake }
    return hasRoom
  }
}
