import AMQP
import Base
import Broker

/// The methods of class connection: how a conversation begins and ends.
extension Session {
  static let mechanisms = "PLAIN AMQPLAIN"

  /// The client sent its protocol header.
  func start() {
    state = .awaitingStartOK
    let capabilities: FieldTable = [
      "publisher_confirms": .bool(true), "exchange_exchange_bindings": .bool(true),
      "basic.nack": .bool(true), "consumer_cancel_notify": .bool(true),
      "connection.blocked": .bool(true), "consumer_priorities": .bool(true),
      "authentication_failure_close": .bool(true), "per_consumer_qos": .bool(true),
      "direct_reply_to": .bool(true), "tx_rollback_unroutable": .bool(true),
    ]
    // What clients decide by stands in `product` and `version`; what this is, in the others.
    let properties: FieldTable = [
      "capabilities": .table(capabilities), "product": .string(settings.product),
      "version": .string(settings.productVersion),
      "platform": .string("Martlet \(Version.text) (Swift)"),
      "cluster_name": .string("martlet"), "copyright": .string("The developers of Martlet"),
      "information": .string("Martlet \(Version.text), a message broker with one log behind"),
    ]
    send(
      .connectionStart(
        .init(
          versionMajor: 0, versionMinor: 9, serverProperties: properties,
          mechanisms: Array(Self.mechanisms.utf8), locales: Array("en_US".utf8))), on: 0)
  }

  /// A method of the handshake, or of class connection later on.
  func handleConnection(_ method: Method) {
    switch (state, method) {
    case (.awaitingStartOK, .connectionStartOk(let arguments)): authenticate(arguments)
    case (.awaitingTuneOK, .connectionTuneOk(let arguments)): tune(arguments)
    case (.awaitingOpen, .connectionOpen(let arguments)): open(arguments)
    case (.open, .connectionUpdateSecret):
      // The secret is for those whose login expires, which no user's of the broker itself does.
      send(.connectionUpdateSecretOk(.init()), on: 0)
    case (.open, .connectionBlocked), (.open, .connectionUnblocked): break
    case (_, .connectionClose(let arguments)):
      log.debug("\(peerName) closes: \(arguments.replyCode) \(arguments.replyText)")
      isClosedByClient = true
      close()
    case (.closing, .connectionCloseOk): state = .closed
    case (.closing, _): break
    default: fail(.unexpectedMethod(method: method.id), method.id)
    }
  }

  // MARK: Authentication

  private func authenticate(_ arguments: ConnectionStartOk) {
    client = ClientProperties(arguments.clientProperties, isShown: broker.events.isWanted)
    let credentials: (user: Name, password: [UInt8])?
    switch arguments.mechanism {
    case "PLAIN": credentials = Self.plain(arguments.response)
    case "AMQPLAIN": credentials = Self.amqPlain(arguments.response)
    default: return fail(.unknownMechanism(mechanism: arguments.mechanism), ConnectionStartOk.id)
    }
    guard let credentials else {
      return fail(.malformedResponse(mechanism: arguments.mechanism), ConnectionStartOk.id)
    }
    guard isAllowed(credentials.user, credentials.password) else {
      return refuse(credentials.user, arguments.mechanism)
    }
    user = credentials.user
    broker.events.loggedIn(user, mechanism: arguments.mechanism, connection: peerName, error: nil)
    mechanism = arguments.mechanism
    state = .awaitingTuneOK
    send(
      .connectionTune(
        .init(
          channelMax: UInt16(settings.channelMax), frameMax: UInt32(settings.frameMax),
          heartbeat: UInt16(settings.heartbeat))), on: 0)
  }

  private func isAllowed(_ user: Name, _ password: [UInt8]) -> Bool {
    let isKnown = user == settings.user
    let isRight = Self.isEqualInConstantTime(password, settings.password)
    let mayComeFromHere = user != "guest" || isLoopback || !settings.guestLoopbackOnly
    return isKnown && isRight && mayComeFromHere
  }

  private static func isEqualInConstantTime(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    var difference = left.count ^ right.count
    for index in 0..<left.count {
      difference |= Int(left[index] ^ (right.isEmpty ? 0 : right[index % right.count]))
    }
    return difference == 0
  }

