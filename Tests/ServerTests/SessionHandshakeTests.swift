import AMQP
import Base
import Testing

@testable import Client
@testable import Server

/// How a conversation begins.
@Suite struct SessionHandshakeTests {
  private let loop: TestLoop
  private let client: TestClient

  init() throws {
    var settings = SessionSettings()
    settings.user = "ada"
    settings.password = Array("secret".utf8)
    loop = try TestLoop(settings: settings)
    client = loop.connect()
  }

  private func startOK(
    _ mechanism: Name, _ response: [UInt8], capabilities: [Name] = ["authentication_failure_close"]
  ) -> Method {
    let table = FieldTable(capabilities.map { .init(name: $0, value: .bool(true)) })
    return .connectionStartOk(
      ConnectionStartOk(
        clientProperties: ["capabilities": .table(table), "connection_name": .string("test")],
        mechanism: mechanism, response: response, locale: "en_US"))
  }

  private func plain(_ user: String, _ password: String, identity: String = "") -> [UInt8] {
    Array("\(identity)\0\(user)\0\(password)".utf8)
  }

  /// As far as tune.
  private func logIn() throws {
    _ = try client.exchange(Frame.protocolHeader)
    let events = try client.call(startOK("PLAIN", plain("ada", "secret")), on: 0)
    #expect(events.count == 1)
  }

