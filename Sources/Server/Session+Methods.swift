import AMQP
import Base
import Broker

/// Every method but those of class connection: what a client asks of its channels.
extension Session {
  func handle(_ method: Method, on number: UInt16) {
    let id = method.id
    if id.classID == ConnectionStart.id.classID {
      guard number == 0 else {
        if state != .closing { fail(.channelZeroOnly(method: id), id) }
        return
      }
      if state == .open, id.isFromServerOnly { return fail(.serverOnlyMethod(method: id), id) }
      return handleConnection(method)
    }
    guard state == .open else {
      if state != .closing { fail(.unexpectedMethod(method: id), id) }
      return
    }
    guard number != 0 else { return fail(.notOnChannelZero(method: id), id) }
    guard !id.isFromServerOnly else { return fail(.serverOnlyMethod(method: id), id) }
    if case .channelOpen = method { return openChannel(number) }
    guard number < channels.count, let channel = channels[Int(number)] else {
      return fail(.channelNotOpen, id)
    }
    handle(method, on: channel)
  }

  private func handle(_ method: Method, on channel: SessionChannel) {
    if channel.isClosing {
      switch method {
      case .channelCloseOk: forget(channel)
      // It crossed ours, which the client still has to answer.
      case .channelClose: send(.channelCloseOk(.init()), on: channel.number)
      default: break
      }
      return
    }
    guard case .none = channel.content else {
      return fail(Self.outOfPlace(Frame.method, channel.content), method.id)
    }
    // Each request sees what those before it have led to, of which the client hears before the answer, such
    // as the end of a consumer that it cancels; publishes look at nothing.
    if method.id != BasicPublish.id { broker.pumpForRequest() }
    // That may have ended the connection, and then there is nobody to perform the request for.
    guard state == .open else { return }
    performing {
      do throws(BrokerError) {
        try perform(method, channel)
      } catch {
        fail(PeerError(error), method.id, on: channel)
      }
    }
  }

  /// A mistake on a channel closes it, or the connection if the code is a hard one.
  func fail(_ error: PeerError, _ method: MethodID, on channel: SessionChannel) {
    guard !error.code.isHard else { return fail(error, method) }
    // What came before the end is delivered; that may end the connection.
    broker.pumpForRequest()
    guard state == .open else { return }
    log.tell(
      .channelClosed, of: peerName,
      "\(peerName) channel \(channel.number) closed by the broker: \(error)")
    abandon(channel)
    channel.isClosing = true
    send(
      .channelClose(
        .init(
          replyCode: error.code.rawValue, replyText: error.replyText, classId: method.classID,
          methodId: method.methodID)), on: channel.number)
  }

  private func openChannel(_ number: UInt16) {
    let former = number < channels.count ? channels[Int(number)] : nil
    guard former?.isClosing != false else { return fail(.secondChannelOpen, ChannelOpen.id) }
    guard former != nil || channelCount < channelMax, let peer else {
      return fail(.tooManyChannels(count: channelCount, limit: channelMax), ChannelOpen.id)
    }
    guard number <= channelMax else {
      return fail(.channelNumberTooHigh(channel: number, limit: channelMax), ChannelOpen.id)
    }
    do throws(BrokerError) {
      try broker.requireChannelRoom()
    } catch {
      return fail(PeerError(error), ChannelOpen.id)
    }
    while channels.count <= number { channels.append(nil) }
    countChannels()
    if former == nil { channelCount += 1 }
    channels[Int(number)] = SessionChannel(peer.openChannel(number))
    send(.channelOpenOk(.init()), on: number)
  }

  /// Gives up what the channel holds in the broker and what is arriving on it.
  private func abandon(_ channel: SessionChannel) {
    channel.core.close()
    channel.forgetBody()
    channel.content = .none
    count(channel)
  }

  private func forget(_ channel: SessionChannel) {
    channels[Int(channel.number)] = nil
    channelCount -= 1
  }

  /// Answers unless the client asked for no answer.
  private func answer(
    _ method: Method, _ channel: SessionChannel, noWait: Bool, _ committed: Committed
  ) {
    if !noWait { reply(method, on: channel.number, committed) }
  }

  private func perform(_ method: Method, _ channel: SessionChannel) throws(BrokerError) {
    switch method {
    case .channelClose:
      abandon(channel)
      forget(channel)
      reply(.channelCloseOk(.init()), on: channel.number, .now)
    case .channelFlow(let arguments):
      channel.core.setFlow(arguments.active)
      send(.channelFlowOk(.init(active: arguments.active)), on: channel.number)
    case .channelFlowOk, .channelCloseOk: break
    case .accessRequest: send(.accessRequestOk(.init(ticket: 1)), on: channel.number)
    case .exchangeDeclare, .exchangeDelete, .exchangeBind, .exchangeUnbind:
      try performExchange(method, channel)
    case .queueDeclare, .queueDelete, .queueBind, .queueUnbind, .queuePurge:
      try performQueue(method, channel)
    case .basicPublish(let arguments):
      guard !arguments.immediate else { return fail(.immediate, method.id, on: channel) }
      channel.content = .published(
        SessionChannel.Publication(
          names: Self.wireNames(arguments.exchange, arguments.routingKey),
          isMandatory: arguments.mandatory))
      count(channel)
    case .confirmSelect(let arguments):
      try channel.core.startConfirming()
      answer(.confirmSelectOk(.init()), channel, noWait: arguments.noWait, .now)
    case .txSelect:
      try channel.startTransactions()
      send(.txSelectOk(.init()), on: channel.number)
    case .txCommit:
      if let committed = try channel.core.commit() {
        reply(.txCommitOk(.init()), on: channel.number, committed)
      } else {
        reply(.txRollbackOk(.init()), on: channel.number, .now)
      }
    case .txRollback:
      try channel.core.rollback()
      send(.txRollbackOk(.init()), on: channel.number)
    default: try performBasic(method, channel)
    }
  }

