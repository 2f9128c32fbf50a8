import AMQP
import Base
import Testing

@testable import Client

@Suite struct FrameParserTests {
  /// Everything a broker may send: messages whose frames stand together, without a body, in many
  /// frames and mixed between channels, confirms, other methods, heartbeats.
  private static let stream: [UInt8] = {
    var output = ByteBuffer()
    output.append(.basicConsumeOk(BasicConsumeOk(consumerTag: "c1")), channel: 1)
    deliver(&output, tag: 1, channel: 1, body: Array("hello".utf8), frameMax: 4096)
    deliver(&output, tag: 2, channel: 1, body: [], frameMax: 4096)
    output.appendHeartbeat()
    deliver(&output, tag: 3, channel: 2, body: Array(repeating: 7, count: 300), frameMax: 108)
    output.append(.basicAck(BasicAck(deliveryTag: 9, multiple: true)), channel: 3)
    output.append(.basicNack(BasicNack(deliveryTag: 10, multiple: false)), channel: 3)
    let returned = BasicReturn(
      replyCode: 312, replyText: "NO_ROUTE", exchange: "x", routingKey: "k")
    output.append(.basicReturn(returned), channel: 3)
    content(&output, channel: 3, body: [1, 2, 3], frameMax: 4096)
    mixed(&output)
    let answer = BasicGetOk(deliveryTag: 6, exchange: "x", routingKey: "k", messageCount: 12)
    output.append(.basicGetOk(answer), channel: 1)
    content(&output, channel: 1, body: [4], frameMax: 4096)
    output.append(.channelCloseOk(ChannelCloseOk()), channel: 1)
    return Array(output.readable)
  }()

  private static let events = [
    "1 basic.consume-ok",
    "1 delivery 1 c1 x k hello",
    "1 delivery 2 c1 x k ",
    "2 delivery 3 c1 x k " + String(repeating: "\u{7}", count: 300),
    "3 ack 9 and before",
    "3 nack 10",
    "3 returned 312 NO_ROUTE x k \u{1}\u{2}\u{3}",
    "2 basic.cancel",
    "5 delivery 5 c1 x k five",
    "4 delivery 4 c1 x k four",
    "1 answer 6 x k 12 left \u{4}",
    "1 channel.close-ok",
  ]

  @Test func everyEventComesOnce() throws {
    #expect(try Self.parse([Self.stream[...]]) == Self.events)
  }

  @Test func aStreamMayBeCutAnywhere() throws {
    for cut in 0...Self.stream.count {
      let parts = [Self.stream[..<cut], Self.stream[cut...]]
      try #require(try Self.parse(parts) == Self.events, "cut at \(cut)")
    }
  }

  @Test func aStreamMayComeByteByByte() throws {
    let parts = Self.stream.indices.map { Self.stream[$0...$0] }
    #expect(try Self.parse(parts) == Self.events)
  }

