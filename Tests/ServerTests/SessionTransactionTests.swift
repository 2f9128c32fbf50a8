import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// When a session answers a commit.
@Suite struct SessionTransactionTests {
  private let loop: TestLoop
  private let client: TestClient

  init() throws {
    loop = try TestLoop()
    client = loop.connect()
    try client.open()
    for name in ["q", "full"] as [Name] {
      _ = try client.call(
        .queueDeclare(
          QueueDeclare(
            queue: name, durable: true,
            arguments: name == "full"
              ? ["x-max-length": .int32(1), "x-overflow": .string("reject-publish")] : [:])))
    }
    let selected = ClientEvent.method(.txSelectOk(TxSelectOk()), channel: 1)
    #expect(try client.call(.txSelect(TxSelect())) == [selected])
  }

  private let commit = Wire.method(.txCommit(TxCommit()))
  private let ask = Wire.method(.accessRequest(AccessRequest(realm: "/data")))
  private let committed = ClientEvent.method(.txCommitOk(TxCommitOk()), channel: 1)
  private let ticket = ClientEvent.method(.accessRequestOk(AccessRequestOk(ticket: 1)), channel: 1)

  private func publish(_ count: Int, key: Name = "q", isPersistent: Bool = true) -> [UInt8] {
    let frames = Wire.publish(
      BasicPublish(routingKey: key), body: [1],
      properties: isPersistent ? [0x10, 0, 2] : [0, 0])
    return (0..<count).flatMap { _ in frames.flatMap(\.self) }
  }

  @Test func aCommitIsAnsweredWhenItIsDurableAndSoIsWhatFollows() throws {
    client.send(publish(3) + commit + ask)
    loop.turn()
    #expect(try client.takeEvents() == [])
    guard case .untilDurable(let position) = client.session.pause, position > 0 else {
      Issue.record("it waits for \(client.session.pause)")
      return
    }
    loop.settle()
    #expect(loop.broker.journal.durablePosition >= position)
    #expect(try client.takeEvents() == [committed, ticket])
  }

  @Test func aTransientCommitIsAnsweredAtOnce() throws {
    client.send(publish(3, isPersistent: false) + commit)
    #expect(try client.takeEvents() == [committed])
  }

  @Test func aLargeCommitIsAnsweredBehindItsTurns() throws {
    client.send(publish(4000))
    client.send(commit + ask)
    loop.settle()
    #expect(try client.takeEvents() == [committed, ticket])
    let declared = try client.call(.queueDeclare(QueueDeclare(queue: "q", passive: true)))
    #expect(
      declared == [
        .method(
          .queueDeclareOk(QueueDeclareOk(queue: "q", messageCount: 4000, consumerCount: 0)),
          channel: 1)
      ])
  }

  /// It fails when its request has long returned.
  @Test func aLargeCommitThatFailsClosesItsChannel() throws {
    let other = Wire.method(.channelOpen(ChannelOpen()), on: 2)
    client.send(publish(4000) + publish(2, key: "full"))
    client.send(commit + other)
    loop.settle()
    let row = try #require(ReplyTable.texts["commit-refused"])
    let close = ChannelClose(
      replyCode: 406, replyText: row.filled(["full", "/"]), classId: TxCommit.id.classID,
      methodId: TxCommit.id.methodID)
    #expect(
      try client.takeEvents() == [
        .method(.channelClose(close), channel: 1),
        .method(.channelOpenOk(ChannelOpenOk()), channel: 2),
      ])
    #expect(loop.broker.account[.transactions] == 0)
  }

  /// Whoever wants that is told whether at once or behind turns.
  @Test(arguments: [2, 4000])
  func aCommitThatIsRolledBackIsAnsweredSo(count: Int) throws {
    let client = loop.connect()
    try client.open(capabilities: ["tx_rollback_unroutable": .bool(true)])
    _ = try client.call(.txSelect(TxSelect()))
    let lost = Wire.publish(
      BasicPublish(routingKey: "nowhere", mandatory: true), body: [1], properties: [0, 0])
    client.send(publish(count) + lost.flatMap(\.self))
    client.send(commit + ask)
    loop.settle()
    let events = try client.takeEvents()
    #expect(events.count == 3, "the message comes back")
    #expect(
      events.suffix(2) == [.method(.txRollbackOk(TxRollbackOk()), channel: 1), ticket])
    #expect(loop.counts.ready == 0)
    client.send(publish(1) + commit)
    loop.settle()
    #expect(try client.takeEvents() == [committed])
    #expect(loop.counts.ready == 1)
  }

  @Test func aConnectionThatEndsInACommitLeavesNothing() throws {
    client.send(publish(4000))
    client.send(commit)
    loop.drop(client)
    loop.settle()
    #expect(loop.broker.account[.transactions] == 0)
    #expect(loop.counts.ready == 0)
  }
}
