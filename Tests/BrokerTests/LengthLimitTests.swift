import AMQP
import Base
import Testbed
import Testing

@testable import Broker

/// Queues with `x-max-length` and `x-max-length-bytes`: what is ready is bounded.
@Suite struct LengthLimitTests {
  private let broker: TestBroker
  private let client: TestClient
  private let channel: Channel

  init() throws {
    broker = try TestBroker()
    client = broker.connect()
    channel = client.open()
  }

  private func declare(isDurable: Bool = false, _ arguments: FieldTable) throws {
    try channel.declare("q", isDurable: isDurable, arguments: arguments)
  }

  private func publish(_ range: Range<Int>, isPersistent: Bool = false) throws {
    for number in range {
      try channel.publish("\(number)", key: "q", isPersistent: isPersistent)
    }
  }

  private func rest(_ channel: Channel) throws -> [String] {
    try channel.drain("q").map(\.text)
  }

  // MARK: Dropping

  @Test(arguments: [0, 1, 3, 100])
  func theOldestLeave(limit: Int) throws {
    try declare(["x-max-length": .int64(Int64(limit))])
    try publish(0..<10)
    #expect(broker.queue("q")?.readyCount == min(10, limit))
    #expect(try rest(channel) == (max(0, 10 - limit)..<10).map(String.init))
  }

  @Test func whoCanTakeAMessageGetsItBeforeItIsDropped() throws {
    try declare(["x-max-length": .int64(0)])
    try channel.consume("q", isAutomatic: true)
    try publish(0..<50)
    broker.turn()
    #expect(client.bodies() == (0..<50).map(String.init))
  }

  @Test func whatIsNotAcknowledgedDoesNotCount() throws {
    try declare(["x-max-length": .int64(2)])
    channel.setPrefetch(3, isGlobal: false)
    try channel.consume("q")
    try publish(0..<5)
    broker.turn()
    #expect(client.bodies() == ["0", "1", "2"])
    #expect(broker.queue("q")?.readyCount == 2)
    try publish(5..<6)
    #expect(broker.queue("q")?.readyCount == 2)
    channel.recover()
    broker.finishChores()
    broker.turn()
    #expect(broker.queue("q")?.readyCount ?? 9 <= 2)
  }

  @Test func bytesOfBodiesAreBounded() throws {
    try declare(["x-max-length-bytes": .int64(10)])
    for body in ["aaaa", "bbbb", "cc", "d"] { try channel.publish(body, key: "q") }
    #expect(try rest(channel) == ["bbbb", "cc", "d"])
    try channel.publish("a body of its own that is too large", key: "q")
    #expect(try rest(channel) == [])
    try channel.publish("0123456789", key: "q")
    #expect(try rest(channel) == ["0123456789"])
  }

  @Test func bytesThatComeBackCountAgain() throws {
    try declare(["x-max-length-bytes": .int64(10)])
    try channel.publish("aaaaaa", key: "q")
    let tag = try #require(try channel.take("q", isAutomatic: false)).tag
    #expect(broker.queue("q")?.readyBytes == 0)
    try channel.reject(tag, isMultiple: false, requeues: true)
    #expect(broker.queue("q")?.readyBytes == 6)
    try channel.publish("bbbbbb", key: "q")
    #expect(try rest(channel) == ["bbbbbb"])
    #expect(broker.queue("q")?.readyBytes == 0)
  }

  @Test func aPurgeLeavesNoBytes() throws {
    try declare(["x-max-length-bytes": .int64(100)])
    try publish(0..<20)
    try channel.purge("q")
    broker.turn()
    #expect(broker.queue("q")?.readyBytes == 0)
    try publish(0..<5)
    #expect(broker.queue("q")?.readyBytes == 5)
  }

  @Test func aRestartKnowsLengthAndBytes() throws {
    try declare(
      isDurable: true, ["x-max-length": .int64(5), "x-max-length-bytes": .int64(1000)])
    try publish(0..<8, isPersistent: true)
    broker.durableTurn()
    let again = try broker.restarted()
    #expect(again.queue("q")?.readyCount == 5)
    #expect(again.queue("q")?.readyBytes == 5)
    let channel = again.connect().open()
    try channel.publish("8", key: "q", isPersistent: true)
    // What is to leave is read back before.
    again.turns { again.queue("q")?.readyCount == 5 }
    #expect(try rest(channel) == ["4", "5", "6", "7", "8"])
  }

  // MARK: Refusing

  @Test(arguments: ["reject-publish", "reject-publish-dlx"])
  func aFullQueueRefuses(overflow: String) throws {
    try declare(["x-max-length": .int64(2), "x-overflow": .string(overflow)])
    try channel.startConfirming()
    try broker.turn { try publish(0..<4) }
    #expect(
      client.events() == [
        .refused(3, isMultiple: false, on: 1), .refused(4, isMultiple: false, on: 1),
        .confirmed(2, isMultiple: true, on: 1),
      ])
    #expect(try rest(channel) == ["0", "1"])
    try broker.turn { try publish(4..<5) }
    #expect(client.events() == [.confirmed(5, isMultiple: false, on: 1)])
  }

  @Test func aRefusedPublishIsNeverConfirmedAlone() throws {
    try declare(["x-max-length": .int64(1), "x-overflow": .string("reject-publish")])
    try channel.declare("other")
    try channel.startConfirming()
    try broker.turn { try publish(0..<1) }
    try broker.turn { try publish(1..<2) }
    #expect(
      client.events() == [
        .confirmed(1, isMultiple: false, on: 1), .refused(2, isMultiple: false, on: 1),
      ])
    try broker.turn {
      try publish(2..<3)
      try channel.publish("x", key: "other")
      try publish(3..<4)
    }
    #expect(
      client.events() == [
        .refused(3, isMultiple: false, on: 1), .refused(5, isMultiple: false, on: 1),
        .confirmed(4, isMultiple: true, on: 1),
      ])
  }

  @Test func theOtherQueuesOfARouteGetIt() throws {
    try declare(["x-max-length": .int64(1), "x-overflow": .string("reject-publish")])
    try channel.declare("other")
    for queue in ["q", "other"] as [Name] { try channel.bind(queue, to: "amq.fanout") }
    try channel.startConfirming()
    try broker.turn {
      for body in ["a", "b"] { try channel.publish(body, to: "amq.fanout", key: "") }
    }
    #expect(
      client.events() == [
        .refused(2, isMultiple: false, on: 1), .confirmed(1, isMultiple: false, on: 1),
      ])
    #expect(try rest(channel) == ["a"])
    #expect(try channel.drain("other").map(\.text) == ["a", "b"])
  }

  @Test func bytesRefuse() throws {
    try declare(["x-max-length-bytes": .int64(10), "x-overflow": .string("reject-publish")])
    for body in ["aaaaaa", "bbbbbb", "cccc", "d"] { try channel.publish(body, key: "q") }
    #expect(try rest(channel) == ["aaaaaa", "cccc"])
  }

  @Test func whoeverCanTakeAMessageMakesRoom() throws {
    try declare(["x-max-length": .int64(1), "x-overflow": .string("reject-publish")])
    try channel.consume("q", isAutomatic: true)
    try publish(0..<50)
    broker.turn()
    #expect(client.bodies().count == 50)
  }
}
