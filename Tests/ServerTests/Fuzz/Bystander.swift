import AMQP
import Base
import Testing

@testable import Client
@testable import Server

/// A client of the same broker that did nothing wrong and expects to be served.
final class Bystander {
  private let client: TestClient
  private let loop: TestLoop
  private var rounds: UInt64 = 0
  private static let queue: Name = "the bystander's"

  init(on loop: TestLoop) throws {
    self.loop = loop
    client = loop.connect()
    try client.open()
    _ = try client.call(.confirmSelect(ConfirmSelect()))
  }

  /// Declares, publishes, consumes, acknowledges and deletes.
  func requireService() throws {
    rounds += 1
    let declared = QueueDeclareOk(queue: Self.queue, messageCount: 0, consumerCount: 0)
    try require(
      .queueDeclare(QueueDeclare(queue: Self.queue, durable: true)),
      [.method(.queueDeclareOk(declared), channel: 1)])
    let body = Array("round \(rounds)".utf8)
    let publish = Wire.publish(
      BasicPublish(exchange: "", routingKey: Self.queue), body: body, properties: [0x10, 0, 2])
    let confirm = ClientEvent.confirm(
      tag: rounds, isMultiple: false, isAccepted: true, channel: 1)
    try #require(try client.exchange(publish.flatMap(\.self)) == [confirm])
    let delivery = ClientMessage(
      kind: .delivery, channel: 1, deliveryTag: rounds, isRedelivered: false, exchange: "",
      routingKey: Self.queue, properties: [0x10, 0, 2], body: body)
    try require(
      .basicConsume(BasicConsume(queue: Self.queue, consumerTag: "b")),
      [.method(.basicConsumeOk(BasicConsumeOk(consumerTag: "b")), channel: 1), .message(delivery)])
    try require(.basicAck(BasicAck(deliveryTag: rounds)), [])
    try require(
      .queueDelete(QueueDelete(queue: Self.queue)),
      [
        .method(.queueDeleteOk(QueueDeleteOk(messageCount: 0)), channel: 1),
        .method(.basicCancel(BasicCancel(consumerTag: "b", noWait: true)), channel: 1),
      ])
  }

  /// Nobody has a queue of this name.
  func requireAbsence(of queue: Name) throws {
    _ = try client.call(.channelOpen(ChannelOpen()), on: 2)
    let text = PeerError.noQueue(queue: queue, vhost: "/" as Name).replyText
    let close = ChannelClose(replyCode: 404, replyText: text, classId: 50, methodId: 10)
    let answer = try client.call(
      .queueDeclare(QueueDeclare(queue: queue, passive: true)), on: 2)
    try #require(answer == [.method(.channelClose(close), channel: 2)])
    _ = try client.call(.channelCloseOk(ChannelCloseOk()), on: 2)
  }

  private func require(_ method: Method, _ expected: [ClientEvent]) throws {
    let events = try client.call(method)
    try #require(events == expected)
  }
}
