import AMQP
import Base
import Client

/// What one consuming connection notes of its deliveries, and the acknowledgements it owes. Apart
/// from the connection, so that the loop over a received batch works on plain values.
struct DeliveryTally: ~Copyable {
  /// What a batch has added to the counts.
  struct Counts {
    var deliveries = 0
    var bytes = 0
    var misordered = 0
    var foreign = 0
    var acknowledged = 0
  }

  var counts = Counts()
  var latency = LatencyHistogram()
  /// When the batch came.
  var now: Int64 = 0
  /// Whole frames, to be sent after the batch.
  var acknowledgements = ByteBuffer()
  private var order: OrderCheck
  private let queues: Int
  /// Deliveries that one acknowledgement covers; 0 for none.
  private let acknowledgeEvery: Int
  /// Deliveries since the last acknowledgement, and the youngest's tag.
  private var unacknowledged = 0
  private var lastTag: UInt64 = 0

  /// `publishers` is nil where it is not known who has published.
  init(queues: Int, publishers: Int?, acknowledgeEvery: Int, isOrdered: Bool = true) {
    self.queues = queues
    self.acknowledgeEvery = acknowledgeEvery
    order = OrderCheck(queues: queues, publishers: publishers, isOrdered: isOrdered)
  }

  /// Takes deliveries as long as they lie whole in `bytes`; returns how many bytes those are.
  mutating func takeAll(_ bytes: RawSpan) -> Int {
    var offset = 0
    while let found = FoundDelivery(bytes, at: offset) {
      let queue =
        queues == 1
        ? 0 : Self.queue(bytes, at: found.consumerTagStart, size: found.consumerTagSize)
      take(bytes, found.bodyStart, found.bodySize, found.deliveryTag, queue: queue)
      offset = found.end
    }
    return offset
  }

  /// Takes a delivery that the client's own parser has found.
  mutating func take(_ message: borrowing WireMessage) {
    let tag = message.consumerTag
    let queue = Self.queue(tag, at: 0, size: tag.byteCount)
    take(message.body, 0, message.body.byteCount, message.deliveryTag, queue: queue)
  }

  @inline(__always)
  private mutating func take(
    _ bytes: RawSpan, _ start: Int, _ size: Int, _ tag: UInt64, queue: Int
  ) {
    counts.deliveries &+= 1
    counts.bytes &+= size
    if size >= 8 {
      switch order.observe(bytes.word(at: start), queue: queue) {
      case .expected: break
      case .misordered: counts.misordered &+= 1
      case .foreign: counts.foreign &+= 1
      }
    }
    if size >= 16 {
      let stamp = Int64(bitPattern: bytes.word(at: start &+ 8))
      if stamp != 0 { latency.record(now &- stamp) }
    }
    lastTag = tag
    unacknowledged &+= 1
    if unacknowledged == acknowledgeEvery { acknowledge() }
  }

  /// Acknowledges what is not yet.
  mutating func acknowledge() {
    guard acknowledgeEvery > 0, unacknowledged > 0 else { return }
    let ack = BasicAck(deliveryTag: lastTag, multiple: unacknowledged > 1)
    acknowledgements.append(.basicAck(ack), channel: BenchConsumer.channel)
    counts.acknowledged += unacknowledged
    unacknowledged = 0
  }

  // MARK: Consumer tags

  /// The queue's number among the consumer's in three printable digits of six bits, lowest first.
  static func consumerTag(_ queue: Int) -> Name {
    Name([0, 6, 12].map { UInt8(ascii: "0") + UInt8(queue >> $0 & 63) })
  }

  private static func queue(_ bytes: RawSpan, at start: Int, size: Int) -> Int {
    guard size == 3 else { return 0 }
    let zero = UInt8(ascii: "0")
    return Int(bytes.byte(at: start) &- zero) | Int(bytes.byte(at: start + 1) &- zero) << 6
      | Int(bytes.byte(at: start + 2) &- zero) << 12
  }
}
