import AMQP
import Base
import Journal

/// What requests mean for the queues.
extension Oracle {
  /// The broker has taken a request; `refused` says that it closed the channel or the connection for
  /// it. Replies may follow.
  func took(
    _ command: Command, from connection: ConnectionModel, refused: String?
  ) throws(BrokenPromise) {
    finishCommits()
    if isRotten { try explainCancelled(before: command) }
    guard !connection.isClosed else { return }
    if case .connect = command.action { return }
    if case .openChannel = command.action {
      // A client that answered twice may open it twice; what it has goes with the connection.
      if let open = connection.channels[command.channel], !open.isClosing {
        return try promise(refused != nil, "what is wrong is refused", "a second channel.open")
      }
      if !connection.channels.isEmpty { coverage.note(.furtherChannels) }
      connection.channels[command.channel] = ChannelModel(
        number: command.channel, connection: connection)
      connection.channels[command.channel]?.expected = [ExpectedReply(name: "channel.open-ok")]
      return
    }
    guard let channel = connection.channels[command.channel] else { return }
    if channel.isClosing {
      switch command.action {
      case .closeChannelOk: connection.channels[command.channel] = nil
      case .closeChannel: channel.expected.append(ExpectedReply(name: "channel.close-ok"))
      default: break
      }
      return
    }
    if let refused {
      // A declaration that the log did not get is still made in memory.
      if refused.hasPrefix("INTERNAL_ERROR") { applyDeclaration(command, channel) }
      return try checkRefusal(command, channel, refused)
    }
    if let obstacle = obstacle(command.action, connection) {
      throw BrokenPromise("what is wrong is refused", "\(command.action), \(obstacle)")
    }
    try apply(command, channel, connection)
    try explainCancelled(before: nil)
  }

  /// The broker must refuse it.
  func isMistaken(_ command: Command, from connection: ConnectionModel) -> Bool {
    guard let channel = connection.channels[command.channel], !channel.isClosing else {
      return false
    }
    switch command.action {
    case .mistake, .openChannel: return true
    case .acknowledge(let tag, let isMultiple), .reject(let tag, let isMultiple, _):
      return !(isMultiple && tag == 0) && !channel.mayAnswer(tag)
    default: return obstacle(command.action, connection) != nil
    }
  }

  /// Why a request must be refused.
  private enum Obstacle: String {
    case missing = "NOT_FOUND"
    case locked = "RESOURCE_LOCKED"
  }

  private func obstacle(
    _ action: Command.Action, _ connection: ConnectionModel
  ) -> Obstacle? {
    switch action {
    case .consume(let name, _, _, _), .purge(let name), .inspect(let name), .get(let name, _):
      queue(name).existence == false ? .missing : lock(name, connection)
    case .declare(let name), .delete(let name): lock(name, connection)
    case .publish(let message):
      message.exchange.isEmpty || exchanges.contains(message.exchange) ? nil : .missing
    case .bind(let binding):
      if !exchanges.contains(binding.exchange) {
        .missing
      } else if binding.isToExchange {
        exchanges.contains(binding.destination) ? nil : .missing
      } else {
        queue(binding.destination).exists ? lock(binding.destination, connection) : .missing
      }
    case .unbind(let binding):
      binding.isToExchange ? nil : lock(binding.destination, connection)
    default: nil
    }
  }

  private func lock(_ name: String, _ connection: ConnectionModel) -> Obstacle? {
    guard let owner = queue(name).owner, owner !== connection else { return nil }
    return .locked
  }

  private func checkRefusal(
    _ command: Command, _ channel: ChannelModel, _ text: String
  ) throws(BrokenPromise) {
    coverage.note(.channelErrors)
    let obstacle = obstacle(command.action, channel.connection)
    if obstacle == .locked { coverage.note(.lockedQueues) }
    var isRight = obstacle.map { text.hasPrefix($0.rawValue) } ?? false
    switch command.action {
    case .mistake: isRight = true
    case .acknowledge(let tag, let isMultiple), .reject(let tag, let isMultiple, _):
      // A client that acknowledged all may hear of what was underway.
      isRight = !channel.mayAnswer(tag) && !(isMultiple && tag == 0)
    case .inspect(let name):
      guard text.hasPrefix("NOT_FOUND") else { break }
      if queue(name).existence == nil { return try queue(name).observed(exists: false) }
      try promise(isRight, "a durable queue is not lost", name)
    case .get:
      guard Self.isForDamage(text) else { break }
      coverage.note(.unreadableMessages)
      isRight = true
    default: break
    }
    // Simulated brokers have little memory, and simulated transactions large messages.
    let isForRoom = text.contains("the transactions of all clients take")
    if isForRoom, channel.transaction != nil { isRight = true }
    try promise(
      isRight || journal?.failure != nil, "what is right is not refused",
      "\(command.action): \(text)")
  }

