import AMQP
import Base
import Client
import IO

/// One connection that consumes from one or more queues, checks order, measures latency, and
/// acknowledges.
final class BenchConsumer: WireSink {
  static let channel: UInt16 = 1

  let connection: WireConnection
  private let index: Int
  private let options: BenchOptions
  private let control: BenchControl
  private let hasOneQueue: Bool
  private var tally: Tally
  private(set) var hasFailed = false
  /// Deliveries so far.
  private(set) var delivered = 0

  /// What changes with every delivery: kept together, so that the loop over a received batch can
  /// hold it in registers and write it back once.
  private struct Tally {
    var order: OrderCheck
    var latency = LatencyHistogram()
    /// When the batch came.
    var now: Int64 = 0
    var deliveries = 0
    var bytes = 0
    var misordered = 0
    var foreign = 0
    /// Deliveries since the last acknowledgement, and the youngest's tag.
    var unacknowledged = 0
    var lastTag: UInt64 = 0
  }

  /// Opens the connection and begins to consume.
  init(index: Int, topology: BenchTopology, control: BenchControl) throws(ClientError) {
    options = topology.options
    self.index = index
    self.control = control
    let queues = topology.queues(ofConsumer: index)
    hasOneQueue = queues.count == 1
    // Without publishers, what is consumed was published by an earlier run.
    let publishers = options.publishers == 0 ? nil : options.publishers
    tally = Tally(order: OrderCheck(queues: queues.count, publishers: publishers))
    var wire = WireOptions()
    wire.connectionName = "\(options.name) consumer \(index)"
    wire.kernelReceiveSize = 1 << 20
    connection = try WireConnection(options.url, wire)
    try connection.openChannel(Self.channel)
    if options.prefetch > 0 {
      let qos = BasicQos(prefetchSize: 0, prefetchCount: UInt16(options.prefetch))
      try connection.call(.basicQos(qos), channel: Self.channel)
    }
    for (number, queue) in queues.enumerated() {
      let consume = BasicConsume(
        queue: topology.queues[queue], consumerTag: Self.consumerTag(number),
        noAck: options.acknowledgeEvery == 0)
      try connection.call(.basicConsume(consume), channel: Self.channel, sink: self)
    }
  }

  /// Takes what the broker has sent: one read, all deliveries in it, one write of
  /// acknowledgements.
  func receive() {
    attempt { () throws(ClientError) in
      guard try connection.fill() else { return }
      try takeAll()
    }
  }

  /// Takes what came together with the last answer.
  func takeBuffered() {
    attempt { () throws(ClientError) in try takeAll() }
  }

  var wantsWrite: Bool { !hasFailed && !connection.output.isEmpty }

  func flush() {
    attempt { () throws(ClientError) in _ = try connection.flushAvailable() }
  }

  func tick() {
    attempt { () throws(ClientError) in try connection.tick() }
  }

  /// Acknowledges what is left and says goodbye.
  func close() {
    attempt { () throws(ClientError) in
      acknowledge(&tally)
      try connection.close()
    }
  }

  /// Hands over the latencies so far and begins anew.
  func takeLatency() -> LatencyHistogram {
    defer { tally.latency.removeAll() }
    return tally.latency
  }

  // MARK: Deliveries

  private func takeAll() throws(ClientError) {
    tally.now = Clock.monotonicNanoseconds()
    while true {
      connection.consume(takeWholeDeliveries(connection.readable.bytes))
      var steps = 0
      let isUnderstood = try connection.dispatch(into: self) {
        steps += 1
        return steps > 1
      }
      if !isUnderstood { break }
    }
    report()
    try connection.flushAvailable()
    if hasFailed { connection.disconnect() }
  }

