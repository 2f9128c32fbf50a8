import AMQP
import Base
import Client
import IO

/// One connection that consumes from one or more queues.
final class BenchConsumer: WireSink {
  static let channel: UInt16 = 1

  let connection: WireConnection
  private let index: Int
  private let control: BenchControl
  private var tally: DeliveryTally
  private(set) var hasFailed = false

  /// Opens the connection and begins to consume.
  init(index: Int, topology: BenchTopology, control: BenchControl) throws(ClientError) {
    let options = topology.options
    self.index = index
    self.control = control
    let queues = topology.queues(ofConsumer: index)
    // Without publishers, what is consumed was published by an earlier run.
    tally = DeliveryTally(
      queues: queues.count, publishers: options.publishers == 0 ? nil : options.publishers,
      acknowledgeEvery: options.acknowledgeEvery, isOrdered: options.isOrdered)
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
      var consume = BasicConsume(
        queue: topology.queues[queue], consumerTag: DeliveryTally.consumerTag(number),
        noAck: options.acknowledgeEvery == 0)
      consume.arguments = options.consumerArguments
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
      tally.acknowledge()
      report()
      try connection.close()
    }
  }

  /// Hands over the latencies so far and begins anew.
  func takeLatency() -> LatencyHistogram {
    defer { tally.latency.removeAll() }
    return tally.latency
  }

  private func takeAll() throws(ClientError) {
    tally.now = Clock.monotonicNanoseconds()
    while true {
      connection.consume(tally.takeAll(connection.readable.bytes))
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

  /// Adds the batch to what all consumers have counted, and sends its acknowledgements.
  private func report() {
    let counts = tally.counts
    tally.counts = DeliveryTally.Counts()
    if counts.deliveries > 0 {
      control.delivered.add(counts.deliveries, ordering: .relaxed)
      control.deliveredBytes.add(counts.bytes, ordering: .relaxed)
      control.lastDeliveryTime.store(tally.now, ordering: .relaxed)
    }
    if counts.misordered > 0 { control.misordered.add(counts.misordered, ordering: .relaxed) }
    if counts.foreign > 0 { control.foreign.add(counts.foreign, ordering: .relaxed) }
    if counts.acknowledged > 0 {
      control.acknowledged.add(counts.acknowledged, ordering: .relaxed)
      connection.output.append(tally.acknowledgements.readable)
      tally.acknowledgements.removeAll()
    }
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

  // MARK: What the broker sends

  func received(_ message: borrowing WireMessage) {
    tally.take(message)
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
