import AMQP
import Base
import Journal

extension Channel {
  /// Stores a message, and notes of it what exchanges on its way want, as one in the log. One that was refused
  /// is not noted, and one that reached nobody is not remembered as seen: its publisher may try again.
  func storeRemembered(
    _ names: RawSpan, _ properties: RawSpan, _ body: RawSpan, _ draft: RecordDraft?,
    in route: Route, isPersistent: Bool, isMandatory: Bool
  ) throws(BrokerError) {
    // What it repeats may not be in the log yet, and is not to be promised before it is.
    if route.isRepeated { confirms.isDurable = true }
    guard !route.remembrances.isEmpty || !route.keepers.isEmpty else {
      return try store(
        names, properties, body, draft, in: route, isPersistent: isPersistent,
        isMandatory: isMandatory)
    }
    // The body's memory may become the log's.
    let kept = RecentMessages.copies(route.keepers, names, properties, draft, body)
    let isKeptDurable = isPersistent && route.keepers.contains(where: \.isDurable)
    if isKeptDurable { confirms.isDurable = true }
    confirms.isLastRefused = false
    var mistake: BrokerError?
    broker.together(
      isLogged: route.count <= WideStore.queuesMax
        && (isKeptDurable || route.remembrances.contains(where: \.values.holder.isDurable))
    ) {
      do throws(BrokerError) {
        // What waits for its time has been stored.
        guard route.count > 0 || route.delaying.isEmpty else {
          broker.remember(route.remembrances)
          return broker.keep(kept, isPersistent: isPersistent)
        }
        try store(
          names, properties, body, draft, in: route, isPersistent: isPersistent,
          isMandatory: isMandatory)
      } catch {
        mistake = error
        return
      }
      guard !confirms.isLastRefused else { return }
      // A wide route is remembered when the message is stored.
      if route.count > 0, route.count <= WideStore.queuesMax { broker.remember(route.remembrances) }
      broker.keep(kept, isPersistent: isPersistent)
    }
    if let mistake { throw mistake }
  }
}
