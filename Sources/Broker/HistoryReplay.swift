import AMQP
import Base
import Filters
import Journal

/// Sends what an exchange has kept to a queue or an exchange that was bound to it, the oldest first. Its
/// client's requests wait for that; what others publish meanwhile may come between.
final class HistoryReplay: Chore {
  private let vhost: VirtualHost
  private let binding: Binding
  private let messages: [KeptMessage]
  private var next = 0

  private static let stepsPerMessage = 8
  private static let bytesPerStep = 1024

  init(_ messages: [KeptMessage], to binding: Binding, in vhost: VirtualHost) {
    self.vhost = vhost
    self.binding = binding
    self.messages = messages
  }

  func advance(_ steps: inout Int) -> Bool {
    while next < messages.count, !binding.isGone, !binding.destination.isDeleted {
      guard steps > 0 else { return false }
      let message = messages[next]
      next += 1
      steps -= Self.stepsPerMessage + message.body.count / Self.bytesPerStep
      send(message, &steps)
    }
    return true
  }

  private func send(_ message: KeptMessage, _ steps: inout Int) {
    let (names, properties, body) = (message.names, message.properties, message.body)
    let content = FilteredMessage(
      names: names.span.bytes, properties: properties.span.bytes,
      headers: PropertyFlags.headers.place(in: properties.span.bytes) ?? 0..<0,
      body: body.span.bytes)
    do throws(BrokerError) {
      let found = try vhost.route(
        along: binding, key: RouteMemo.split(names.span.bytes).key, content)
      steps -= found.steps + found.route.count
      try vhost.broker.storeKept(message, in: found.route)
    } catch {
      // Too many steps, or a log that has failed: as for any message that nobody waits for, it reaches nobody.
    }
  }
}

extension Broker {
  /// Keeps messages that were stored; the log says so as well if they would survive, in the same group.
  func keep(_ all: [RecentMessages.Kept], isPersistent: Bool) {
    for kept in all {
      kept.recent.keep(kept.message)
      guard kept.recent.isDurable, isPersistent, journal.failure == nil else { continue }
      catalog.append(kept.message, of: kept.recent.exchange)
    }
  }

  /// Stores a message that an exchange has kept, with what those behind it note of it.
  fileprivate func storeKept(_ message: KeptMessage, in route: Route) throws(BrokerError) {
    let (names, properties, body) = (message.names, message.properties, message.body)
    let isPersistent = MessageView.isPersistent(properties.span.bytes) && journal.failure == nil
    let kept = RecentMessages.copies(
      route.keepers, names.span.bytes, properties.span.bytes, nil, body.span.bytes)
    var hasRoom = true
    var first = 0
    // Of a wide route each part has a record of its own.
    while first < route.count {
      let end = min(route.count, first + WideStore.queuesMax)
      let part = Route(those: route.destinations[first..<end])
      first = end
      let isStored = try storeWithSettings(
        names: names.span.bytes, properties: properties.span.bytes, body: body.span.bytes, nil,
        in: part, isPersistent: isPersistent)
      hasRoom = hasRoom && isStored
    }
    if hasRoom, route.count > 0 { remember(route.remembrances) }
    keep(kept, isPersistent: isPersistent)
  }
}