  /// Clients that know what it means are told; others see the connection end.
  private func refuse(_ user: Name, _ mechanism: Name) {
    let why = user == "guest" && !isLoopback && settings.guestLoopbackOnly ? " from here" : ""
    log.tell(
      .loginRefused, of: peerName, "\(peerName) was refused: user '\(user)' may not log in\(why)")
    let error = PeerError.loginRefused(mechanism: mechanism)
    broker.events.loggedIn(
      user, mechanism: mechanism, connection: peerName, error: error.replyText.description)
    if client.wantsAuthenticationFailureClose {
      send(
        .connectionClose(
          .init(replyCode: error.code.rawValue, replyText: error.replyText, classId: 0, methodId: 0)
        ), on: 0)
      state = .closing
    } else {
      state = .closed
    }
  }

  /// An identity to act for, which is ignored, user and password, with zero bytes between.
  private static func plain(_ response: [UInt8]) -> (Name, [UInt8])? {
    let parts = response.split(separator: 0, maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 3, parts[1].count <= Name.sizeMax else { return nil }
    return (Name(Array(parts[1])), Array(parts[2]))
  }

  /// A table without its length: LOGIN and PASSWORD.
  private static func amqPlain(_ response: [UInt8]) -> (Name, [UInt8])? {
    do throws(MalformedInput) {
      var reader = ByteReader(response.span.bytes)
      let table = try reader.bareFieldTable()
      guard case .string(let user) = table["LOGIN"], user.count <= Name.sizeMax,
        case .string(let password) = table["PASSWORD"]
      else { return nil }
      return (Name(user), password)
    } catch {
      return nil
    }
  }

  // MARK: Negotiation

  private func tune(_ arguments: ConnectionTuneOk) {
    let wanted = Int(arguments.frameMax)
    if wanted != 0, wanted < Frame.sizeMin {
      return fail(.frameMaxTooLow(value: wanted, limit: Frame.sizeMin), ConnectionTuneOk.id)
    }
    if wanted > settings.frameMax {
      return fail(.frameMaxTooHigh(value: wanted, limit: settings.frameMax), ConnectionTuneOk.id)
    }
    if arguments.channelMax > settings.channelMax {
      return fail(
        .channelMaxTooHigh(value: arguments.channelMax, limit: settings.channelMax),
        ConnectionTuneOk.id)
    }
    frameMax = wanted == 0 ? settings.frameMax : wanted
    channelMax =
      arguments.channelMax == 0 ? settings.channelMax : Int(arguments.channelMax)
    heartbeat = Int(arguments.heartbeat)
    state = .awaitingOpen
  }

  private func open(_ arguments: ConnectionOpen) {
    guard let vhost = broker.vhost(arguments.virtualHost) else {
      return fail(.vhostNotFound(vhost: arguments.virtualHost), ConnectionOpen.id)
    }
    guard !isOverLimit else {
      return fail(.connectionLimit(limit: settings.connectionsMax), ConnectionOpen.id)
    }
    let peer = Peer(name: peerName, user: user, vhost: vhost, outlet: self)
    peer.rollsBackUnroutable = client.wantsRollback
    self.peer = peer
    state = .open
    host?.didOpen()
    if broker.events.isWanted { broker.events.opened(peer, details) }
    client.shown = FieldTable()
    let told = [client.name, client.product].filter { !$0.isEmpty }.joined(separator: ", ")
    log.tell(
      .opened, of: peerName,
      "\(peerName) opened by '\(user)'" + (told.isEmpty ? "" : " (\(told))"))
    send(.connectionOpenOk(.init()), on: 0)
  }

  /// What listeners to events are told of the connection besides its names.
  private var details: FieldTable {
    var details: FieldTable = [
      "protocol": .string("{0,9,1}"), "auth_mechanism": .string(mechanism.bytes),
      "ssl": .bool(false), "channel_max": .int64(Int64(channelMax)),
      "frame_max": .int64(Int64(frameMax)), "timeout": .int64(Int64(heartbeat)),
      "client_properties": .table(client.shown), "connected_at": .int64(broker.now),
    ]
    if !client.name.isEmpty {
      details.entries.append(.init(name: "user_provided_name", value: .string(client.name)))
    }
    for (prefix, end) in zip(["peer_", ""], peerName.split(separator: " -> ")) {
      guard let colon = end.lastIndex(of: ":"), let port = Int64(end[end.index(after: colon)...])
      else { continue }
      details.entries += [
        .init(
          name: Name("\(prefix)host"),
          value: .string(end[..<colon].filter { $0 != "[" && $0 != "]" })),
        .init(name: Name("\(prefix)port"), value: .int64(port)),
      ]
    }
    return details
  }
}
