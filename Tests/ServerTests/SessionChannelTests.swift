import AMQP
import Base
import Broker
import Testing

@testable import Client
@testable import Server

/// What becomes of channels, of what they held, and of others beside them.
@Suite struct SessionChannelTests {
  private let loop: TestLoop
  private let client: TestClient

  init() throws {
    loop = try TestLoop()
    client = loop.connect()
    try client.open()
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q")))
  }

  private let ask = Method.accessRequest(AccessRequest(realm: "/data"))

  private func answered(_ channel: UInt16) -> [ClientEvent] {
    [.method(.accessRequestOk(AccessRequestOk(ticket: 1)), channel: channel)]
  }

  private func count() throws -> UInt32 {
    let other = loop.connect()
    try other.open()
    defer { loop.drop(other) }
    let events = try other.call(.queueDeclare(QueueDeclare(queue: "q", passive: true)))
    guard case .method(.queueDeclareOk(let status), _)? = events.first else { return .max }
    return status.messageCount
  }

  @Test func aMistakeOnOneChannelLeavesTheOthersAlone() throws {
    _ = try client.call(.channelOpen(ChannelOpen()), on: 2)
    _ = try client.exchange(Wire.publish(key: "q") + Wire.publish(key: "q", in: 2))
    _ = try client.call(.basicGet(BasicGet(queue: "q")), on: 1)
    _ = try client.call(.basicGet(BasicGet(queue: "q")), on: 2)
    #expect(try count() == 0)
    let close = try client.call(.basicAck(BasicAck(deliveryTag: 9)))
    #expect(close.count == 1)
    #expect(try count() == 1, "what the channel held comes back")
    #expect(try client.call(ask, on: 2) == answered(2))
    #expect(try client.call(ask) == [])
    _ = try client.call(.basicAck(BasicAck(deliveryTag: 1)), on: 2)
    #expect(try count() == 1)
  }

  @Test func aChannelCanBeClosedAndOpenedAgain() throws {
    let close = ChannelClose(replyCode: 200, replyText: "", classId: 0, methodId: 0)
    _ = try client.exchange(Wire.publish(key: "q"))
    for _ in 0..<3 {
      let events = try client.exchange(
        Wire.method(.basicGet(BasicGet(queue: "q"))) + Wire.method(.channelClose(close))
          + Wire.method(.channelOpen(ChannelOpen())))
      #expect(events.count == 3)
      guard case .message(let message)? = events.first else { return #expect(events == []) }
      #expect(message.deliveryTag == 1, "tags begin anew")
      #expect(
        events.dropFirst() == [
          .method(.channelCloseOk(ChannelCloseOk()), channel: 1),
          .method(.channelOpenOk(ChannelOpenOk()), channel: 1),
        ])
    }
    #expect(try count() == 1)
  }

  @Test func closingsThatCrossAreBothAnswered() throws {
    let close = ChannelClose(replyCode: 200, replyText: "", classId: 0, methodId: 0)
    let events = try client.exchange(
      Wire.method(.basicAck(BasicAck(deliveryTag: 9))) + Wire.method(.channelClose(close)))
    #expect(events.count == 2)
    #expect(events.last == .method(.channelCloseOk(ChannelCloseOk()), channel: 1))
    _ = try client.call(.channelCloseOk(ChannelCloseOk()))
    #expect(
      try client.call(.channelOpen(ChannelOpen()))
        == [.method(.channelOpenOk(ChannelOpenOk()), channel: 1)])
  }

  @Test func halfAMessageGoesWithItsChannel() throws {
    let frames = Wire.publish(BasicPublish(routingKey: "q"), body: [1, 2, 3], pieces: [1])
    _ = try client.exchange(frames[0] + frames[1] + frames[2])
    #expect(client.session.assembledBytes == 1)
    // A method within the message is a mistake that ends the connection.
    _ = try client.exchange(Wire.method(ask))
    #expect(client.session.state == .closing)
    #expect(client.session.assembledBytes == 0)
    #expect(loop.broker.account[.bodies] == 0)
    #expect(try count() == 0)
  }

  @Test func deliveriesInFlightAreDiscardedWithAChannelThatIsClosing() throws {
    let consume = BasicConsume(queue: "q", consumerTag: "c", noAck: true)
    _ = try client.call(.basicConsume(consume))
    _ = try client.call(.basicAck(BasicAck(deliveryTag: 9)))
    let other = loop.connect()
    try other.open()
    _ = try other.exchange(Wire.publish(key: "q"))
    #expect(try client.takeEvents() == [], "nobody consumes there any more")
    #expect(try count() == 1)
  }

  @Test func consumersAreToldThatTheirQueueIsGoneIfTheyWantToBe() throws {
    _ = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c")))
    let quiet = loop.connect()
    var startOK = Wire.startOK
    startOK.clientProperties = [:]
    _ = try quiet.exchange(
      Frame.protocolHeader + Wire.method(.connectionStartOk(startOK), on: 0)
        + Wire.method(.connectionTuneOk(Wire.tuneOK()), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)
        + Wire.method(.channelOpen(ChannelOpen()))
        + Wire.method(.basicConsume(BasicConsume(queue: "q", consumerTag: "d"))))
    let other = loop.connect()
    try other.open()
    _ = try other.call(.queueDelete(QueueDelete(queue: "q")))
    #expect(
      try client.takeEvents()
        == [.method(.basicCancel(BasicCancel(consumerTag: "c", noWait: true)), channel: 1)])
    #expect(try quiet.takeEvents() == [])
    #expect(try client.call(.basicCancelOk(BasicCancelOk(consumerTag: "c"))) == [])
  }

  @Test func aHeartbeatIsSentAndTaken() throws {
    #expect(try client.exchange(Wire.heartbeat + Wire.heartbeat) == [])
    client.session.heartbeatDue()
    #expect(client.takeBytes() == Wire.heartbeat)
  }

  @Test func everythingComesBackWhenAConnectionBreaks() throws {
    _ = try client.exchange(
      Wire.publish(key: "q") + Wire.publish(key: "q")
        + Wire.method(.queueDeclare(QueueDeclare(queue: "own", exclusive: true))))
    _ = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c")))
    #expect(try count() == 0)
    loop.drop(client)
    #expect(try count() == 2)
    let other = loop.connect()
    try other.open()
    let events = try other.call(.basicGet(BasicGet(queue: "q", noAck: true)))
    guard case .message(let message)? = events.first else { return #expect(events == []) }
    #expect(message.isRedelivered)
    let missing = try other.call(.queueDeclare(QueueDeclare(queue: "own", passive: true)))
    #expect(missing == [Mistake("no-queue", with: ["own", "/"], by: QueueDeclare.id).reply])
  }
}
