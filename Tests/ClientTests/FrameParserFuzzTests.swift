import AMQP
import Arbitrary
import Base
import Testing

@testable import Client

/// What a broker sends, damaged: the client gets events or an error, and never stops.
@Suite struct FrameParserFuzzTests {
  private static let rounds = 200

  @Test(arguments: Seed.some(8))
  func damagedStreamsAreEventsOrErrors(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    for round in 0..<Self.rounds {
      var bytes = Self.stream(&random)
      for _ in 0..<random.choose([0, 1, 1, 2, 5]) { random.mutate(&bytes) }
      let whole = Self.parse([bytes[...]])
      let cut = random.number(0...bytes.count)
      let inTwo = Self.parse([bytes[..<cut], bytes[cut...]])
      try #require(whole == inTwo, "round \(round), cut at \(cut)")
    }
  }

  /// Any methods, and messages whose frames stand together or are mixed with others'.
  private static func stream(_ random: inout SeededGenerator) -> [UInt8] {
    var buffer = ByteBuffer()
    for _ in 0..<random.number(1...6) {
      let channel = UInt16(random.number(0...3))
      if random.oneIn(3) {
        let method = random.choose(MethodTable.methods)
        let arguments = method.arguments(&random)
        buffer.append(Frame.method)
        buffer.append(channel)
        buffer.append(UInt32(4 + arguments.count))
        buffer.append(method.id.classID)
        buffer.append(method.id.methodID)
        buffer.append(arguments)
        buffer.append(Frame.end)
      } else {
        let deliver = BasicDeliver(
          consumerTag: random.name(), deliveryTag: random.integer(), redelivered: random.flag(),
          exchange: random.name(), routingKey: random.name())
        buffer.append(.basicDeliver(deliver), channel: channel)
        var properties = ByteBuffer()
        random.properties().encode(into: &properties)
        let body = random.bytes(upTo: 5000)
        body.withUnsafeBytes { body in
          buffer.appendContent(
            channel: channel, properties: properties.readable, body: body,
            frameMax: random.choose([100, 4096]))
        }
      }
    }
    return Array(buffer.readable)
  }

  /// What the parser said of the bytes, and at the end its error or how much was left over.
  private static func parse(_ parts: [ArraySlice<UInt8>]) -> [String] {
    let sink = CountingSink()
    var parser = FrameParser()
    parser.payloadMax = 8192
    var waiting: [UInt8] = []
    do throws(ClientError) {
      for part in parts {
        waiting += part
        while true {
          let size: Int
          switch try parser.step(waiting.span.bytes, into: sink) {
          case .incomplete: size = 0
          case .handled(let handled): size = handled
          case .method(let method, let channel, let handled):
            sink.received(method, channel: channel)
            size = handled
          }
          guard size > 0 else { break }
          waiting.removeFirst(size)
        }
      }
      return sink.events + ["\(waiting.count) left"]
    } catch {
      return sink.events + ["\(error)"]
    }
  }
}

private final class CountingSink: WireSink {
  var events: [String] = []

  func received(_ message: borrowing WireMessage) {
    events.append("message \(message.deliveryTag) of \(message.body.byteCount) bytes")
  }

  func confirmed(tag: UInt64, isMultiple: Bool, isAccepted: Bool, channel: UInt16) {
    events.append("confirm \(tag)")
  }

  func received(_ method: Method, channel: UInt16) {
    events.append("\(channel) \(method.id)")
  }
}
