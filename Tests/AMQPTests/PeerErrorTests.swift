import AMQP
import Base
import Testing

@Suite struct PeerErrorTests {
  @Test func aReplyTextBeginsWithTheCodesName() {
    let error = PeerError.noQueue(queue: "q" as Name, vhost: "/" as Name)
    #expect(error.replyText == "NOT_FOUND - no queue 'q' in vhost '/'")
    #expect(error.description == "404 NOT_FOUND: no queue 'q' in vhost '/'")
    #expect(error.code.rawValue == 404)
  }

  @Test func aReplyTextIsCutAtItsLimit() {
    let long = Name([UInt8](repeating: 0x61, count: 255))
    let error = PeerError.noQueue(queue: long, vhost: long)
    #expect(error.replyText.bytes.count == 255)
    #expect(error.text.utf8.count > 255)
    #expect(error.replyText.hasPrefix("NOT_FOUND - no queue 'aaaa"))
  }

  @Test func aReplyTextIsNotCutInACharacter() {
    for prefix in 0..<4 {
      let name = Name(String(repeating: "a", count: prefix) + String(repeating: "🪿", count: 62))
      let text = PeerError.noQueue(queue: name, vhost: name).replyText
      #expect((252...255).contains(text.bytes.count))
      #expect(Array(text.description.utf8) == text.bytes)
    }
  }

  /// The hard codes close the connection, the soft ones the channel, as clients expect it.
  @Test func hardAndSoftAreAsInTheReference() {
    let hard: [UInt16] = [320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541]
    let soft: [UInt16] = [311, 312, 313, 403, 404, 405, 406]
    for number in hard { #expect(ReplyCode(rawValue: number)?.isHard == true, "\(number)") }
    for number in soft { #expect(ReplyCode(rawValue: number)?.isHard == false, "\(number)") }
    let known = (UInt16.min...UInt16.max).filter { ReplyCode(rawValue: $0) != nil }
    #expect(known == ([200] + hard + soft).sorted())
  }

  @Test func codesHaveTheSpecificationsNames() {
    #expect(ReplyCode.preconditionFailed.name == "PRECONDITION_FAILED")
    #expect(ReplyCode.unexpectedFrame.rawValue == 505)
    #expect(ReplyCode.notImplemented.name == "NOT_IMPLEMENTED")
  }

  /// Texts that test suites of clients look for.
  @Test func textsThatClientsMatchStandAsTheyExpect() {
    #expect(
      PeerError.unknownDeliveryTag(tag: 7).replyText
        == "PRECONDITION_FAILED - unknown delivery tag 7")
    #expect(
      PeerError.noExchange(exchange: "x" as Name, vhost: "/" as Name).replyText
        == "NOT_FOUND - no exchange 'x' in vhost '/'")
    #expect(
      PeerError.consumerTagReused(tag: "t" as Name).replyText
        == "NOT_ALLOWED - attempt to reuse consumer tag 't'")
    #expect(
      PeerError.queueInExclusiveUse(queue: "q" as Name, vhost: "/" as Name).replyText
        == "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")
  }
}
