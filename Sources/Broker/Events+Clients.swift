import AMQP
import Base

/// Connections, channels, consumers, and what makes them wait.
extension Events {
  /// `details` is what the session knows of the connection.
  public func opened(_ peer: Peer, _ details: FieldTable) {
    guard isWanted else { return }
    var headers = Self.identity(of: peer)
    headers.entries += details.entries
    headers.entries.append(.init(name: EventHeader.node, value: .string(broker.node.bytes)))
    add(EventKey.connectionCreated, Self.with(peer.vhost, peer.user, headers))
  }

  func closed(_ peer: Peer) {
    guard isWanted else { return }
    var headers = Self.identity(of: peer)
    headers.entries.append(.init(name: EventHeader.node, value: .string(broker.node.bytes)))
    add(EventKey.connectionClosed, Self.with(peer.vhost, peer.user, headers))
  }

  private static func identity(of peer: Peer) -> FieldTable {
    let name = FieldValue.string(peer.name)
    return [
      EventHeader.name: name, EventHeader.process: name,
      EventHeader.user: .string(peer.user.bytes),
    ]
  }

  func opened(_ channel: Channel) { add(EventKey.channelCreated, channel) }

  func closed(_ channel: Channel) { add(EventKey.channelClosed, channel) }

  private func add(_ key: Name, _ channel: Channel) {
    guard isWanted else { return }
    let (peer, name) = (channel.peer, FieldValue.string(channel.name))
    add(
      key,
      Self.with(
        channel.vhost, peer.user,
        [
          EventHeader.name: name, EventHeader.process: name,
          EventHeader.connection: .string(peer.name),
          EventHeader.number: .int64(Int64(channel.number)),
          EventHeader.user: .string(peer.user.bytes),
        ]))
  }

  func started(_ consumer: Consumer) {
    guard isWanted else { return }
    add(
      EventKey.consumerCreated, consumer,
      [
        EventHeader.isExclusive: .bool(consumer.isExclusive),
        EventHeader.needsAcknowledgement: .bool(!consumer.isAutomatic),
        EventHeader.prefetch: .int64(Int64(consumer.prefetch)),
        EventHeader.arguments: .table(consumer.arguments),
      ])
  }

  func ended(_ consumer: Consumer) {
    guard isWanted else { return }
    add(EventKey.consumerDeleted, consumer, [:])
  }

  func timedOut(_ consumer: Consumer, after milliseconds: Int64) {
    guard isWanted else { return }
    add(EventKey.consumerTimedOut, consumer, [EventHeader.timeout: .int64(milliseconds)])
  }

  private func add(_ key: Name, _ consumer: Consumer, _ more: FieldTable) {
    let channel = consumer.channel
    var headers: FieldTable = [
      EventHeader.consumerTag: .string(consumer.tag.bytes),
      EventHeader.queue: .string(consumer.queue.name.bytes),
      EventHeader.channel: .string(channel.name),
    ]
    headers.entries += more.entries
    add(key, Self.with(channel.vhost, channel.peer.user, headers))
  }

  /// A client has said who it is; `error` is why it may not come in.
  public func loggedIn(_ user: Name, mechanism: Name, connection: String, error: String?) {
    guard isWanted else { return }
    var headers: FieldTable = [
      EventHeader.name: .string(user.bytes), EventHeader.mechanism: .string(mechanism.bytes),
      EventHeader.connection: .string(connection),
    ]
    if let error {
      headers.entries.append(.init(name: EventHeader.error, value: .string(error)))
    }
    add(error == nil ? EventKey.loginSucceeded : EventKey.loginFailed, headers)
  }

  /// Publishers are blocked for another reason than before, or no longer.
  func alarmChanged(from before: String?, to after: String?) {
    guard isWanted else { return }
    for source in ["memory", "disk"] {
      let (was, isSet) = (before?.contains(source) == true, after?.contains(source) == true)
      guard was != isSet else { continue }
      add(
        isSet ? EventKey.alarmSet : EventKey.alarmCleared,
        [EventHeader.source: .string(source), EventHeader.node: .string(broker.node.bytes)])
    }
  }

  /// Copies of traced messages found no room.
  func dropped(traces count: Int) {
    guard isWanted else { return }
    add(EventKey.tracesDropped, [EventHeader.count: .int64(Int64(count))])
  }
}