  /// Takes deliveries as long as they lie whole in the buffer; returns how many bytes that were.
  private func takeWholeDeliveries(_ bytes: RawSpan) -> Int {
    var offset = 0
    while let found = FoundDelivery(bytes, at: offset) {
      let queue = hasOneQueue ? 0 : Self.queue(bytes, found.consumerTagStart, found.consumerTagSize)
      take(bytes, found.bodyStart, found.bodySize, found.deliveryTag, queue: queue)
      offset = found.end
    }
    return offset
  }

  @inline(__always)
  private func take(_ bytes: RawSpan, _ start: Int, _ size: Int, _ tag: UInt64, queue: Int) {
    tally.deliveries &+= 1
    tally.bytes &+= size
    if size >= 8 {
      switch tally.order.observe(bytes.word(at: start), queue: queue) {
      case .expected: break
      case .misordered: tally.misordered += 1
      case .foreign: tally.foreign += 1
      }
    }
    if size >= 16 {
      let stamp = Int64(bitPattern: bytes.word(at: start &+ 8))
      if stamp != 0 { tally.latency.record(tally.now - stamp) }
    }
    tally.lastTag = tag
    tally.unacknowledged &+= 1
    if tally.unacknowledged == options.acknowledgeEvery { acknowledge(&tally) }
  }

  private func acknowledge(_ tally: inout Tally) {
    guard options.acknowledgeEvery > 0, tally.unacknowledged > 0 else { return }
    let ack = BasicAck(deliveryTag: tally.lastTag, multiple: tally.unacknowledged > 1)
    connection.output.append(.basicAck(ack), channel: Self.channel)
    control.acknowledged.add(tally.unacknowledged, ordering: .relaxed)
    tally.unacknowledged = 0
  }

  /// Adds the batch to what all consumers have counted.
  private func report() {
    guard tally.deliveries > 0 else { return }
    delivered += tally.deliveries
    control.delivered.add(tally.deliveries, ordering: .relaxed)
    control.deliveredBytes.add(tally.bytes, ordering: .relaxed)
    control.lastDeliveryTime.store(tally.now, ordering: .relaxed)
    if tally.misordered > 0 { control.misordered.add(tally.misordered, ordering: .relaxed) }
    if tally.foreign > 0 { control.foreign.add(tally.foreign, ordering: .relaxed) }
    tally.deliveries = 0
    tally.bytes = 0
    tally.misordered = 0
    tally.foreign = 0
  }

  private func attempt(_ body: () throws(ClientError) -> Void) {
    guard !hasFailed else { return }
    do {
      try body()
    } catch {
      hasFailed = true
      connection.disconnect()
      control.fail("consumer \(index): \(error)")
    }
  }

  // MARK: Consumer tags

  /// The queue's number among the consumer's in three printable digits of six bits, lowest first.
  static func consumerTag(_ queue: Int) -> Name {
    Name([0, 6, 12].map { UInt8(ascii: "0") + UInt8(queue >> $0 & 63) })
  }

  private static func queue(_ bytes: RawSpan, _ start: Int, _ size: Int) -> Int {
    guard size == 3 else { return 0 }
    let zero = UInt8(ascii: "0")
    return Int(bytes.byte(at: start) &- zero) | Int(bytes.byte(at: start + 1) &- zero) << 6
      | Int(bytes.byte(at: start + 2) &- zero) << 12
  }

  // MARK: What the broker sends

  func received(_ message: borrowing WireMessage) {
    let queue = Self.queue(message.consumerTag, 0, message.consumerTag.byteCount)
    take(message.body, 0, message.body.byteCount, message.deliveryTag, queue: queue)
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {
    control.fail("consumer \(index): a confirm, without having published")
  }

  func received(_ method: Method, channel: UInt16) {
    switch method {
    case .connectionBlocked, .connectionUnblocked: break
    case .channelClose(let close):
      hasFailed = true
      control.fail("consumer \(index): the channel was closed: \(close.replyText)")
    case .basicCancel(let cancel):
      control.fail("consumer \(index): the broker cancelled consumer \(cancel.consumerTag)")
    default:
      control.fail("consumer \(index): an unexpected \(method.id)")
    }
  }
}
