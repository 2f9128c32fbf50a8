import AMQP
import Base

/// What happens in the broker, told to whoever listens to the exchange `amq.rabbitmq.event`, as RabbitMQ's
/// event-exchange plug-in does; see Specs/Events.md. Nothing is made while nobody listens.
public final class Events {
  static let exchangeName: Name = "amq.rabbitmq.event"

  private struct Event {
    let key: Name
    let headers: FieldTable
    let time: Int64
    /// It has happened when the log is durable up to here.
    let position: Int
  }

  // Unsafe but sound: the broker owns this.
  unowned(unsafe) let broker: Broker
  private let vhost: VirtualHost
  private let exchange: Exchange
  private var waiting = Backlog<Event>()
  /// Events for which there was no room since the listeners were last told.
  private var droppedCount = 0
  /// The same since the operator was.
  private var untoldCount = 0
  private var isFailureTold = false

  private static let sentPerTurn = 1024
  /// Sent however long the turn has taken.
  private static let sentPerTurnMin = 64

  init(_ broker: Broker) {
    guard let vhost = broker.vhost(VirtualHost.defaultName),
      let exchange = vhost.exchanges[Self.exchangeName]
    else { invariantFailed("there is no exchange for events") }
    self.broker = broker
    self.vhost = vhost
    self.exchange = exchange
  }

  /// Somebody listens. A start tells nothing of what it finds.
  public var isWanted: Bool { !exchange.bindings.isEmpty && !broker.isRecovering }

  /// Some can be sent in the next turn.
  var hasMore: Bool {
    guard let first = waiting.first else { return false }
    return first.position <= broker.journal.durablePosition || broker.journal.failure != nil
  }

  /// Something has happened, or will have when the log is durable as far as it is, if `isDurable`.
  func add(_ key: Name, _ headers: FieldTable, isDurable: Bool = false) {
    // Once some are dropped, so are those behind, until that can be told in its place.
    guard droppedCount == 0, waiting.bytes < broker.limits.eventBytesMax else {
      droppedCount += 1
      untoldCount += 1
      return
    }
    let event = Event(
      key: key, headers: headers, time: broker.now,
      position: isDurable ? broker.journal.endPosition : 0)
    let bytes = 160 + headers.memoryBytes
    waiting.append(event, bytes: bytes)
    broker.account.add(bytes, to: .events)
  }

  /// Sends what has happened, as far as a turn may take.
  func advance() {
    tellFailure()
    var left = Self.sentPerTurn
    while hasMore, left > 0, left > Self.sentPerTurn - Self.sentPerTurnMin || !broker.isTurnLong() {
      left -= 1
      sendFirst()
    }
    guard droppedCount > 0, waiting.isEmpty else { return }
    let count = droppedCount
    droppedCount = 0
    add(EventKey.eventsDropped, [EventHeader.count: .int64(Int64(count))])
  }

  /// The broker stops: what has happened is in the log before what is told of it.
  func finish() {
    while !waiting.isEmpty { sendFirst() }
  }

  private func sendFirst() {
    guard let event = waiting.first else { return }
    broker.account.add(-waiting.removeFirst(), to: .events)
    // A log that has failed does not know of it, and nobody was told that it happened.
    guard broker.journal.failure == nil || event.position <= broker.journal.durablePosition
    else { return }
    var properties = BasicProperties()
    properties.deliveryMode = 2
    properties.timestamp = UInt64(max(0, event.time)) / 1000
    var headers = event.headers
    headers.entries.append(.init(name: EventHeader.milliseconds, value: .int64(event.time)))
    properties.headers = headers
    broker.send(
      OwnMessage(to: Self.exchangeName, key: event.key, properties), to: exchange, in: vhost,
      isPersistent: true)
  }

  private func tellFailure() {
    guard let reason = broker.journal.failure, !isFailureTold else { return }
    isFailureTold = true
    guard isWanted else { return }
    add(
      EventKey.journalFailed,
      [EventHeader.reason: .string(reason), EventHeader.node: .string(broker.node.bytes)])
  }

  /// How many events found no room since the last call.
  func takeDropped() -> Int {
    defer { untoldCount = 0 }
    return untoldCount
  }
}
