import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// What comes before what on a channel, and what is answered although the client is blocked.
@Suite struct SessionOrderTests {
  private let loop: TestLoop
  private let client: TestClient

  init() throws {
    loop = try TestLoop()
    client = loop.connect()
    try client.open()
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
  }

  private func consume(_ queue: Name = "q", _ tag: Name, isAutomatic: Bool = true) throws {
    _ = try client.call(
      .basicConsume(BasicConsume(queue: queue, consumerTag: tag, noAck: isAutomatic)))
  }

  private func publish(_ body: [UInt8] = [1], on channel: UInt16 = 1) -> [UInt8] {
    Wire.publish(BasicPublish(routingKey: "q"), body: body, on: channel).flatMap(\.self)
  }

  private func ready() throws -> ClientEvent? {
    try client.call(.queueDeclare(QueueDeclare(queue: "q", passive: true))).last
  }

  private func status(_ count: UInt32) -> ClientEvent {
    .method(
      .queueDeclareOk(QueueDeclareOk(queue: "q", messageCount: count, consumerCount: 0)),
      channel: 1)
  }

  // MARK: Orders

  @Test(arguments: [false, true])
  func consumersAreToldBehindTheAnswerToTheDeletion(isDurable: Bool) throws {
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "p", durable: isDurable)))
    try consume("p", "c")
    let events = try client.call(.queueDelete(QueueDelete(queue: "p")))
    #expect(
      events == [
        .method(.queueDeleteOk(QueueDeleteOk(messageCount: 0)), channel: 1),
        .method(.basicCancel(BasicCancel(consumerTag: "c", noWait: true)), channel: 1),
      ])
  }

  @Test func aGetSeesWhatTheConsumerHasTaken() throws {
    try consume("q", "c")
    let get = Wire.method(.basicGet(BasicGet(queue: "q", noAck: true)))
    let events = try client.exchange(publish() + get)
    #expect(events.contains(.method(.basicGetEmpty(BasicGetEmpty()), channel: 1)))
    #expect(events.count == 2)
  }

  @Test func publishesInOneBatchArePumpedOnce() throws {
    try consume("q", "c")
    // As long as nobody asks, deliveries wait for the end of what was read.
    let events = try client.exchange((0..<100).flatMap { publish([UInt8($0)]) })
    #expect(events.count == 100)
  }

  @Test func theConnectionsCloseIsAnsweredWhenItsQueuesAreGone() throws {
    for index in 0..<3000 {
      let own = QueueDeclare(queue: Name("e\(index)"), exclusive: true, noWait: true)
      client.send(Wire.method(.queueDeclare(own)))
    }
    loop.settle()
    client.send(Wire.method(.connectionClose(close), on: 0))
    #expect(loop.broker.hasChores)
    #expect(try client.takeEvents() == [])
    loop.settle()
    #expect(!loop.broker.hasChores)
    #expect(loop.counts.queues == 1)
    #expect(
      try client.takeEvents() == [
        .method(.connectionCloseOk(ConnectionCloseOk()), channel: 0)
      ])
  }

  @Test func requestsBehindLargeWorkWaitForIt() throws {
    let consumers = (0..<20_000).flatMap { index in
      Wire.method(
        .basicConsume(
          BasicConsume(queue: "q", consumerTag: Name("c\(index)"), noWait: true)))
    }
    client.send(consumers)
    loop.settle()
    client.send(
      Wire.method(.channelClose(channelClose)) + Wire.method(.channelOpen(ChannelOpen()))
        + Wire.method(.queueDeclare(QueueDeclare(queue: "q", passive: true))))
    #expect(loop.broker.hasChores)
    #expect(try client.takeEvents() == [])
    loop.settle()
    let answers = try client.takeEvents()
    #expect(answers.count == 3)
    #expect(answers.first == .method(.channelCloseOk(ChannelCloseOk()), channel: 1))
    #expect(answers.last == status(0))
  }

  // MARK: Endings

  /// What is given back by one client of a broker that stops is not handed to the next.
  @Test func aStopHandsNothingOn() throws {
    try consume("q", "first", isAutomatic: false)
    _ = try client.exchange(publish())
    let other = loop.connect()
    try other.open()
    _ = try other.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "second")))
    loop.loop.stop()
    let heard = try other.takeEvents()
    #expect(heard.count == 1)
    guard case .method(.connectionClose(let close), channel: 0) = heard.first else {
      Issue.record("\(heard)")
      return
    }
    #expect(close.replyCode == 320)
  }

  /// A message that waits for nothing but the end of the batch stays when its consumer is gone by then.
  @Test func whoIsGoneGetsNothing() throws {
    try consume("q", "c")
    let other = loop.connect()
    try other.open()
    let peer = try #require(client.session.peer)
    peer.roomFilled()
    _ = try other.exchange(publish())
    peer.roomMade()
    loop.drop(client)
    #expect(
      try other.call(.queueDeclare(QueueDeclare(queue: "q", passive: true))) == [status(1)])
  }

  // MARK: Blocked

  private let blocked = ClientEvent.method(
    .connectionBlocked(ConnectionBlocked(reason: "low on memory")), channel: 0)
  private let close = ConnectionClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0)
  private let channelClose = ChannelClose(
    replyCode: 200, replyText: "bye", classId: 0, methodId: 0)

  @Test func aBlockedClientCanCloseItsConnection() throws {
    loop.setAlarm("low on memory")
    #expect(try client.exchange(publish()) == [blocked])
    #expect(
      try client.exchange(Wire.method(.connectionClose(close), on: 0)) == [
        .method(.connectionCloseOk(ConnectionCloseOk()), channel: 0)
      ])
    loop.setAlarm(nil)
    let other = loop.connect()
    try other.open()
    #expect(
      try other.call(.queueDeclare(QueueDeclare(queue: "q", passive: true))) == [status(1)],
      "what was published before is not lost")
  }

  @Test func aCloseInTheSameBatchIsAnsweredToo() throws {
    loop.setAlarm("low on memory")
    #expect(
      try client.exchange(publish() + Wire.method(.connectionClose(close), on: 0)) == [
        blocked, .method(.connectionCloseOk(ConnectionCloseOk()), channel: 0),
      ])
  }

  /// Names decide whether the beginning of a message is looked at before the rest of it has come.
  @Test(arguments: [0, 1, 5000])
  func whatPassesWithACloseMayHaveLongNames(bodySize: Int) throws {
    let name: Name = "a.queue.with.a.rather.long.name"
    _ = try client.call(.queueDeclare(QueueDeclare(queue: name)))
    loop.setAlarm("low on memory")
    let message = Wire.publish(
      BasicPublish(routingKey: name), body: [UInt8](repeating: 1, count: bodySize)
    ).flatMap(\.self)
    let closing = Wire.method(.channelClose(channelClose))
    #expect(
      try client.exchange(message + message + closing) == [
        blocked, .method(.channelCloseOk(ChannelCloseOk()), channel: 1),
      ])
    loop.setAlarm(nil)
    loop.settle()
    _ = try client.takeEvents()
    _ = try client.call(.channelOpen(ChannelOpen()))
    let status = QueueDeclareOk(queue: name, messageCount: 2, consumerCount: 0)
    #expect(
      try client.call(.queueDeclare(QueueDeclare(queue: name, passive: true)))
        == [.method(.queueDeclareOk(status), channel: 1)])
  }

  @Test func aBlockedClientCanCloseAChannelAndStaysBlocked() throws {
    loop.setAlarm("low on memory")
    let closeOK = ClientEvent.method(.channelCloseOk(ChannelCloseOk()), channel: 1)
    #expect(
      try client.exchange(publish() + publish() + Wire.method(.channelClose(channelClose)))
        == [blocked, closeOK])
    #expect(client.session.pause == .blocked)
    #expect(try client.exchange(Wire.heartbeat) == [])
    #expect(try client.exchange(Wire.method(.channelOpen(ChannelOpen()))) == [])
    #expect(try client.exchange(Wire.method(.channelClose(channelClose))).count == 2)
    loop.setAlarm(nil)
    loop.settle()
    let unblocked = ClientEvent.method(
      .connectionUnblocked(ConnectionUnblocked()), channel: 0)
    #expect(try client.takeEvents() == [unblocked])
    _ = try client.call(.channelOpen(ChannelOpen()))
    #expect(try ready() == status(2))
  }

  @Test func noMoreThanALittlePassesForTheSakeOfCloses() throws {
    loop.setAlarm("low on memory")
    let large = publish([UInt8](repeating: 7, count: 60_000))
    let open = Wire.method(.channelOpen(ChannelOpen()))
    let closing = Wire.method(.channelClose(channelClose))
    #expect(try client.exchange(large + closing).count == 2)
    #expect(try client.exchange(open + large + closing) == [])
    #expect(client.session.pause == .blocked)
    loop.setAlarm(nil)
    loop.settle()
    #expect(try client.takeEvents().count == 3, "unblocked, open-ok and close-ok")
  }
}
