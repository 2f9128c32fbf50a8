import AMQP
import Base
import Testbed
import Testing

@testable import Broker

@Suite struct ConsumerTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
    try channel.declare("q")
  }

  private var queue: Queue { broker.queue("q")! }

  private func publish(_ count: Int, to key: Name = "q") throws {
    for index in 0..<count { try channel.publish("\(index)", key: key) }
  }

  /// The consumers' tags in the order in which they were served since the last call.
  private func served(_ client: TestClient? = nil) -> [String] {
    broker.turn()
    return (client ?? self.client).deliveries().map(\.consumer.description)
  }

  // MARK: Fairness

  @Test func consumersAreServedInTurns() throws {
    for tag in ["a", "b", "c"] as [Name] { try channel.consume("q", tag: tag) }
    try publish(7)
    #expect(served() == ["a", "b", "c", "a", "b", "c", "a"])
    try publish(1)
    #expect(served() == ["b"])
    try publish(2)
    #expect(served() == ["c", "a"])
  }

  @Test func theRoundGoesOnWhenConsumersComeAndGo() throws {
    for tag in ["a", "b", "c"] as [Name] { try channel.consume("q", tag: tag) }
    try publish(2)
    #expect(served() == ["a", "b"])
    channel.cancel("a")
    try publish(1)
    #expect(served() == ["c"])
    try channel.consume("q", tag: "d")
    try publish(4)
    #expect(served() == ["b", "c", "d", "b"])
    channel.cancel("d")
    channel.cancel("b")
    try publish(2)
    #expect(served() == ["c", "c"])
  }

  @Test func aConsumerOfAnotherPriorityDoesNotDisturbTheRound() throws {
    for tag in ["a", "b"] as [Name] { try channel.consume("q", tag: tag) }
    try publish(1)
    #expect(served() == ["a"])
    channel.setPrefetch(1, isGlobal: false)
    try channel.consume("q", tag: "high", priority: 1)
    try publish(3)
    #expect(served() == ["high", "b", "a"])
  }

  @Test func everyPriorityHasItsOwnRound() throws {
    try channel.consume("q", tag: "a")
    try channel.consume("q", tag: "b")
    channel.setPrefetch(1, isGlobal: false)
    try channel.consume("q", tag: "high", priority: 1)
    for round in 0..<4 {
      try publish(2)
      #expect(served() == ["high", round.isMultiple(of: 2) ? "a" : "b"])
      try channel.acknowledge(0, isMultiple: true)
    }
  }

  @Test func whoCannotTakeIsPassedOver() throws {
    let others = ["b", "c"].map { tag -> TestClient in
      let other = broker.connect()
      _ = try? other.open().consume("q", tag: Name(tag))
      return other
    }
    channel.setPrefetch(1, isGlobal: false)
    try channel.consume("q", tag: "a")
    others[0].limitRoom(to: 2)
    try publish(7)
    broker.turn()
    #expect(client.bodies() == ["2"])
    #expect(others[0].bodies() == ["0", "3"])
    #expect(others[1].bodies() == ["1", "4", "5", "6"])
  }

  // MARK: Priorities

  @Test func higherPrioritiesAreServedFirst() throws {
    channel.setPrefetch(2, isGlobal: false)
    try channel.consume("q", tag: "low", priority: -1)
    try channel.consume("q", tag: "normal")
    try channel.consume("q", tag: "high1", priority: 5)
    try channel.consume("q", tag: "high2", priority: 5)
    try publish(7)
    #expect(
      served() == ["high1", "high2", "high1", "high2", "normal", "normal", "low"])
    try channel.acknowledge(2, isMultiple: false)
    try publish(2)
    #expect(served() == ["high2", "low"])
    #expect(queue.readyCount == 0)
  }

  // MARK: Limits

  @Test func aConsumerGetsNoMoreThanItsPrefetch() throws {
    channel.setPrefetch(2, isGlobal: false)
    try channel.consume("q", tag: "two")
    channel.setPrefetch(3, isGlobal: false)
    try channel.consume("q", tag: "three")
    try publish(10)
    #expect(served() == ["two", "three", "two", "three", "three"])
    try channel.acknowledge(1, isMultiple: false)
    #expect(served() == ["two"])
    try channel.reject(5, isMultiple: true, requeues: false)
    #expect(served() == ["three", "two", "three", "three"])
    #expect(queue.readyCount == 0)
    #expect(queue.unacknowledgedCount == 5)
  }

  @Test func aPrefetchDoesNotCountForAutomaticConsumersAndGets() throws {
    channel.setPrefetch(1, isGlobal: false)
    try channel.consume("q", tag: "automatic", isAutomatic: true)
    try publish(3)
    #expect(served().count == 3)
    channel.cancel("automatic")
    try channel.consume("q", tag: "manual")
    try publish(4)
    #expect(served().count == 1)
    #expect(try channel.take("q", isAutomatic: false)?.text == "1")
    try channel.acknowledge(5, isMultiple: false)
    #expect(served() == [], "a message that was got is none of the consumer's")
    try channel.acknowledge(4, isMultiple: false)
    #expect(served() == ["manual"])
  }

  @Test func consumersShareTheChannelsPrefetch() throws {
    try channel.declare("p")
    channel.setPrefetch(3, isGlobal: true)
    try channel.consume("q", tag: "a")
    try channel.consume("p", tag: "b")
    try publish(2)
    try publish(4, to: "p")
    #expect(served() == ["a", "a", "b"])
    try channel.acknowledge(1, isMultiple: false)
    #expect(served() == ["b"], "credit of one queue's message serves the other's consumer")
    try channel.acknowledge(0, isMultiple: true)
    #expect(served() == ["b", "b"])
    try publish(5)
    #expect(served() == ["a"])
    channel.setPrefetch(5, isGlobal: true)
    #expect(served() == ["a", "a"])
    channel.setPrefetch(0, isGlobal: true)
    #expect(served() == ["a", "a"])
  }

  @Test func consumersThatShareALimitTakeTurns() throws {
    channel.setPrefetch(1, isGlobal: true)
    for name in ["a", "b", "c"] as [Name] {
      try channel.declare(name)
      try channel.consume(name, tag: name)
      try publish(4, to: name)
    }
    var order: [String] = []
    for tag in 1...12 as ClosedRange<UInt64> {
      order += served()
      try channel.acknowledge(tag, isMultiple: false)
    }
    #expect(order == ["a", "a", "b", "c", "a", "b", "c", "a", "b", "c", "b", "c"])
  }

  @Test func consumersThatShareTheOutputTakeTurns() throws {
    for name in ["a", "b"] as [Name] {
      try channel.declare(name)
      try channel.consume(name, tag: name, isAutomatic: true)
    }
    client.limitRoom(to: 2)
    try publish(6, to: "a")
    try publish(6, to: "b")
    var order: [String] = served()
    while order.count < 12 {
      client.limitRoom(to: 2)
      client.peer.roomMade()
      order += served()
    }
    #expect(order.prefix(10) == ["a", "a", "a", "a", "b", "b", "a", "a", "b", "b"])
  }

  /// Who lacks room whenever there is credit, and credit whenever there is room, has waited for longest.
  @Test(arguments: 1...20 as ClosedRange<UInt64>)
  func consumersThatShareCreditAndOutputTakeTurns(seed: UInt64) throws {
    var random = SeededRandom(seed)
    channel.setPrefetch(3, isGlobal: true)
    let names = ["a", "b", "c"]
    for name in names {
      let queue = Name(name)
      try channel.declare(queue)
      try publish(300, to: queue)
      try channel.consume(queue, tag: queue)
    }
    var passed = ["a": 0, "b": 0, "c": 0]
    var out: [UInt64] = []
    for _ in 0..<600 {
      if Bool.random(using: &random) {
        client.limitRoom(to: 1)
        client.peer.roomMade()
      } else if !out.isEmpty {
        try channel.acknowledge(out.removeFirst(), isMultiple: false)
      }
      broker.turn()
      for delivery in client.deliveries() {
        out.append(delivery.tag)
        for name in names { passed[name]! += 1 }
        passed[delivery.consumer.description] = 0
        #expect(passed.values.allSatisfy { $0 <= 8 })
      }
    }
  }

  @Test func whatBasicGetHasOutNeedsNoCredit() throws {
    channel.setPrefetch(1, isGlobal: true)
    try publish(4)
    _ = try channel.take("q", isAutomatic: false)
    try channel.consume("q", tag: "a")
    #expect(served() == ["a"])
    try channel.acknowledge(1, isMultiple: false)
    #expect(served() == [])
    try channel.acknowledge(2, isMultiple: false)
    #expect(served() == ["a"])
  }

  @Test func aQueueHasNoMoreThanSoManyPrioritiesOfConsumers() throws {
    var limits = BrokerLimits()
    limits.consumerPrioritiesMax = 2
    let broker = try TestBroker(limits: limits)
    let channel = broker.connect().open()
    try channel.declare("q")
    for priority in [1, 2, 1, 2] as [Int64] { try channel.consume("q", priority: priority) }
    #expect(
      mistake { try channel.consume("q", priority: 3) }
        == .limitReached(.priorities(queue: "q", in: "/", max: 2)))
  }

  @Test func flowLetsEveryConsumerGoOn() throws {
    channel.setPrefetch(1, isGlobal: true)
    try channel.declare("p")
    try channel.consume("q", tag: "a")
    try channel.consume("p", tag: "b", isAutomatic: true)
    channel.setFlow(false)
    try publish(2)
    try publish(2, to: "p")
    #expect(served() == [])
    channel.setFlow(true)
    #expect(served().sorted() == ["a", "b", "b"])
  }

  @Test func theChannelsPrefetchIsItsOwn() throws {
    channel.setPrefetch(1, isGlobal: true)
    try channel.consume("q", tag: "a")
    try client.open(2).consume("q", tag: "b")
    try publish(4)
    #expect(served() == ["a", "b", "b", "b"])
  }

  @Test func noChannelHoldsMoreThanTheBrokersLimit() throws {
    var limits = BrokerLimits()
    limits.unacknowledgedMax = 4
    let broker = try TestBroker(limits: limits)
    let client = broker.connect()
    let channel = client.open()
    for name in ["q", "p"] as [Name] {
      try channel.declare(name)
      try channel.consume(name, tag: name)
      for index in 0..<6 { try channel.publish("\(index)", key: name) }
    }
    broker.turn()
    #expect(client.deliveries().map(\.consumer) == ["q", "q", "q", "q"])
    try channel.acknowledge(1, isMultiple: false)
    broker.turn()
    #expect(client.deliveries().count == 1)
    try channel.acknowledge(0, isMultiple: true)
    broker.turn()
    #expect(client.deliveries().count == 4)
    try channel.acknowledge(0, isMultiple: true)
    broker.turn()
    #expect(client.deliveries().count == 3, "the rest of both queues")
    #expect(broker.queue("q")?.readyCount == 0)
    #expect(broker.queue("p")?.readyCount == 0)
  }

  @Test func deliveriesStopWhileTheOutputIsFull() throws {
    try channel.declare("p")
    try channel.consume("q", tag: "a", isAutomatic: true)
    try client.open(2).consume("p", tag: "b", isAutomatic: true)
    client.limitRoom(to: 3)
    try publish(5)
    try publish(2, to: "p")
    #expect(served() == ["a", "a", "a"])
    #expect(served() == [])
    client.peer.roomMade()
    #expect(served() == ["a", "a", "b", "b"])
  }

  @Test func deliveriesStopWhileTheClientWantsNone() throws {
    try channel.consume("q", tag: "a", isAutomatic: true)
    channel.setFlow(false)
    try publish(2)
    #expect(served() == [])
    #expect(try channel.take("q")?.text == "0", "who asks is answered")
    channel.setFlow(true)
    #expect(served() == ["a"])
  }

  // MARK: Beginning and ending

  @Test func anExclusiveConsumerIsAlone() throws {
    let refused = BrokerError.inExclusiveUse(queue: "q", in: "/")
    try channel.consume("q", tag: "a", isExclusive: true)
    for isExclusive in [false, true] {
      #expect(mistake { try channel.consume("q", isExclusive: isExclusive) } == refused)
    }
    channel.cancel("a")
    try channel.consume("q", tag: "b")
    #expect(mistake { try channel.consume("q", isExclusive: true) } == refused)
    try channel.consume("q", tag: "c")
    channel.close()
    try client.open(2).consume("q", isExclusive: true)
  }

  @Test func aTagIsUsedOncePerChannel() throws {
    try channel.consume("q", tag: "a")
    #expect(mistake { try channel.consume("q", tag: "a") } == .consumerTagInUse("a"))
    try client.open(2).consume("q", tag: "a")
    channel.cancel("a")
    try channel.consume("q", tag: "a")
    let made = [try channel.consume("q"), try channel.consume("q")]
    #expect(made[0] != made[1])
    #expect(made.allSatisfy { $0.hasPrefix("amq.ctag-") && $0.bytes.count == 31 })
    #expect(queue.consumerCount == 4)
  }

  @Test func aCancelledConsumersDeliveriesStayItsChannels() throws {
    weak let consumer: Consumer?
    channel.setPrefetch(2, isGlobal: false)
    try channel.consume("q", tag: "a")
    consumer = channel.consumers["a"]
    try publish(4)
    #expect(served().count == 2)
    channel.cancel("a")
    channel.cancel("a")
    channel.cancel("nobody")
    #expect(queue.consumerCount == 0)
    #expect(queue.unacknowledgedCount == 2)
    #expect(client.events() == [])
    try channel.consume("q", tag: "a", isAutomatic: true)
    #expect(served().count == 2)
    try channel.acknowledge(1, isMultiple: false)
    #expect(consumer != nil)
    try channel.reject(2, isMultiple: false, requeues: true)
    #expect(consumer == nil, "kept no longer than its deliveries")
    broker.turn()
    #expect(client.deliveries().map(\.isRedelivered) == [true])
    broker.expectNothingHeld()
  }

  @Test func consumersAreToldThatTheirQueueIsGone() throws {
    let other = broker.connect()
    try other.open(7).consume("q", tag: "theirs")
    try channel.consume("q", tag: "mine")
    try publish(2)
    #expect(served() == ["mine"])
    try channel.delete("q")
    #expect(client.events() == [.cancelled("mine", on: 1)])
    #expect(other.events().last == .cancelled("theirs", on: 7))
    try channel.declare("q")
    try publish(1)
    #expect(served() == [])
    try channel.acknowledge(1, isMultiple: false)
    try channel.consume("q", tag: "mine")
    #expect(served() == ["mine"])
  }

  @Test func whatAChannelHeldGoesToTheOthers() throws {
    let other = broker.connect()
    let theirs = other.open()
    try theirs.consume("q", tag: "theirs")
    try publish(3)
    broker.turn()
    #expect(other.bodies() == ["0", "1", "2"])
    try channel.consume("q", tag: "mine")
    theirs.close()
    broker.turn()
    let deliveries = client.deliveries()
    #expect(deliveries.map(\.text) == ["0", "1", "2"])
    #expect(deliveries.map(\.isRedelivered) == [true, true, true])
    client.close()
    #expect(queue.readyCount == 3)
    #expect(queue.consumerCount == 0)
  }

  @Test func closingInEveryStateLeavesNothing() throws {
    for state in 0..<8 {
      let client = broker.connect()
      let channel = client.open()
      try channel.declare(Name("\(state)"), isDurable: true)
      if state & 1 != 0 {
        channel.setPrefetch(2, isGlobal: false)
        try channel.consume(Name("\(state)"), tag: "a")
        try channel.consume(Name("\(state)"), tag: "b", isAutomatic: state & 2 != 0)
        try channel.consume(DirectRepliesTests.queue, tag: "replies", isAutomatic: true)
      }
      if state & 4 != 0 { try channel.startConfirming() }
      for index in 0..<9 {
        try channel.publish("\(index)", key: Name("\(state)"), isPersistent: state & 2 != 0)
      }
      if state & 2 != 0 { broker.turn() }
      _ = try channel.take(Name("\(state)"), isAutomatic: false)
      if state & 1 != 0 { channel.cancel("a") }
      if state & 4 != 0 { channel.close() }
      client.close()
      broker.turn()
      try broker.connect().open().delete(Name("\(state)"))
      broker.expectNothingHeld()
    }
  }
}
