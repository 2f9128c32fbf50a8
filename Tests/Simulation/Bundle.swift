import AMQP
import Base
import Broker

/// A durable queue and exchanges that go with it: each has one binding, to the queue, or to one of the
/// others. They are declared, and go, again and again, and a crash may come at any time. The queue is
/// declared first and all go as one, so that no exchange is ever there without the queue.
final class Bundle {
  private static let queue: Name = "bundle"
  private static let exchanges = (0..<24).map { Name("bundle\($0)") }

  private let life: Life
  private let outlet = DeafOutlet()
  private let peer: Peer
  private let channel: Channel
  /// All is there, as far as this life knows.
  private var isWhole = false
  private var turn = 0

  init?(_ life: Life) {
    guard let vhost = life.broker.vhost("/") else { return nil }
    self.life = life
    peer = Peer(name: "bundle", user: "guest", vhost: vhost, outlet: outlet)
    channel = peer.openChannel(1)
  }

  deinit { peer.close() }

  /// What a start has found.
  static func check(_ broker: Broker) throws(BrokenPromise) {
    guard let vhost = broker.vhost("/"), !vhost.hasQueue(queue) else { return }
    let left = exchanges.count { vhost.hasExchange($0) }
    try promise(left == 0, "what goes together is gone together", "\(left) exchanges are left")
  }

  /// Declares all, or deletes the queue, every few turns.
  func act() throws(BrokenPromise) {
    turn += 1
    guard turn % 3 == 0, isServed else { return }
    do throws(BrokerError) {
      if isWhole {
        try delete()
      } else {
        try declare()
        isWhole = true
      }
    } catch {
      // The broker takes nothing more for now.
      return
    }
    try Self.check(life.broker)
  }

  /// Deletes the queue out of its turn; false if it is not there, or cannot be deleted now.
  func end() -> Bool {
    guard isWhole, isServed else { return false }
    do throws(BrokerError) {
      try delete()
      return true
    } catch {
      return false
    }
  }

  private var isServed: Bool { life.journal.failure == nil && !peer.isWorking }

  private func delete() throws(BrokerError) {
    isWhole = false
    _ = try peer.vhost.deleteQueue(Self.queue, ifUnused: false, ifEmpty: false, on: channel)
    life.world.coverage.note(.cascades)
  }

  private func declare() throws(BrokerError) {
    var queue = QueueDeclaration(name: Self.queue)
    queue.isDurable = true
    _ = try peer.vhost.declareQueue(queue, on: channel)
    for (index, name) in Self.exchanges.enumerated() {
      var exchange = ExchangeDeclaration(name: name, type: "fanout")
      exchange.isDurable = true
      exchange.isAutoDelete = true
      _ = try peer.vhost.declareExchange(exchange, by: peer)
      if index % 3 == 2 {
        _ = try peer.vhost.bindExchange(
          Self.exchanges[index - 1], to: name, key: "", arguments: [:], by: peer)
      } else {
        _ = try peer.vhost.bindQueue(Self.queue, to: name, key: "", arguments: [:], on: channel)
      }
    }
  }
}

/// The bundle's client consumes nothing and publishes nothing, so that it hears nothing.
private final class DeafOutlet: Outlet {
  func deliver(
    _ message: MessageView, to consumer: Consumer, on channel: Channel, tag: UInt64,
    isRedelivered: Bool
  ) {}
  func deliver(
    _ message: MessageView, with properties: UnsafeRawBufferPointer, to consumer: Consumer,
    on channel: Channel, tag: UInt64, isRedelivered: Bool
  ) {}
  func consumerCancelled(_ tag: Name, on channel: Channel) {}
  func consumerTimedOut(
    _ tag: Name, of queue: Name, after milliseconds: Int64, on channel: Channel
  ) {}
  func consumerFailed(_ tag: Name, of queue: Name, on channel: Channel) {}
  func confirmed(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {}
  func refused(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel) {}
  func returned(
    names: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer, in block: UInt32?, on channel: Channel
  ) {}
  func commitFailed(_ error: BrokerError, on channel: Channel) {}
  func commitRolledBack(on channel: Channel) {}
  func workBegan() {}
}
