import AMQP
import Base
import Testing

@testable import martlet

@Suite struct FoundDeliveryTests {
  @Test(arguments: [0, 1, 8, 100, 3000])
  func aWholeDeliveryIsFound(size: Int) {
    let bytes = [0xAA] + Self.delivery(bodySize: size) + [1, 2, 3]
    let span = bytes.span.bytes
    let found = FoundDelivery(span, at: 1)
    #expect(found?.deliveryTag == 0x0102_0304_0506)
    #expect(found?.consumerTagSize == 3)
    #expect(found.map { bytes[$0.consumerTagStart...].starts(with: "c-1".utf8) } == true)
    #expect(found?.bodySize == size)
    #expect(found?.end == bytes.count - 3)
    #expect(size == 0 || found.map { bytes[$0.bodyStart] } == 7)
  }

  @Test(arguments: [0, 1, 20])
  func noPartOfOneIs(size: Int) {
    let whole = Self.delivery(bodySize: size)
    for count in 0..<whole.count {
      let part = Array(whole[..<count])
      #expect(FoundDelivery(part.span.bytes, at: 0) == nil)
    }
  }

  @Test func whateverIsDamagedIsNotFoundAndHarmsNobody() {
    let whole = Self.delivery(bodySize: 20)
    for index in whole.indices {
      for value in [0, 1, 0x7F, 0xFF] as [UInt8] where whole[index] != value {
        var damaged = whole
        damaged[index] = value
        guard let found = FoundDelivery(damaged.span.bytes, at: 0) else { continue }
        // With a body size of 0 instead of 20 the first two frames are a delivery.
        #expect(found.bodySize == 20 ? found.end == whole.count : found.bodySize == 0)
      }
    }
  }

  @Test func aBodyInTwoFramesIsLeftToTheParser() {
    let bytes = Self.delivery(bodySize: 20, frameMax: 18)
    #expect(FoundDelivery(bytes.span.bytes, at: 0) == nil)
  }

  private static func delivery(bodySize: Int, frameMax: Int = 131_072) -> [UInt8] {
    var output = ByteBuffer()
    let deliver = BasicDeliver(
      consumerTag: "c-1", deliveryTag: 0x0102_0304_0506, exchange: "exchange", routingKey: "key")
    output.append(.basicDeliver(deliver), channel: 1)
    let properties: [UInt8] = [0x10, 0, 2]
    let body = [UInt8](repeating: 7, count: bodySize)
    properties.withUnsafeBytes { properties in
      body.withUnsafeBytes { body in
        output.appendContent(
          channel: 1, properties: properties, body: body, frameMax: frameMax)
      }
    }
    return Array(output.readable)
  }
}

extension Optional where Wrapped == FoundDelivery {
  fileprivate static func == (found: FoundDelivery?, nothing: _OptionalNilComparisonType) -> Bool {
    if case .none = found { true } else { false }
  }
}
