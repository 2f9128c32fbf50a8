import AMQP
import Base
import Testing

@Suite struct FrameTests {
  @Test func aMethodFrameIsTypeChannelSizePayloadAndEnd() {
    let bytes = Self.bytes {
      $0.append(.basicAck(BasicAck(deliveryTag: 3, multiple: true)), channel: 0x0102)
    }
    #expect(
      bytes == [1, 1, 2, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0xCE])
  }

  @Test func aMethodWithoutArgumentsIsItsID() {
    let bytes = Self.bytes { $0.append(.channelCloseOk(ChannelCloseOk()), channel: 1) }
    #expect(bytes == [1, 0, 1, 0, 0, 0, 4, 0, 20, 0, 41, 0xCE])
  }

  @Test func aHeartbeatIsEmptyAndOnChannelZero() {
    #expect(Self.bytes { $0.appendHeartbeat() } == [8, 0, 0, 0, 0, 0, 0, 0xCE])
  }

  @Test func framesAreAppendedBehindWhatIsThere() {
    let bytes = Self.bytes {
      $0.append(UInt16(0xAABB))
      $0.append(.channelCloseOk(ChannelCloseOk()), channel: 1)
      $0.appendHeartbeat()
    }
    #expect(
      bytes == [0xAA, 0xBB, 1, 0, 1, 0, 0, 0, 4, 0, 20, 0, 41, 0xCE] + [8, 0, 0, 0, 0, 0, 0, 0xCE])
  }

  @Test func contentIsAHeaderFrameAndABodyFrame() {
    let bytes = Self.content([0x10, 0, 2], Array("hello".utf8), frameMax: 4096)
    let header: [UInt8] =
      [2, 0, 7, 0, 0, 0, 15, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x10, 0, 2, 0xCE]
    #expect(bytes == header + [3, 0, 7, 0, 0, 0, 5] + Array("hello".utf8) + [0xCE])
  }

  @Test func contentWithoutABodyIsItsHeader() {
    let bytes = Self.content([0, 0], [], frameMax: 4096)
    #expect(
      bytes == [2, 0, 7, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xCE])
  }

  /// Around the sizes at which one more frame is needed.
  @Test(arguments: [1, 99, 100, 101, 199, 200, 201, 1000])
  func aBodyIsCutSoThatNoFrameIsLargerThanAgreed(size: Int) {
    let body = (0..<size).map { UInt8(truncatingIfNeeded: $0) }
    let frameMax = 100 + Frame.overhead
    var rest = Self.content([0, 0], body, frameMax: frameMax)[22...]
    var found: [UInt8] = []
    var frames = 0
    while !rest.isEmpty {
      let size = rest.dropFirst(3).prefix(4).reduce(0) { $0 << 8 | Int($1) }
      #expect(Array(rest.prefix(3)) == [3, 0, 7])
      #expect(size + Frame.overhead <= frameMax)
      found += rest.dropFirst(Frame.headerSize).prefix(size)
      rest = rest.dropFirst(Frame.headerSize + size)
      #expect(rest.popFirst() == Frame.end)
      frames += 1
    }
    #expect(found == body)
    #expect(frames == (size + 99) / 100)
  }

  @Test func framesHaveNamesForErrorTexts() {
    #expect(Frame.typeName(Frame.method) == "method")
    #expect(Frame.typeName(Frame.header) == "content header")
    #expect(Frame.typeName(Frame.body) == "content body")
    #expect(Frame.typeName(Frame.heartbeat) == "heartbeat")
    #expect(Frame.typeName(9) == "type 9")
    #expect(Frame.protocolHeader == [0x41, 0x4D, 0x51, 0x50, 0, 0, 9, 1])
  }

  // MARK: Helpers

  private static func bytes(_ write: (inout ByteBuffer) -> Void) -> [UInt8] {
    var buffer = ByteBuffer()
    write(&buffer)
    return Array(buffer.readable)
  }

  private static func content(_ properties: [UInt8], _ body: [UInt8], frameMax: Int) -> [UInt8] {
    bytes { buffer in
      properties.withUnsafeBytes { properties in
        body.withUnsafeBytes { body in
          buffer.appendContent(channel: 7, properties: properties, body: body, frameMax: frameMax)
        }
      }
    }
  }
}