  private func expectClose(
    _ event: ClientEvent?, _ text: String, _ arguments: [String] = [], by cause: MethodID = .none,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let row = ReplyTable.texts[text]!
    let close = ConnectionClose(
      replyCode: row.code.number, replyText: row.filled(arguments), classId: cause.classID,
      methodId: cause.methodID)
    #expect(
      event == .method(.connectionClose(close), channel: 0), sourceLocation: sourceLocation)
    #expect(client.session.state == .closing, sourceLocation: sourceLocation)
  }

  // MARK: The way through

  @Test func aConnectionIsOpenedStepByStep() throws {
    let start = try client.exchange(Frame.protocolHeader)
    guard case .method(.connectionStart(let said), 0)? = start.first else {
      return #expect(start == [])
    }
    #expect(said.versionMajor == 0 && said.versionMinor == 9)
    #expect(said.mechanisms == Array("PLAIN AMQPLAIN".utf8))
    #expect(said.locales == Array("en_US".utf8))
    #expect(said.serverProperties["product"] == .string("RabbitMQ"))
    #expect(said.serverProperties["version"] == .string("3.13.7"))
    for name in ["platform", "information"] as [Name] {
      let text = said.serverProperties[name]?.text ?? ""
      #expect(text.hasPrefix("Martlet \(Version.text)"), "\(text)")
    }
    guard case .table(let capabilities) = said.serverProperties["capabilities"] else {
      return #expect(said.serverProperties == [:])
    }
    for name in [
      "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
      "connection.blocked", "consumer_priorities", "authentication_failure_close",
      "per_consumer_qos", "direct_reply_to",
    ] as [Name] { #expect(capabilities[name] == .bool(true), "\(name)") }
    let tune = try client.call(startOK("PLAIN", plain("ada", "secret")), on: 0)
    let wanted = ConnectionTune(channelMax: 2047, frameMax: 131_072, heartbeat: 60)
    #expect(tune == [.method(.connectionTune(wanted), channel: 0)])
    let tuneOK = Wire.tuneOK(channelMax: 10, frameMax: 4096, heartbeat: 7)
    #expect(try client.call(.connectionTuneOk(tuneOK), on: 0) == [])
    let open = try client.call(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)
    #expect(open == [.method(.connectionOpenOk(ConnectionOpenOk()), channel: 0)])
    #expect(client.session.state == .open)
    #expect(client.session.user == "ada")
    #expect(client.session.frameMax == 4096)
    #expect(client.session.channelMax == 10)
    #expect(client.session.heartbeat == 7)
  }

  @Test func noLimitsMeanTheBrokersOwn() throws {
    try logIn()
    _ = try client.call(.connectionTuneOk(Wire.tuneOK()), on: 0)
    #expect(client.session.frameMax == 131_072)
    #expect(client.session.channelMax == 2047)
    #expect(client.session.heartbeat == 0)
  }

  @Test func theOlderVersionIsTheSame() throws {
    let events = try client.exchange(Array("AMQP".utf8) + [1, 1, 0, 9])
    guard case .method(.connectionStart, 0)? = events.first else { return #expect(events == []) }
  }

  @Test(arguments: [
    Array("GET / HTTP/1.1\r\n\r\n".utf8), Array("AMQP".utf8) + [3, 1, 0, 0],
    Array("AMQP".utf8) + [0, 0, 9, 2], [0x16, 0x03, 1, 0, 200, 1, 0, 0, 196],
  ])
  func whoeverSpeaksSomethingElseIsToldTheVersion(bytes: [UInt8]) {
    client.send(bytes)
    #expect(client.takeBytes() == Frame.protocolHeader)
    #expect(client.session.state == .closed)
  }

  // MARK: Logging in

  @Test func plainCarriesUserAndPassword() throws {
    for identity in ["", "somebody"] {
      let client = loop.connect()
      _ = try client.exchange(Frame.protocolHeader)
      let response = plain("ada", "secret", identity: identity)
      let events = try client.call(startOK("PLAIN", response), on: 0)
      guard case .method(.connectionTune, 0)? = events.first else { return #expect(events == []) }
    }
  }

  @Test func amqplainCarriesUserAndPassword() throws {
    _ = try client.exchange(Frame.protocolHeader)
    var table = ByteBuffer()
    table.append(["LOGIN": .string("ada"), "PASSWORD": .string("secret")] as FieldTable)
    let response = Array(table.readable.dropFirst(4))
    let events = try client.call(startOK("AMQPLAIN", response), on: 0)
    guard case .method(.connectionTune, 0)? = events.first else { return #expect(events == []) }
  }

  @Test(arguments: [
    ("ada", "wrong"), ("ada", ""), ("ada", "secretsecret"), ("ada", "secre"), ("guest", "guest"),
    ("", "secret"), ("Ada", "secret"),
  ])
  func whoMayNotIsRefused(user: String, password: String) throws {
    _ = try client.exchange(Frame.protocolHeader)
    let events = try client.call(startOK("PLAIN", plain(user, password)), on: 0)
    expectClose(events.first, "login-refused", ["PLAIN"])
    #expect(events.count == 1)
  }

  @Test func whoWouldNotUnderstandIsRefusedWithoutAWord() throws {
    _ = try client.exchange(Frame.protocolHeader)
    let wrong = startOK("PLAIN", plain("ada", "wrong"), capabilities: [])
    #expect(try client.call(wrong, on: 0) == [])
    #expect(client.session.state == .closed)
  }

  @Test func otherMechanismsAreRefused() throws {
    _ = try client.exchange(Frame.protocolHeader)
    let events = try client.call(startOK("EXTERNAL", []), on: 0)
    expectClose(events.first, "unknown-mechanism", ["EXTERNAL"], by: ConnectionStartOk.id)
  }

  @Test(arguments: [
    ("PLAIN", "ada"), ("PLAIN", "\0ada"), ("AMQPLAIN", "\u{1}\u{2}\u{3}"), ("AMQPLAIN", ""),
    ("PLAIN", "\0" + String(repeating: "a", count: 256) + "\0"),
  ])
  func aResponseWithoutUserAndPasswordIsAMistake(mechanism: String, response: String) throws {
    _ = try client.exchange(Frame.protocolHeader)
    let events = try client.call(startOK(Name(mechanism), Array(response.utf8)), on: 0)
    expectClose(events.first, "malformed-response", [mechanism], by: ConnectionStartOk.id)
  }

  @Test func guestComesFromTheSameMachineOnly() throws {
    for (isLoopback, mayGuest) in [(true, true), (false, false)] {
      let loop = try TestLoop()
      let client = loop.connect(isLoopback: isLoopback)
      client.send(
        Frame.protocolHeader
          + Wire.method(startOK("PLAIN", plain("guest", "guest")), on: 0))
      #expect((client.session.state == .awaitingTuneOK) == mayGuest)
    }
  }

  /// RabbitMQ does not look at it either when the user is one of its own.
  @Test(arguments: ["secret", "another", ""])
  func aNewSecretIsTakenAndChangesNothing(secret: String) throws {
    try logIn()
    _ = try client.exchange(
      Wire.method(.connectionTuneOk(Wire.tuneOK()), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0))
    let update = ConnectionUpdateSecret(newSecret: Array(secret.utf8), reason: "")
    let events = try client.call(.connectionUpdateSecret(update), on: 0)
    #expect(events == [.method(.connectionUpdateSecretOk(ConnectionUpdateSecretOk()), channel: 0)])
    #expect(client.session.state == .open)
  }

  // MARK: Negotiation

  @Test(
    arguments: [
      (Wire.tuneOK(frameMax: 4095), "frame-max-too-low", ["4095", "4096"]),
      (Wire.tuneOK(frameMax: 131_073), "frame-max-too-high", ["131073", "131072"]),
      (Wire.tuneOK(channelMax: 2048), "channel-max-too-high", ["2048", "2047"]),
    ] as [(ConnectionTuneOk, String, [String])])
  func limitsOutsideTheBrokersAreRefused(
    tuneOK: ConnectionTuneOk, text: String, arguments: [String]
  ) throws {
    try logIn()
    let events = try client.call(.connectionTuneOk(tuneOK), on: 0)
    expectClose(events.first, text, arguments, by: ConnectionTuneOk.id)
  }

  @Test func aVirtualHostMustBeThere() throws {
    try logIn()
    _ = try client.call(.connectionTuneOk(Wire.tuneOK()), on: 0)
    let events = try client.call(.connectionOpen(ConnectionOpen(virtualHost: "none")), on: 0)
    expectClose(events.first, "vhost-not-found", ["none"], by: ConnectionOpen.id)
  }

  @Test func tooManyConnectionsAreRefusedWhenTheyOpen() throws {
    client.session.isOverLimit = true
    try logIn()
    _ = try client.call(.connectionTuneOk(Wire.tuneOK()), on: 0)
    let events = try client.call(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0)
    expectClose(
      events.first, "connection-limit", ["\(loop.settings.connectionsMax)"], by: ConnectionOpen.id)
  }

  @Test func channelsEndAtTheNegotiatedNumber() throws {
    try logIn()
    _ = try client.exchange(
      Wire.method(.connectionTuneOk(Wire.tuneOK(channelMax: 3)), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0))
    for channel in 1...3 as ClosedRange<UInt16> {
      let events = try client.call(.channelOpen(ChannelOpen()), on: channel)
      #expect(events == [.method(.channelOpenOk(ChannelOpenOk()), channel: channel)])
    }
    let events = try client.call(.channelOpen(ChannelOpen()), on: 4)
    expectClose(events.first, "too-many-channels", ["3", "3"], by: ChannelOpen.id)
  }

  @Test func aChannelNumberAboveTheNegotiatedOneIsNamed() throws {
    try logIn()
    _ = try client.exchange(
      Wire.method(.connectionTuneOk(Wire.tuneOK(channelMax: 3)), on: 0)
        + Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0))
    let events = try client.call(.channelOpen(ChannelOpen()), on: 5)
    expectClose(events.first, "channel-number-too-high", ["5", "3"], by: ChannelOpen.id)
  }

  @Test func beforeTuneNobodySpeaksOfWhatWasNegotiated() throws {
    let limit = loop.settings.frameMaxBeforeTune
    _ = try client.exchange(Frame.protocolHeader)
    let events = try client.exchange([Frame.method, 0, 0, 0x7F, 0, 0, 0])
    expectClose(events.first, "frame-before-tune", ["\(0x7F00_0000 + 8)", "\(limit)"])
  }

  // MARK: Out of order

  @Test(arguments: [
    Method.connectionOpen(ConnectionOpen(virtualHost: "/")),
    .connectionTuneOk(Wire.tuneOK()), .connectionCloseOk(ConnectionCloseOk()),
    .channelOpen(ChannelOpen()), .basicPublish(BasicPublish()),
  ])
  func nothingElseComesBeforeTheLogin(method: Method) throws {
    _ = try client.exchange(Frame.protocolHeader)
    let events = try client.call(method, on: method.id.classID == 10 ? 0 : 1)
    expectClose(events.first, "unexpected-method", ["\(method.id)"], by: method.id)
  }

  @Test func contentBeforeTheConnectionIsOpenIsAMistake() throws {
    for (frame, type) in [
      (Wire.header(3), "content header"), (Wire.frame(Frame.body, [1]), "content body"),
    ] {
      let client = loop.connect()
      _ = try client.exchange(Frame.protocolHeader)
      let row = ReplyTable.texts["unexpected-content"]!
      let close = ConnectionClose(
        replyCode: row.code.number, replyText: row.filled([type]), classId: 0, methodId: 0)
      #expect(try client.exchange(frame) == [.method(.connectionClose(close), channel: 0)])
    }
  }

  @Test func aClientMayLeaveAtAnyTime() throws {
    let close = Method.connectionClose(
      ConnectionClose(replyCode: 200, replyText: "bye", classId: 0, methodId: 0))
    let steps: [[UInt8]] = [
      Wire.method(startOK("PLAIN", plain("ada", "secret")), on: 0),
      Wire.method(.connectionTuneOk(Wire.tuneOK()), on: 0),
      Wire.method(.connectionOpen(ConnectionOpen(virtualHost: "/")), on: 0),
    ]
    for count in 0...steps.count {
      let client = loop.connect()
      _ = try client.exchange(Frame.protocolHeader + steps.prefix(count).flatMap(\.self))
      let events = try client.call(close, on: 0)
      #expect(events == [.method(.connectionCloseOk(ConnectionCloseOk()), channel: 0)])
      #expect(client.session.state == .closed)
    }
  }
}