  @Test func aFrameLargerThanAgreedIsRefusedAtOnce() {
    #expect(throws: ClientError.protocolViolation("a frame of 4097 bytes, and 4096 were agreed")) {
      try Self.parse([[3, 0, 1, 0, 0, 0x10, 0x01]])
    }
  }

  @Test(arguments: [
    // An unknown type, a missing end, a body and a header out of the blue, a method without id.
    [9, 0, 0, 0, 0, 0, 0, 0xCE], [8, 0, 0, 0, 0, 0, 0, 0xCD], [3, 0, 1, 0, 0, 0, 1, 5, 0xCE],
    [2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xCE],
    [1, 0, 1, 0, 0, 0, 3, 0, 60, 0, 0xCE], [1, 0, 1, 0, 0, 0, 4, 0, 99, 0, 1, 0xCE],
    // An ack without its tag, a delivery whose consumer tag is longer than the frame.
    [1, 0, 1, 0, 0, 0, 5, 0, 60, 0, 80, 0, 0xCE],
    [1, 0, 1, 0, 0, 0, 6, 0, 60, 0, 60, 9, 9, 0xCE]
      + [2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xCE],
  ])
  func whatTheProtocolForbidsIsRefused(bytes: [UInt8]) {
    #expect(throws: ClientError.self) { try Self.parse([bytes[...]]) }
  }

  @Test func aBodyMustNotBeLongerThanAnnounced() {
    var frames = Self.frames {
      Self.deliver(&$0, tag: 1, channel: 1, body: [1, 2, 3], frameMax: 4096)
    }
    let lastByteOfSize = Frame.headerSize + 11
    frames[1][lastByteOfSize] = 2
    #expect(throws: ClientError.protocolViolation("a body longer than its header said")) {
      try Self.parse(frames.map { $0[...] })
    }
  }

  @Test func damageIsAnErrorOrAnotherMessageButNeverATrap() {
    for index in Self.stream.indices {
      for value in [0, 1, 0x3C, 0x7F, 0xCE, 0xFF] as [UInt8] {
        var damaged = Self.stream
        damaged[index] = value
        // What comes out does not matter here, only that something does.
        _ = try? Self.parse([damaged[...]])
      }
    }
  }

  @Test func aClosedChannelForgetsTheMessageThatHadBegun() throws {
    let begun = Self.frames {
      Self.deliver(&$0, tag: 1, channel: 1, body: Array(repeating: 7, count: 300), frameMax: 108)
    }
    let rest = Self.frames {
      $0.append(
        .channelClose(ChannelClose(replyCode: 404, classId: 0, methodId: 0)), channel: 1)
      Self.deliver(&$0, tag: 1, channel: 1, body: [1], frameMax: 4096)
    }
    let events = try Self.parse((begun.prefix(3) + rest).map { $0[...] })
    #expect(events == ["1 channel.close", "1 delivery 1 c1 x k \u{1}"])
  }

  // MARK: Helpers

  private static func deliver(
    _ output: inout ByteBuffer, tag: UInt64, channel: UInt16, body: [UInt8], frameMax: Int
  ) {
    let deliver = BasicDeliver(
      consumerTag: "c1", deliveryTag: tag, redelivered: false, exchange: "x", routingKey: "k")
    output.append(.basicDeliver(deliver), channel: channel)
    content(&output, channel: channel, body: body, frameMax: frameMax)
  }

  private static func content(
    _ output: inout ByteBuffer, channel: UInt16, body: [UInt8], frameMax: Int
  ) {
    let properties: [UInt8] = [0x10, 0, 2]
    properties.withUnsafeBytes { properties in
      body.withUnsafeBytes { body in
        output.appendContent(
          channel: channel, properties: properties, body: body, frameMax: frameMax)
      }
    }
  }

  /// Two messages whose frames alternate, with a method of a third channel between them.
  private static func mixed(_ output: inout ByteBuffer) {
    let four = frames { deliver(&$0, tag: 4, channel: 4, body: Array("four".utf8), frameMax: 10) }
    let five = frames { deliver(&$0, tag: 5, channel: 5, body: Array("five".utf8), frameMax: 99) }
    output.append(four[0])
    output.append(five[0])
    output.append(four[1])
    output.append(.basicCancel(BasicCancel(consumerTag: "c1")), channel: 2)
    output.append(four[2])
    output.append(five[1])
    output.append(five[2])
    output.append(four[3])
  }

  private static func frames(_ write: (inout ByteBuffer) -> Void) -> [[UInt8]] {
    var output = ByteBuffer()
    write(&output)
    var rest = Array(output.readable)[...]
    var frames: [[UInt8]] = []
    while !rest.isEmpty {
      let size = rest.dropFirst(3).prefix(4).reduce(0) { $0 << 8 | Int($1) }
      frames.append(Array(rest.prefix(size + Frame.overhead)))
      rest = rest.dropFirst(size + Frame.overhead)
    }
    return frames
  }

  private static func parse(_ parts: [ArraySlice<UInt8>]) throws(ClientError) -> [String] {
    let sink = RecordingSink()
    var parser = FrameParser()
    parser.payloadMax = 4096
    var waiting: [UInt8] = []
    for part in parts {
      waiting += part
      var step = try parser.step(waiting.span.bytes, into: sink)
      while let size = sink.note(step) {
        waiting.removeFirst(size)
        step = try parser.step(waiting.span.bytes, into: sink)
      }
    }
    return sink.events
  }
}

/// Writes down what it gets.
private final class RecordingSink: WireSink {
  var events: [String] = []

  func note(_ step: FrameParser.Step) -> Int? {
    switch step {
    case .incomplete: return nil
    case .handled(let size): return size
    case .method(let method, let channel, let size):
      received(method, channel: channel)
      return size
    }
  }

  func received(_ message: borrowing WireMessage) {
    let place = "\(text(message.exchange)) \(text(message.routingKey))"
    let head =
      switch message.kind {
      case .delivery: "delivery \(message.deliveryTag) \(text(message.consumerTag)) \(place)"
      case .answer: "answer \(message.deliveryTag) \(place) \(message.messageCount) left"
      case .returned: "returned \(message.replyCode) \(text(message.replyText)) \(place)"
      }
    let isAsSent = message.properties.withUnsafeBytes { Array($0) } == [0x10, 0, 2]
    let properties = isAsSent ? "" : " with other properties"
    events.append("\(message.channel) \(head) \(text(message.body))\(properties)")
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {
    let reach = isMultiple ? " and before" : ""
    events.append("\(channel) \(isAccepted ? "ack" : "nack") \(tag)\(reach)")
  }

  func received(_ method: Method, channel: UInt16) {
    events.append("\(channel) \(method.id)")
  }

  private func text(_ bytes: RawSpan) -> String {
    bytes.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
  }
}