  /// What a client is told that cannot have the next message of a queue.
  static func isForDamage(_ text: String) -> Bool { text.contains("could not be read back") }

  private func apply(
    _ command: Command, _ channel: ChannelModel, _ connection: ConnectionModel
  ) throws(BrokenPromise) {
    switch command.action {
    case .connect, .openChannel, .closeChannelOk: break
    case .mistake: throw BrokenPromise("what is wrong is refused", "\(command.action)")
    case .closeChannel:
      giveUp(channel)
      channel.isClosing = false
      channel.expected.append(ExpectedReply(name: "channel.close-ok"))
    case .confirmSelect:
      channel.isConfirming = true
      channel.expected.append(ExpectedReply(name: "confirm.select-ok"))
    case .selectTransactions:
      channel.transaction = TransactionModel()
      channel.expected.append(ExpectedReply(name: "tx.select-ok"))
    case .commit: beginCommit(channel)
    case .rollback:
      coverage.note(.rollbacks)
      channel.transaction = TransactionModel()
      channel.expected.append(ExpectedReply(name: "tx.rollback-ok"))
    case .prefetch(let count, let isShared):
      if isShared { channel.sharedPrefetch = count } else { channel.prefetch = count }
      channel.expected.append(ExpectedReply(name: "basic.qos-ok"))
    case .publish(let message): publish(message, channel)
    case .consume(let name, let tag, let isAutomatic, let priority):
      let consumer = ConsumerModel(
        tag: tag, queue: queue(name), isAutomatic: isAutomatic, priority: priority,
        channel: channel)
      consumer.queue.add(consumer)
      channel.consumers[tag] = consumer
      channel.expected.append(ExpectedReply(name: "basic.consume-ok"))
    case .cancel(let tag):
      if let consumer = channel.consumers.removeValue(forKey: tag) {
        consumer.queue.remove(consumer)
        consumerLeft(consumer.queue)
      }
      channel.expected.append(ExpectedReply(name: "basic.cancel-ok"))
    case .get(let name, let isAutomatic):
      channel.expected.append(
        ExpectedReply(
          name: isAutomatic ? "basic.get automatic" : "basic.get", queue: queue(name)))
    case .acknowledge(let tag, let isMultiple):
      coverage.note(.acknowledgements)
      guard channel.transaction == nil else { return try answer(tag, isMultiple, channel) }
      remove(try settled(tag, isMultiple, channel))
    case .reject(let tag, let isMultiple, let requeues):
      if channel.transaction != nil, !requeues { return try answer(tag, isMultiple, channel) }
      let deliveries = try settled(tag, isMultiple, channel)
      guard requeues else { return discard(deliveries) }
      coverage.note(.requeues, deliveries.count)
      channel.giveBack(deliveries)
    case .recover:
      coverage.note(.recovers)
      channel.giveBack(channel.settle(0, isMultiple: true) ?? [])
      channel.expected.append(ExpectedReply(name: "basic.recover-ok"))
    default: applyDeclaration(command, channel)
    }
  }

  private func settled(
    _ tag: UInt64, _ isMultiple: Bool, _ channel: ChannelModel
  ) throws(BrokenPromise) -> [ChannelModel.Delivery] {
    guard let deliveries = channel.settle(tag, isMultiple: isMultiple) else {
      throw BrokenPromise("what is wrong is refused", "an acknowledgement of tag \(tag)")
    }
    return deliveries
  }

