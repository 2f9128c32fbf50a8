import AMQP
import Base
import Testbed
import Testing

@testable import Client
@testable import Server

/// The loop knows conversations and transports, whatever they are.
@Suite struct ConversationTests {
  private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  /// What a client has heard in records.
  private func decoded(_ client: TestClient) -> String {
    var bytes = client.takeBytes()
    let text = String(decoding: RecordTransport.decode(&bytes), as: UTF8.self)
    #expect(bytes == [])
    return text
  }

  private func lines(_ count: Int) -> String {
    (0..<count).map { "line \($0)\n" }.joined()
  }

  // MARK: Another protocol

  @Test func anotherProtocolNeedsNothingOfTheLoop() throws {
    let loop = try TestLoop()
    let echo = EchoProtocol()
    let client = loop.connect(speaking: echo)
    client.send(bytes("one\ntw"))
    loop.turn()
    #expect(client.takeBytes() == bytes("one\n"))
    client.send(bytes("o\nthree\n"))
    loop.turn()
    #expect(client.takeBytes() == bytes("two\nthree\n"))
    client.send(bytes("quit\nnever heard\n"))
    loop.turn()
    #expect(client.takeBytes() == bytes("quit\n"))
    #expect(client.isStreamEnded && !client.isClosed)
    client.endStream()
    #expect(client.isClosed)
    #expect(loop.loop.connectionCount == 0)
  }

  @Test func whatWaitsForTheLogGoesOnWithIt() throws {
    let loop = try TestLoop()
    let echo = EchoProtocol()
    let client = loop.connect(speaking: echo)
    client.send(bytes("wait\nlater\n"))
    loop.turn()
    loop.loop.journalMoved()
    loop.turn()
    #expect(client.takeBytes() == bytes("wait\n"))
    #expect(!client.connection.wantsReads)
    let conversation = try #require(echo.last.conversation)
    conversation.mayGoOn = true
    loop.loop.journalMoved()
    loop.turn()
    #expect(client.takeBytes() == bytes("later\n"))
    #expect(client.connection.wantsReads)
  }

  @Test func bothProtocolsAreServedBesideEachOther() throws {
    let loop = try TestLoop()
    let echo = loop.connect(speaking: EchoProtocol())
    let client = loop.connect()
    try client.open()
    echo.send(bytes("hello\n"))
    #expect(try client.call(.basicQos(BasicQos(prefetchSize: 0, prefetchCount: 1))).count == 1)
    #expect(echo.takeBytes() == bytes("hello\n"))
  }

  @Test func whoIsNotLetInIsDroppedInTime() throws {
    let loop = try TestLoop()
    let echo = EchoProtocol()
    let silent = loop.connect(speaking: echo)
    let heard = loop.connect(speaking: echo)
    heard.send(bytes("here\n"))
    loop.turn(after: loop.loop.settings.handshakeMilliseconds + 500)
    loop.turn(after: 500)
    #expect(silent.isClosed && !heard.isClosed)
  }

  @Test func aBrokerThatStopsEndsWhateverIsSpoken() throws {
    let loop = try TestLoop()
    let echo = EchoProtocol()
    let client = loop.connect(speaking: echo)
    client.send(bytes("here\n"))
    loop.loop.stop()
    loop.turn()
    #expect(client.takeBytes() == bytes("here\n"))
    #expect(client.isStreamEnded)
    client.endStream()
    #expect(client.isClosed && loop.loop.isOver)
    #expect(echo.last.conversation?.isEnded != false)
  }

  // MARK: Another transport

  @Test func aTransportMayMakeOtherBytesOfThem() throws {
    let loop = try TestLoop()
    let client = loop.connect(over: RecordTransport.init(over:))
    let hello = RecordTransport.encode(Frame.protocolHeader)
    client.send(Array(hello.prefix(5)))
    loop.turn()
    #expect(client.takeBytes() == [])
    client.send(Array(hello.dropFirst(5)))
    loop.turn()
    var answer = client.takeBytes()
    let events = try ClientEvent.parse(RecordTransport.decode(&answer))
    guard case .method(.connectionStart, 0)? = events.first else { return #expect(events == []) }
    client.send(
      RecordTransport.encode(
        Wire.method(.connectionStartOk(Wire.startOK), on: 0)
          + Wire.method(.connectionTuneOk(Wire.tuneOK()), on: 0)
          + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)))
    loop.settle()
    #expect(client.session.state == .open)
  }

  /// All that was said leaves, though the transport keeps what of a record had no room; only then the
  /// stream ends.
  @Test(arguments: [1, 3, 700])
  func whatATransportHoldsIsSentBeforeTheEnd(roomBytes: Int) throws {
    let loop = try TestLoop()
    let client = loop.connect(speaking: EchoProtocol(), over: RecordTransport.init(over:))
    client.roomBytes = roomBytes
    let text = lines(150) + "quit\n"
    client.send(RecordTransport.encode(bytes(text)))
    var heard: [UInt8] = []
    var turns = 0
    while !client.isStreamEnded, turns < 10_000 {
      loop.turn()
      turns += 1
      heard += client.takeBytes()
    }
    #expect(String(decoding: RecordTransport.decode(&heard), as: UTF8.self) == text)
    #expect(heard == [])
    #expect(turns >= text.utf8.count / roomBytes / 2)
  }

  /// No event tells of what has been read and decoded: the loop comes back to it without waiting.
  @Test func whatATransportHasReadIsTaken() throws {
    let loop = try TestLoop()
    let client = loop.connect(speaking: EchoProtocol(), over: RecordTransport.init(over:))
    let text = lines(30_000)
    #expect(text.utf8.count > 4 * Loop.readBytes)
    client.send(RecordTransport.encode(bytes(text)))
    #expect(loop.loop.waitMilliseconds == 0)
    var turns = 1
    while loop.turn(), turns < 100 { turns += 1 }
    #expect(decoded(client) == text)
    #expect(turns > 4 && turns < 20)
  }

  /// The same for a conversation that had paused meanwhile, and was not read.
  @Test func whatATransportHasReadWaitsWithItsConversation() throws {
    let loop = try TestLoop()
    let echo = EchoProtocol()
    let client = loop.connect(speaking: echo, over: RecordTransport.init(over:))
    let text = "wait\n" + lines(30_000)
    client.send(RecordTransport.encode(bytes(text)))
    while loop.turn() {}
    #expect(decoded(client) == "wait\n")
    let conversation = try #require(echo.last.conversation)
    conversation.mayGoOn = true
    loop.loop.journalMoved()
    while loop.turn() {}
    #expect("wait\n" + decoded(client) == text)
  }
}
