import AMQP
import Base
import IO
import Testbed
import Testing

@testable import Broker
@testable import Journal

/// A queue whose next message is damaged says so, and passes nothing over.
@Suite struct StoppedQueueTests {
  @Test func consumersOfADamagedBlockAreTold() throws {
    var settings = Journal.Settings.moving
    settings.cacheBytes = 0
    let broker = try TestBroker.moving(settings: settings)
    let client = broker.connect()
    let channel = client.open()
    for name in ["q", "p"] as [Name] { try channel.declare(name, isDurable: true) }
    for number in 0..<10 { try channel.publish("\(number)", key: "q", isPersistent: true) }
    try broker.moveOut(channel)
    let name = try #require(try broker.files(".lanes").first)
    try damage(broker.directory.path + "/" + name, at: LaneTable.headerBytes + 300)
    broker.advance(milliseconds: 1)
    try channel.consume("q", tag: "c")
    for _ in 0..<10 { broker.work() }
    #expect(client.events() == [.cancelled("c", on: 1)])
    let problem = try #require(broker.takeProblem())
    #expect(problem.hasPrefix("queue 'q' is stopped where the block at offset 64 of "))
    #expect(problem.contains(name))
    #expect(problem.hasSuffix("stop the broker and run `martlet journal repair`"))
    #expect(mistake { _ = try channel.take("q") } == .messageUnreadable(queue: "q"))
    try channel.consume("q", tag: "d")
    try channel.consume("p", tag: "e")
    try channel.publish("m", key: "p", isPersistent: true)
    broker.advance(milliseconds: 10_000)
    for _ in 0..<10 { broker.work() }
    let events = client.events()
    #expect(events.contains(.cancelled("d", on: 1)))
    #expect(events.count == 2, "others are served")
    #expect(broker.takeProblem() == nil, "it is said once")
    #expect(broker.queue("q")?.readyCount == 10)
    try channel.purge("q")
    try channel.publish("next", key: "q", isPersistent: true)
    try channel.consume("q", tag: "f")
    broker.durableTurn()
    broker.work()
    #expect(client.bodies() == ["next"], "it goes on behind a purge")
  }
}