  private func applyDeclaration(_ command: Command, _ channel: ChannelModel) {
    switch command.action {
    case .purge(let name):
      coverage.note(.purges)
      let queue = queue(name)
      let (count, copies) = queue.purge(at: endPosition)
      channel.expected.append(
        ExpectedReply(
          name: "queue.purge-ok", count: count,
          promised: { for copy in copies { copy.removed?.isPromised = true } }))
    case .inspect(let name):
      let queue = queue(name)
      channel.expected.append(
        ExpectedReply(
          name: "queue.declare-ok", count: queue.readyCount, consumers: queue.consumers.count,
          queue: queue))
    case .declare(let name):
      let queue = queue(name)
      if queue.kind == .exclusive, !queue.exists { coverage.note(.exclusiveQueues) }
      queue.declared(at: endPosition, by: channel.connection)
      channel.expected.append(
        ExpectedReply(
          name: "queue.declare-ok", count: queue.readyCount, consumers: queue.consumers.count,
          queue: queue, promised: queue.laterPromise()))
    case .delete(let name):
      coverage.note(.deletions)
      let queue = queue(name)
      // What is not there is deleted already, whether that is durable or not.
      let exists = queue.exists
      let count = exists ? queue.readyCount : 0
      delete(queue)
      channel.expected.append(
        ExpectedReply(
          name: "queue.delete-ok", count: count, promised: exists ? queue.laterPromise() : {}))
    case .declareExchange(let name):
      exchanges.insert(name)
      expectChange(
        channel, "exchange.declare-ok", isDurable: topology.isDurable(exchange: name))
    case .deleteExchange(let name):
      coverage.note(.exchangeDeletions)
      exchanges.remove(name)
      bindings = bindings.filter {
        $0.exchange != name && !($0.isToExchange && $0.destination == name)
      }
      expectChange(
        channel, "exchange.delete-ok", isDurable: topology.isDurable(exchange: name))
    case .bind(let binding):
      bindings.insert(binding)
      expectChange(
        channel, binding.isToExchange ? "exchange.bind-ok" : "queue.bind-ok",
        isDurable: topology.isDurable(binding))
    case .unbind(let binding):
      if bindings.remove(binding) != nil { coverage.note(.unbinds) }
      expectChange(
        channel, binding.isToExchange ? "exchange.unbind-ok" : "queue.unbind-ok",
        isDurable: topology.isDurable(binding))
    default: break
    }
  }

  private func expectChange(_ channel: ChannelModel, _ reply: String, isDurable: Bool) {
    let index = topologyChanges.count
    topologyChanges.append(Durability(position: isDurable ? endPosition : 0))
    channel.expected.append(
      ExpectedReply(
        name: reply,
        promised: { [unowned self] in
          if index < topologyChanges.count { topologyChanges[index].isPromised = true }
        }))
  }

  private func publish(_ message: Message, _ channel: ChannelModel) {
    coverage.note(.publishes)
    if message.size > 256 << 10 { coverage.note(.largePublishes) }
    if let transaction = channel.transaction { return transaction.messages.append(message) }
    channel.published(message)
    let destinations = route(message)
    message.destinations = destinations
    trace.note("    m\(message.id) is before \(endPosition), for \(destinations.map(\.name))")
    for queue in destinations { queue.publish(message, at: endPosition) }
    if destinations.isEmpty, message.isMandatory {
      channel.expected.append(ExpectedReply(name: "basic.return \(message.id)"))
    }
  }

  func route(_ message: Message) -> [QueueModel] {
    if message.exchange.isEmpty { return [queue(message.key)].filter(\.exists) }
    var names: Set<String> = []
    var seen: Set<String> = [message.exchange]
    var rest = [message.exchange]
    while let exchange = rest.popLast() {
      for binding in bindings where binding.exchange == exchange {
        guard topology.fits(binding, key: message.key, headers: message.headers) else { continue }
        if topology.exchanges[exchange] == .headers { coverage.note(.headersRoutes) }
        if binding.isToExchange {
          coverage.note(.exchangeHops)
          if seen.insert(binding.destination).inserted { rest.append(binding.destination) }
        } else {
          names.insert(binding.destination)
        }
      }
    }
    return names.sorted().map { queue($0) }.filter(\.exists)
  }

  /// They may be dead letters, by a header of their own: those that are on disk are read before they leave.
  private func discard(_ deliveries: [ChannelModel.Delivery]) {
    for delivery in deliveries {
      delivery.consumer?.lockedCount -= 1
      delivery.copy.queue.remove(delivery.copy, at: .max)
      if delivery.copy.removed?.position == .max { discarded.append(delivery.copy) }
    }
  }

  private func remove(_ deliveries: [ChannelModel.Delivery]) {
    for delivery in deliveries {
      delivery.consumer?.lockedCount -= 1
      removeUnlogged(delivery.copy)
    }
  }

  func removeUnlogged(_ copy: Copy) {
    copy.queue.remove(copy, at: .max)
    if copy.removed?.position == .max { unlogged.append(copy) }
  }
}
