import AMQP
import Base
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A third kind of destination: it notes how large messages are, and keeps none of them.
private final class Scale: Destination {
  private(set) var sizes: [Int] = []
  private(set) var takenCount = 0

  init(_ name: Name, in vhost: VirtualHost) {
    super.init(
      id: vhost.broker.queueNumbers.take(isDurable: false)!, name: name, vhost: vhost,
      isDurable: false, isAutoDelete: false, owner: nil, arguments: [:], isPlain: false,
      mayRefuse: true)
  }

  override func isFull(for size: Int) -> Bool { size > 100 }

  override func take(
    _ message: Broker.StoredMessage, _ arrival: Arrival, at place: UnsafeMutableRawPointer?
  ) {
    sizes.append(arrival.size)
    broker.journal.release(message.location.block)
  }

  override func taken(_ arrival: Arrival) { takenCount += 1 }
  override var readyCount: Int { sizes.count }
  override var consumerCount: Int { 0 }
  override var memoryBytes: Int { 100 }
  override var laneIDs: [UInt32] { [] }
  override func drop() { isDeleted = true }
  override var isDone: Bool { true }
}

/// Whatever is a destination is routed to, confirmed, refused, counted and deleted like a queue.
@Suite struct DestinationTests {
  @Test func aThirdKindIsReachedByTheSameBindings() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    let scale = Scale("scale", in: broker.vhost)
    broker.vhost.insert(scale)
    try channel.declare("q", isDurable: true)
    try channel.declareStream("s")
    for name in ["scale", "q", "s"] as [Name] { try channel.bind(name, to: "amq.fanout", key: "") }
    try broker.durableTurn {
      try channel.publish("one", to: "amq.fanout", key: "k")
      try channel.publish("three", key: "scale")
      try channel.publish(String(repeating: "x", count: 101), to: "amq.fanout", key: "k")
    }
    #expect(scale.sizes == [3, 5] && scale.takenCount == 2)
    #expect(broker.queue("q")?.readyCount == 2, "what one refuses the others take")
    #expect(broker.stream("s")?.readyCount == 2)
    #expect(broker.counts.ready == 6)
    #expect(broker.vhost.remove(scale, .deleted) == 2)
    broker.finishChores()
    try channel.publish("more", to: "amq.fanout", key: "k")
    #expect(scale.sizes.count == 2)
    #expect(broker.queue("q")?.readyCount == 3)
  }
}
