import AMQP
import Base

/// Queues, exchanges and bindings.
extension Events {
  func created(_ queue: Destination, by peer: Peer) {
    guard isWanted else { return }
    let type = queue.arguments["x-queue-type"]?.text ?? "classic"
    add(
      EventKey.queueCreated,
      Self.with(
        queue.vhost, peer.user,
        [
          EventHeader.name: .string(queue.name.bytes), EventHeader.type: .string(type),
          EventHeader.isDurable: .bool(queue.isDurable),
          EventHeader.isAutoDelete: .bool(queue.isAutoDelete),
          EventHeader.isExclusive: .bool(queue.isExclusive),
          EventHeader.arguments: .table(queue.arguments),
        ]), isDurable: queue.isDurable)
  }

  func deleted(_ queue: Destination, _ ending: QueueEnding, by actor: Name) {
    guard isWanted else { return }
    add(
      EventKey.queueDeleted,
      Self.with(
        queue.vhost, actor,
        [
          EventHeader.name: .string(queue.name.bytes),
          EventHeader.reason: .string(ending.rawValue),
        ]), isDurable: queue.isDurable)
  }

  func created(_ exchange: Exchange, in vhost: VirtualHost, by peer: Peer) {
    guard isWanted else { return }
    add(
      EventKey.exchangeCreated,
      Self.with(
        vhost, peer.user,
        [
          EventHeader.name: .string(exchange.name.bytes),
          EventHeader.type: .string(exchange.type.bytes),
          EventHeader.isDurable: .bool(exchange.isDurable),
          EventHeader.isAutoDelete: .bool(exchange.isAutoDelete),
          EventHeader.isInternal: .bool(exchange.isInternal),
          EventHeader.arguments: .table(exchange.arguments),
        ]), isDurable: exchange.isDurable)
  }

  func deleted(_ exchange: Exchange, in vhost: VirtualHost, by actor: Name) {
    guard isWanted else { return }
    add(
      EventKey.exchangeDeleted,
      Self.with(vhost, actor, [EventHeader.name: .string(exchange.name.bytes)]),
      isDurable: exchange.isDurable)
  }

  func created(_ binding: Binding, in vhost: VirtualHost, by actor: Name) {
    add(EventKey.bindingCreated, binding, in: vhost, by: actor)
  }

  func deleted(_ binding: Binding, in vhost: VirtualHost, by actor: Name) {
    add(EventKey.bindingDeleted, binding, in: vhost, by: actor)
  }

  private func add(_ key: Name, _ binding: Binding, in vhost: VirtualHost, by actor: Name) {
    guard isWanted else { return }
    add(
      key,
      Self.with(
        vhost, actor,
        [
          EventHeader.sourceName: .string(binding.source.name.bytes),
          EventHeader.sourceKind: .string("exchange"),
          EventHeader.destinationName: .string(binding.destination.name.bytes),
          EventHeader.destinationKind: .string(
            binding.destination.isExchange ? "exchange" : "queue"),
          EventHeader.routingKey: .string(binding.key.bytes),
          EventHeader.arguments: .table(MessageBytes.table(binding.arguments)),
        ]), isDurable: binding.isDurable)
  }

  /// The headers, and where it happened and who did it.
  static func with(_ vhost: VirtualHost, _ actor: Name, _ headers: FieldTable) -> FieldTable {
    var headers = headers
    headers.entries.append(.init(name: EventHeader.vhost, value: .string(vhost.name.bytes)))
    headers.entries.append(.init(name: EventHeader.actor, value: .string(actor.bytes)))
    return headers
  }
}
