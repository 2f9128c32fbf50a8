import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Numbers of queues and exchanges, which the log names them by.
@Suite struct NumbersTests {
  @Test func whatIsNotDurableTakesNoneOfTheLogsNumbers() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    for number in 0..<100 {
      try channel.declare(Name("t\(number)"))
      try channel.declare(Name("e\(number)"), isExclusive: true)
    }
    try channel.declare("q", isDurable: true)
    #expect(broker.queue("q")?.id == 1)
    #expect(broker.queue("t99").map { $0.id >= Numbers.firstTransient } == true)
    #expect(broker.broker.queueNumbers.nextDurable == 2)
  }

  @Test func aTransientNumberIsUsedAgainWhenAllOthersWere() throws {
    let broker = try TestBroker()
    let client = broker.connect()
    let channel = client.open()
    broker.broker.queueNumbers.goOn(from: .max - 2)
    let names: [Name] = ["a", "b", "c", "d"]
    for name in names { try channel.declare(name) }
    #expect(
      names.map { broker.queue($0)?.id }
        == [.max - 2, .max - 1, .max, Numbers.firstTransient])
    // What waits for an acknowledgement keeps the number of its queue.
    try channel.publish("m", key: "b")
    _ = try channel.take("b", isAutomatic: false)
    for name in names[...1] { try channel.delete(name) }
    broker.broker.queueNumbers.goOn(from: .max - 2)
    for name in names[...1] { try channel.declare(name) }
    #expect(broker.queue("a")?.id == UInt32.max - 2)
    #expect(broker.queue("b")?.id == Numbers.firstTransient + 1)
    try channel.acknowledge(0, isMultiple: true)
    broker.broker.queueNumbers.goOn(from: .max - 1)
    try channel.declare("x")
    #expect(broker.queue("x")?.id == UInt32.max - 1)
  }

  @Test func aDurableNumberIsNeverUsedAgain() throws {
    let broker = try TestBroker()
    let channel = broker.connect().open()
    let last = Numbers.firstTransient - 1
    broker.broker.useIDs(queue: last, exchange: last)
    try channel.declare("last", isDurable: true)
    try broker.vhost.declare(exchange: "last", isDurable: true)
    for _ in 0..<2 {
      #expect(
        mistake { try channel.declare("q", isDurable: true) }
          == .limitReached(.numbers(kind: "queue", max: Numbers.firstTransient)))
      #expect(
        mistake { try broker.vhost.declare(exchange: "x", isDurable: true) }
          == .limitReached(.numbers(kind: "exchange", max: Numbers.firstTransient)))
    }
    try channel.declare("t")
    try broker.vhost.declare(exchange: "t")
    broker.durableTurn()
    let again = try broker.restarted()
    #expect(
      mistake { try again.connect().open().declare("q", isDurable: true) }
        == .limitReached(.numbers(kind: "queue", max: Numbers.firstTransient)))
  }
}
