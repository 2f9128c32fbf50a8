import AMQP
import Base
import Journal

/// Copies of what clients publish and get, for whoever listens to `amq.rabbitmq.trace` of a virtual host that is
/// traced; see Specs/Events.md. Copies are made where messages are routed and delivered, and stored behind that:
/// storing one may deliver others, which must not happen in the middle of a delivery.
final class Firehose {
  static let exchangeName: Name = "amq.rabbitmq.trace"

  private struct Copy {
    let message: OwnMessage
    // Unsafe but sound: the broker keeps its virtual hosts.
    unowned(unsafe) let vhost: VirtualHost
    unowned(unsafe) let exchange: Exchange
  }

  private var copies = Backlog<Copy>()
  /// Copies that were not made for want of room, since listeners and the operator were last told.
  private var droppedCount = 0
  private var untoldCount = 0

  var isEmpty: Bool { copies.isEmpty }

  // MARK: What happens

  /// A message was routed; `block` says what its properties are.
  func published(
    names: RawSpan, _ block: PropertyBlock, _ properties: RawSpan, _ body: RawSpan,
    to route: Route, on channel: Channel
  ) {
    guard let exchange = listened(in: channel.vhost) else { return }
    guard hasRoom(for: body.byteCount, channel.broker) else { return }
    let (source, key) = RouteMemo.split(names)
    var trace = TraceHeaders(
      source, keys: Self.keys(key, properties, block),
      MessageBytes.decode(properties), on: channel)
    trace.add(routedTo: route.destinations.lazy.map { $0.takeUnretainedValue().name })
    add(trace, key: Self.key("publish.", source), body, in: channel.vhost, exchange)
  }

  /// A message goes to a client, of a queue that still has it.
  func delivered(_ entry: Entry, _ record: UnsafeRawPointer, of lane: Lane, on channel: Channel) {
    let view = MessageView(record, in: entry.location.block)
    delivered(
      view, channel.properties(of: view, entry, in: lane), from: lane.queue,
      isRedelivered: entry.isRedelivered, on: channel)
  }

  func delivered(
    _ view: MessageView, _ properties: UnsafeRawBufferPointer, from queue: Queue,
    isRedelivered: Bool, on channel: Channel
  ) {
    guard let exchange = listened(in: queue.vhost) else { return }
    let names = view.names
    let (source, key) = RouteMemo.split(names.bytes)
    guard source != Self.exchangeName else { return }
    let decoded = MessageBytes.decode(properties.bytes)
    // Or what is traced because of a trace would be traced for ever.
    guard decoded.headers?["x-first-death-exchange"] != .string(Self.exchangeName.bytes)
    else { return }
    let body = view.body(behind: view.properties(behind: names))
    guard hasRoom(for: body.count, channel.broker) else { return }
    var trace = TraceHeaders(
      source, keys: Self.keys(key, decoded.headers), decoded, on: channel)
    trace.add(isRedelivered: isRedelivered)
    add(trace, key: Self.key("deliver.", queue.name), body.bytes, in: queue.vhost, exchange)
  }

  /// The exchange for copies, if somebody listens.
  private func listened(in vhost: VirtualHost) -> Exchange? {
    guard let exchange = vhost.exchanges[Self.exchangeName], !exchange.bindings.isEmpty
    else { return nil }
    return exchange
  }

  /// There is memory for a copy; otherwise that is counted.
  private func hasRoom(for bodySize: Int, _ broker: Broker) -> Bool {
    let size = copies.bytes + min(bodySize, BrokerLimits.tracedBodyMax)
    let account = broker.account
    guard size > broker.limits.traceBytesMax || account.pinned > account.limitBytes - size
    else { return true }
    droppedCount += 1
    untoldCount += 1
    return false
  }

  private func add(
    _ trace: TraceHeaders, key: Name, _ body: RawSpan, in vhost: VirtualHost,
    _ exchange: Exchange
  ) {
    var trace = trace
    let size = min(body.byteCount, BrokerLimits.tracedBodyMax)
    if size < body.byteCount { trace.add(bodySize: body.byteCount) }
    var properties = BasicProperties()
    properties.headers = trace.table
    let message = OwnMessage(
      to: Self.exchangeName, key: key, properties,
      body: body.extracting(..<size).withUnsafeBytes { Array($0) })
    copies.append(Copy(message: message, vhost: vhost, exchange: exchange), bytes: message.bytes)
    vhost.broker.account.add(message.bytes, to: .events)
  }

  /// Cut where it is longer than a key may be.
  private static func key(_ prefix: Name, _ name: Name) -> Name { Name(prefix.bytes + name.bytes) }

  /// The routing key, and those of the headers CC and BCC, which were read before.
  private static func keys(
    _ key: Name, _ properties: RawSpan, _ block: PropertyBlock
  ) -> [Name] {
    do throws(BrokerError) {
      let selected = try SenderSelection(
        in: properties.extracting(block.headers), keysMax: .max)
      return selected?.keys(with: key) ?? [key]
    } catch {
      invariantFailed("headers that were read before are malformed")
    }
  }

  private static func keys(_ key: Name, _ headers: FieldTable?) -> [Name] {
    guard case .array(let values)? = headers?["CC"] else { return [key] }
    return [key]
      + values.compactMap { if case .string(let bytes) = $0 { Name(bytes) } else { nil } }
  }

  // MARK: Storing

  /// Stores the copies that there are.
  func store(in broker: Broker) {
    while let copy = copies.first {
      broker.account.add(-copies.removeFirst(), to: .events)
      broker.send(copy.message, to: copy.exchange, in: copy.vhost, isPersistent: false)
    }
  }

  /// Listeners to events hear of what was not copied in this turn.
  func tellDropped(in broker: Broker) {
    guard droppedCount > 0 else { return }
    broker.events.dropped(traces: droppedCount)
    droppedCount = 0
  }

  /// How many copies found no room since the last call.
  func takeDropped() -> Int {
    defer { untoldCount = 0 }
    return untoldCount
  }
}