  private static func wireNames(_ exchange: Name, _ key: Name) -> [UInt8] {
    [UInt8(exchange.bytes.count)] + exchange.bytes + [UInt8(key.bytes.count)] + key.bytes
  }

  private func performExchange(_ method: Method, _ channel: SessionChannel) throws(BrokerError) {
    let vhost = channel.core.vhost
    switch method {
    case .exchangeDeclare(let arguments):
      var wanted = ExchangeDeclaration(name: arguments.exchange, type: arguments.type)
      wanted.isPassive = arguments.passive
      wanted.isDurable = arguments.durable
      wanted.isAutoDelete = arguments.autoDelete
      wanted.isInternal = arguments.internal
      wanted.arguments = arguments.arguments
      let committed = try vhost.declareExchange(wanted, by: channel.core.peer)
      answer(.exchangeDeclareOk(.init()), channel, noWait: arguments.noWait, committed)
    case .exchangeDelete(let arguments):
      let committed = try vhost.deleteExchange(
        arguments.exchange, ifUnused: arguments.ifUnused, by: channel.core.peer)
      answer(.exchangeDeleteOk(.init()), channel, noWait: arguments.noWait, committed)
    case .exchangeBind(let arguments):
      let committed = try vhost.bindExchange(
        arguments.destination, to: arguments.source, key: arguments.routingKey,
        arguments: arguments.arguments, by: channel.core.peer)
      answer(.exchangeBindOk(.init()), channel, noWait: arguments.noWait, committed)
    case .exchangeUnbind(let arguments):
      let committed = try vhost.unbindExchange(
        arguments.destination, from: arguments.source, key: arguments.routingKey,
        arguments: arguments.arguments, by: channel.core.peer)
      answer(.exchangeUnbindOk(.init()), channel, noWait: arguments.noWait, committed)
    default: fail(.unexpectedMethod(method: method.id), method.id, on: channel)
    }
  }

  private func performQueue(_ method: Method, _ channel: SessionChannel) throws(BrokerError) {
    let core = channel.core
    let vhost = core.vhost
    switch method {
    case .queueDeclare(let arguments): try declareQueue(arguments, channel)
    case .queueDelete(let arguments):
      let (count, committed) = try vhost.deleteQueue(
        arguments.queue, ifUnused: arguments.ifUnused, ifEmpty: arguments.ifEmpty, on: core)
      answer(
        .queueDeleteOk(.init(messageCount: UInt32(clamping: count))), channel,
        noWait: arguments.noWait, committed)
    case .queueBind(let arguments):
      let committed = try vhost.bindQueue(
        arguments.queue, to: arguments.exchange, key: arguments.routingKey,
        arguments: arguments.arguments, on: core)
      answer(.queueBindOk(.init()), channel, noWait: arguments.noWait, committed)
    case .queueUnbind(let arguments):
      let committed = try vhost.unbindQueue(
        arguments.queue, from: arguments.exchange, key: arguments.routingKey,
        arguments: arguments.arguments, on: core)
      answer(.queueUnbindOk(.init()), channel, noWait: false, committed)
    case .queuePurge(let arguments):
      let (count, committed) = try vhost.purgeQueue(arguments.queue, on: core)
      answer(
        .queuePurgeOk(.init(messageCount: UInt32(clamping: count))), channel,
        noWait: arguments.noWait, committed)
    default: fail(.unexpectedMethod(method: method.id), method.id, on: channel)
    }
  }

  private func declareQueue(
    _ arguments: QueueDeclare, _ channel: SessionChannel
  ) throws(BrokerError) {
    var wanted = QueueDeclaration(name: arguments.queue)
    wanted.isPassive = arguments.passive
    wanted.isDurable = arguments.durable
    wanted.isExclusive = arguments.exclusive
    wanted.isAutoDelete = arguments.autoDelete
    wanted.arguments = arguments.arguments
    let vhost = channel.core.vhost
    let (status, committed) = try vhost.declareQueue(wanted, on: channel.core)
    if !wanted.isPassive {
      toldArguments.declared(status.name, in: vhost.name, with: wanted.arguments)
    }
    answer(
      .queueDeclareOk(
        .init(
          queue: status.name, messageCount: UInt32(clamping: status.readyCount),
          consumerCount: UInt32(clamping: status.consumerCount))), channel,
      noWait: arguments.noWait, committed)
  }
}
