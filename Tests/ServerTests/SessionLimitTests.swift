import AMQP
import Base
import Testing

@testable import Client
@testable import Server

/// What a client may do at the edge of what there is, without harm to anybody else.
@Suite struct SessionLimitTests {
  @Test(arguments: [0, 3, 1 << 63, .max] as [UInt64], [false, true])
  func aTagThatWasNeverGivenClosesTheChannel(tag: UInt64, isMultiple: Bool) throws {
    let loop = try TestLoop()
    let client = loop.connect()
    try client.open()
    try Self.deliverTwo(to: client)
    let ack = BasicAck(deliveryTag: tag, multiple: isMultiple)
    let answer = try client.call(.basicAck(ack))
    // Tag 0 means all when it is multiple.
    guard tag != 0 || !isMultiple else { return #expect(answer == []) }
    let close = ChannelClose(
      replyCode: 406, replyText: Name("PRECONDITION_FAILED - unknown delivery tag \(tag)"),
      classId: 60, methodId: 80)
    #expect(answer == [.method(.channelClose(close), channel: 1)])
  }

  private static func deliverTwo(to client: TestClient) throws {
    _ = try client.call(.queueDeclare(QueueDeclare(queue: "q", exclusive: true)))
    let publish = Wire.publish(BasicPublish(exchange: "", routingKey: "q"), body: [1])
    _ = try client.exchange(publish.flatMap(\.self) + publish.flatMap(\.self))
    let events = try client.call(.basicConsume(BasicConsume(queue: "q", consumerTag: "c")))
    try #require(events.count == 3)
  }
}
