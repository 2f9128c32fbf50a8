import AMQP
import Base
import Broker

/// A guest's connection in one life of the broker, with one channel that confirms.
final class GuestVisit: Outlet {
  let life: Life
  private(set) var peer: Peer!
  private(set) var channel: Channel!
  private unowned let guest: Guest
  /// The broker's log has failed: nothing more is asked for.
  var isOver = false
  private var unconfirmed: [(tag: UInt64, parcel: Parcel)] = []
  private var published: UInt64 = 0
  private var isEnded = false

  init?(_ guest: Guest, in life: Life) {
    guard let vhost = life.broker.vhost("/") else { return nil }
    self.guest = guest
    self.life = life
    peer = Peer(name: guest.name, user: "guest", vhost: vhost, outlet: self)
    channel = peer.openChannel(1)
    do throws(BrokerError) {
      try channel.startConfirming()
    } catch {
      invariantFailed("a new channel cannot confirm: \(error)")
    }
  }

  var isServed: Bool {
    !isOver && life.journal.failure == nil && !peer.isWorking && life.broker.alarm == nil
  }

  /// Deliveries wait until it is known that it has taken those before.
  var isHeldBack: Bool { !isEnded && !peer.hasRoom }
  /// It takes all at once.
  func makeRoom() { if isHeldBack { peer.roomMade() } }

  func end() {
    isEnded = true
    peer.close()
  }

  func publish(
    _ parcel: Parcel, to exchange: Name, key: Name, _ properties: BasicProperties
  ) throws(BrokerError) {
    var names = ByteBuffer()
    names.append(exchange)
    names.append(key)
    var block = ByteBuffer()
    properties.encode(into: &block)
    published += 1
    unconfirmed.append((published, parcel))
    let (nameBytes, blockBytes, body) = (Array(names.readable), Array(block.readable), parcel.body)
    try channel.publish(
      names: nameBytes.span.bytes, isMandatory: false, properties: blockBytes.span.bytes,
      body: body.span.bytes)
  }

  /// Publishes nothing but a key.
  func publish(to key: Name) throws(BrokerError) {
    var names = ByteBuffer()
    names.append("" as Name)
    names.append(key)
    published += 1
    let (nameBytes, properties, body) = (Array(names.readable), [0, 0] as [UInt8], [UInt8]())
    try channel.publish(
      names: nameBytes.span.bytes, isMandatory: false, properties: properties.span.bytes,
      body: body.span.bytes)
  }

  // MARK: Outlet

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
    guard !isEnded else { return }
    let names = message.names
    guest.hear(
      Arrival(
        consumer: consumer.tag.description, tag: tag, isRedelivered: isRedelivered,
        date: life.broker.now, time: life.broker.time, exchange: Self.exchange(names),
        properties: Self.decoded(properties),
        body: Array(message.body(behind: message.properties(behind: names)))))
  }

  private static func exchange(_ names: UnsafeRawBufferPointer) -> Name {
    Name(Array(names[1..<1 + Int(names[0])]))
  }

  private static func decoded(_ bytes: UnsafeRawBufferPointer) -> BasicProperties {
    var reader = ByteReader(bytes.bytes)
    do throws(MalformedInput) {
      return try BasicProperties(from: &reader)
    } catch {
      invariantFailed("a guest got properties that are malformed")
    }
  }

  func confirmed(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {
    guest.hearConfirm(of: take(upTo: sequence, isMultiple: true))
  }

  /// What is refused alone is the last publish; those before it are still open.
  func refused(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {
    guest.hearRefusal(of: take(upTo: sequence, isMultiple: isMultiple))
  }

  private func take(upTo sequence: UInt64, isMultiple: Bool) -> [Parcel] {
    let isMeant = { (tag: UInt64) in isMultiple ? tag <= sequence : tag == sequence }
    defer { unconfirmed.removeAll { isMeant($0.tag) } }
    return unconfirmed.filter { isMeant($0.tag) }.map(\.parcel)
  }

  func consumerCancelled(_ tag: Name, on channel: Channel) { guest.hearEnd(of: tag.description) }
  func consumerTimedOut(
    _ tag: Name, of queue: Name, after milliseconds: Int64, on channel: Channel
  ) {
    guest.hearTimeOut(of: tag.description)
  }
  func consumerFailed(_ tag: Name, of queue: Name, on channel: Channel) {
    guest.hearEnd(of: tag.description)
  }
  func returned(
    names: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer, in block: UInt32?, on channel: Channel
  ) {}
  func commitFailed(_ error: BrokerError, on channel: Channel) {}
  func commitRolledBack(on channel: Channel) {}
  func workBegan() {}
}
