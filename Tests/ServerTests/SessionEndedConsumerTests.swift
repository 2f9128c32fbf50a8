import AMQP
import Base
import Broker
import IO
import Testing

@testable import Client
@testable import Server

/// When and where a client hears that the broker ended its consumers: because their queue was deleted, or
/// because its next message is damaged.
@Suite struct SessionEndedConsumerTests {
  private static let body = Array("a message that is going to be damaged".utf8)

  /// A broker whose queue `bad` cannot go on, which nobody has seen yet.
  private func damaged() throws -> TestLoop {
    let directory = try written()
    let loop = try TestLoop(directory: directory)
    let path = directory.path + "/journal/0000000000000000.segment"
    let bytes = try FileSystem.readWhole(path)
    let place = try #require(
      bytes.indices.first { bytes[$0...].starts(with: Self.body) }, "the message is in the log")
    try File(path, .readWrite).write(at: place, [bytes[place] ^ 1])
    return loop
  }

  /// The same, which somebody has seen; and there is another queue.
  private func stopped() throws -> TestLoop {
    let loop = try damaged()
    let client = try open(loop)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "good")))
    let heard = try client.exchange(consume("bad", "first"))
    #expect(heard == [started("first"), cancelled("first")])
    loop.drop(client)
    return loop
  }

  /// A message that somebody had and gave back: it need not be told to the log before it is delivered.
  private func written() throws -> TemporaryDirectory {
    let loop = try TestLoop()
    let client = try open(loop)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "bad", durable: true)))
    var properties = BasicProperties()
    properties.deliveryMode = 2
    // The log's last page is written once more by the next life.
    for body in [Self.body, [UInt8](repeating: 0, count: 10_000)] {
      client.send(
        Wire.publish(
          BasicPublish(routingKey: "bad"), body: body, properties: properties.bytes
        ).flatMap(\.self))
    }
    loop.settle()
    #expect(try client.call(.basicGet(BasicGet(queue: "bad"))).count == 1)
    return loop.close()
  }

  /// `isTold`: the client can be told that a consumer was cancelled.
  private func open(_ loop: TestLoop, isTold: Bool = true) throws -> TestClient {
    let client = loop.connect()
    guard !isTold else {
      try client.open()
      return client
    }
    var start = Wire.startOK
    start.clientProperties = [:]
    _ = try client.exchange(Frame.protocolHeader)
    _ = try client.exchange(
      Wire.method(.connectionStartOk(start), on: 0)
        + Wire.method(.connectionTuneOk(Wire.tuneOK()), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)
        + Wire.method(.channelOpen(ChannelOpen())))
    return client
  }

  private func consume(_ queue: Name, _ tag: Name, on channel: UInt16 = 1) -> [UInt8] {
    Wire.method(.basicConsume(BasicConsume(queue: queue, consumerTag: tag)), on: channel)
  }

  private func started(_ tag: Name) -> ClientEvent {
    .method(.basicConsumeOk(BasicConsumeOk(consumerTag: tag)), channel: 1)
  }

  private func cancelled(_ tag: Name, on channel: UInt16 = 1) -> ClientEvent {
    .method(.basicCancel(BasicCancel(consumerTag: tag, noWait: true)), channel: channel)
  }

  private let close = ChannelClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0)
  private let closed = ClientEvent.method(.channelCloseOk(ChannelCloseOk()), channel: 1)

  private func isClose(_ event: ClientEvent?) -> Bool {
    if case .method(.channelClose, channel: 1) = event { true } else { false }
  }

  private func isConnectionClose(_ event: ClientEvent?, _ code: UInt16) -> Bool {
    guard case .method(.connectionClose(let close), channel: 0) = event else { return false }
    return close.replyCode == code
  }

  private func isStatus(_ event: ClientEvent?, consumers: UInt32) -> Bool {
    guard case .method(.queueDeclareOk(let status), _) = event else { return false }
    return status.consumerCount == consumers
  }

  // MARK: Damage

  /// What a request finds when it is taken is told before its answer: a consumer whose cancel was answered
  /// is not cancelled once more.
  @Test func aCancelFindsItsConsumerEnded() throws {
    let loop = try stopped()
    defer { _ = loop.close() }
    let client = try open(loop)
    let events = try client.exchange(
      consume("bad", "c") + Wire.method(.basicCancel(BasicCancel(consumerTag: "c"))))
    #expect(
      events == [
        started("c"), cancelled("c"),
        .method(.basicCancelOk(BasicCancelOk(consumerTag: "c")), channel: 1),
      ])
  }

  @Test func aChannelsCloseFindsItsConsumersEnded() throws {
    let loop = try stopped()
    defer { _ = loop.close() }
    let client = try open(loop)
    let events = try client.exchange(
      consume("bad", "c") + Wire.method(.channelClose(close)))
    #expect(events == [started("c"), cancelled("c"), closed])
  }

  /// Whether the mistake is found on the careful path or on the fast one.
  @Test(arguments: [
    Method.queueDeclare(QueueDeclare(queue: "none", passive: true)),
    .basicAck(BasicAck(deliveryTag: 9)),
  ])
  func aMistakeFindsItsChannelsConsumersEnded(mistake: Method) throws {
    let loop = try stopped()
    defer { _ = loop.close() }
    let client = try open(loop)
    let events = try client.exchange(consume("bad", "c") + Wire.method(mistake))
    #expect(events.prefix(2) == [started("c"), cancelled("c")])
    #expect(events.count == 3)
    #expect(isClose(events.last))
  }

  // MARK: Damage, and a client that cannot be told of it

  /// Its connection is closed, and what it had sent behind is not performed for a connection that is gone.
  @Test(arguments: [
    Method.basicConsume(BasicConsume(queue: "good", consumerTag: "d")),
    .channelClose(ChannelClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0)),
    .queueDeclare(QueueDeclare(queue: "none", passive: true)),
    .basicAck(BasicAck(deliveryTag: 9)), .basicRecover(BasicRecover(requeue: true)),
  ])
  func theConnectionIsClosedBeforeTheNextRequest(request: Method) throws {
    let loop = try stopped()
    let client = try open(loop, isTold: false)
    let events = try client.exchange(consume("bad", "c") + Wire.method(request))
    #expect(events.count == 2)
    #expect(events.first == started("c"))
    #expect(isConnectionClose(events.last, 541))
    let other = try open(loop)
    let status = try other.call(.queueDeclare(QueueDeclare(queue: "good", passive: true)))
    #expect(isStatus(status.last, consumers: 0))
  }

  /// It is closed once, for the reason that came first.
  @Test func aConnectionThatEndsIsNotClosedForDamageToo() throws {
    let loop = try stopped()
    defer { _ = loop.close() }
    let client = try open(loop, isTold: false)
    let events = try client.exchange(consume("bad", "c") + Wire.frame(9, []))
    #expect(events.count == 2)
    #expect(isConnectionClose(events.last, 501))
  }

  @Test func aClientThatClosesIsAnswered() throws {
    let loop = try stopped()
    defer { _ = loop.close() }
    let client = try open(loop, isTold: false)
    let events = try client.exchange(
      consume("bad", "c")
        + Wire.method(
          .connectionClose(
            ConnectionClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0)), on: 0))
    #expect(
      events == [started("c"), .method(.connectionCloseOk(ConnectionCloseOk()), channel: 0)])
  }

  /// The damage may be found in a turn in which the client says nothing; it may never say anything again.
  @Test func aClientThatDoesNotAnswerIsDropped() throws {
    let loop = try damaged()
    let client = try open(loop, isTold: false)
    let events = try client.exchange(consume("bad", "c"))
    #expect(events.first == started("c"))
    #expect(isConnectionClose(events.last, 541))
    #expect(!client.isClosed)
    for _ in 0..<3 { loop.turn(after: 5000) }
    #expect(client.isClosed)
  }

  // MARK: Deleted queues

  private func twoChannels(_ loop: TestLoop, isDurable: Bool) throws -> TestClient {
    let client = try open(loop)
    _ = try client.call(.channelOpen(ChannelOpen()), on: 2)
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q", durable: isDurable)))
    _ = try client.exchange(consume("q", "c"))
    return client
  }

  private let delete = Wire.method(.queueDelete(QueueDelete(queue: "q")), on: 2)
  private let deleted = ClientEvent.method(
    .queueDeleteOk(QueueDeleteOk(messageCount: 0)), channel: 2)

  /// Whoever deletes the queue, and whether that has to be durable.
  @Test(arguments: [false, true])
  func nobodyIsToldOfConsumersBehindTheChannelsEnd(isDurable: Bool) throws {
    let loop = try TestLoop()
    defer { _ = loop.close() }
    let client = try twoChannels(loop, isDurable: isDurable)
    #expect(
      try client.exchange(Wire.method(.channelClose(close)) + delete) == [closed, deleted])
  }

  @Test(arguments: [false, true])
  func consumersAreToldBeforeTheChannelsEnd(isDurable: Bool) throws {
    let loop = try TestLoop()
    defer { _ = loop.close() }
    let client = try twoChannels(loop, isDurable: isDurable)
    #expect(
      try client.exchange(delete + Wire.method(.channelClose(close))) == [
        deleted, cancelled("c"), closed,
      ])
  }

  @Test(arguments: [false, true])
  func nobodyIsToldOfConsumersBehindTheBrokersClose(isDurable: Bool) throws {
    let loop = try TestLoop()
    defer { _ = loop.close() }
    let client = try twoChannels(loop, isDurable: isDurable)
    let mistake = Wire.method(.queueDeclare(QueueDeclare(queue: "none", passive: true)))
    let events = try client.exchange(mistake + delete)
    #expect(events.count == 2)
    #expect(isClose(events.first))
    #expect(events.last == deleted)
  }

  /// The channel's end takes many turns, in which somebody else deletes the queue of its consumers.
  @Test func nobodyIsToldOfConsumersWhileTheChannelEnds() throws {
    let loop = try TestLoop()
    let client = try twoChannels(loop, isDurable: false)
    let other = try open(loop)
    _ = try client.exchange(
      (0..<20_000).flatMap { index in
        Wire.method(
          .basicConsume(BasicConsume(queue: "q", consumerTag: Name("c\(index)"), noWait: true)))
      })
    client.send(Wire.method(.channelClose(close)))
    #expect(loop.broker.hasChores)
    other.send(Wire.method(.queueDelete(QueueDelete(queue: "q"))))
    loop.settle()
    #expect(try client.takeEvents() == [closed])
  }

  /// The cancel crosses the deletion: either is answered by itself.
  @Test func aCancelBehindADeletionFindsNoConsumer() throws {
    let loop = try TestLoop()
    defer { _ = loop.close() }
    let client = try twoChannels(loop, isDurable: true)
    let cancel = Wire.method(.basicCancel(BasicCancel(consumerTag: "c")))
    #expect(
      try client.exchange(delete + cancel) == [
        deleted, cancelled("c"),
        .method(.basicCancelOk(BasicCancelOk(consumerTag: "c")), channel: 1),
      ])
  }
}
