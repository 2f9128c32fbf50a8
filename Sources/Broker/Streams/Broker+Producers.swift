import Base
import Journal

extension Broker {
  /// As `storeWithSettings`, for what a client publishes: streams do not take what they have of its producer.
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
    return try storeWithSettings(
      names: names, properties: properties, body: body, draft, in: fresh,
      isPersistent: isPersistent, mark: mark)
  }
}
