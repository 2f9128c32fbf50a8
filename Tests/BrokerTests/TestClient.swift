import AMQP
import Base

@testable import Broker

/// A connection whose session only notes what the broker tells it.
final class TestClient {
  let peer: Peer
  private let outlet = RecordingOutlet()

  init(vhost: VirtualHost, user: Name) {
    peer = Peer(name: "test", user: user, vhost: vhost, outlet: outlet)
    outlet.peer = peer
  }

  func open(_ number: UInt16 = 1) -> Channel { peer.openChannel(number) }

  func close() { peer.close() }

  /// What happened since the last call.
  func events() -> [Event] {
    defer { outlet.events = [] }
    return outlet.events
  }

  /// The deliveries among what happened since the last call.
  func deliveries() -> [Delivery] {
    events().compactMap { if case .delivered(let delivery) = $0 { delivery } else { nil } }
  }

  /// The bodies among what happened since the last call.
  func bodies() -> [String] { deliveries().map(\.text) }

  /// Gets each event when it happens, in place of `events`.
  func observe(_ body: @escaping (Event) -> Void) { outlet.observer = body }

  /// After so many deliveries from now on the output is full.
  func limitRoom(to count: Int) { outlet.room = count }
}

/// What the broker told a client.
enum Event: Equatable {
  case delivered(Delivery)
  case cancelled(Name, on: UInt16)
  case timedOut(Name, of: Name, after: Int64, on: UInt16)
  case confirmed(UInt64, isMultiple: Bool, on: UInt16)
  case refused(UInt64, isMultiple: Bool, on: UInt16)
  case returned(Message, on: UInt16)
  case commitFailed(BrokerError, on: UInt16)
  case commitRolledBack(on: UInt16)
}

struct Message: Equatable {
  var exchange: Name
  var key: Name
  var properties: [UInt8]
  var body: [UInt8]

  init(
    names: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer
  ) {
    (exchange, key) = RouteMemo.split(names.bytes)
    self.properties = Array(properties)
    self.body = Array(body)
  }

  /// With the properties that the client gets.
  init(_ view: MessageView, _ properties: UnsafeRawBufferPointer) {
    let names = view.names
    self.init(
      names: names, properties: properties,
      body: view.body(behind: view.properties(behind: names)))
  }

  var text: String { String(decoding: body, as: UTF8.self) }
}

struct Delivery: Equatable {
  var consumer: Name
  var channel: UInt16
  var tag: UInt64
  var isRedelivered: Bool
  var message: Message

  var text: String { message.text }
}

private final class RecordingOutlet: Outlet {
  unowned var peer: Peer!
  var events: [Event] = []
  var observer: ((Event) -> Void)?
  var room: Int?

  private func note(_ event: Event) {
    if let observer { observer(event) } else { events.append(event) }
  }

  func deliver(
    _ message: MessageView, to consumer: Consumer, on channel: Channel, tag: UInt64,
    isRedelivered: Bool
  ) {
    deliver(
      message, with: message.properties(behind: message.names), to: consumer, on: channel,
      tag: tag, isRedelivered: isRedelivered)
  }

  func deliver(
    _ message: MessageView, with properties: UnsafeRawBufferPointer, to consumer: Consumer,
    on channel: Channel, tag: UInt64, isRedelivered: Bool
  ) {
    note(
      .delivered(
        Delivery(
          consumer: consumer.tag, channel: channel.number, tag: tag,
          isRedelivered: isRedelivered, message: Message(message, properties))))
    guard let left = room else { return }
    room = left > 1 ? left - 1 : nil
    if left == 1 { peer.roomFilled() }
  }

  func workBegan() {}

  func commitRolledBack(on channel: Channel) {
    note(.commitRolledBack(on: channel.number))
  }
  func commitFailed(_ error: BrokerError, on channel: Channel) {
    note(.commitFailed(error, on: channel.number))
  }

  func consumerTimedOut(
    _ tag: Name, of queue: Name, after milliseconds: Int64, on channel: Channel
  ) {
    note(.timedOut(tag, of: queue, after: milliseconds, on: channel.number))
  }

  func consumerFailed(_ tag: Name, of queue: Name, on channel: Channel) {
    consumerCancelled(tag, on: channel)
  }

  func consumerCancelled(_ tag: Name, on channel: Channel) {
    note(.cancelled(tag, on: channel.number))
  }

  func confirmed(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {
    note(.confirmed(sequence, isMultiple: isMultiple, on: channel.number))
  }

  func refused(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {
    note(.refused(sequence, isMultiple: isMultiple, on: channel.number))
  }

  func returned(
    names: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer, in block: UInt32?, on channel: Channel
  ) {
    note(
      .returned(Message(names: names, properties: properties, body: body), on: channel.number))
  }
}
