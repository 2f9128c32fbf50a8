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
    guard !connection.isClosed else { return }
    if case .connect = command.action { return }
    if case .openChannel = command.action {
      connection.channels[command.channel] = ChannelModel(number: command.channel)
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
    try apply(command, channel, connection)
  }

  private func checkRefusal(
    _ command: Command, _ channel: ChannelModel, _ text: String
  ) throws(BrokenPromise) {
    coverage.note(.channelErrors)
    var isRight = false
    switch command.action {
    case .mistake: isRight = true
    case .acknowledge(let tag, let isMultiple), .reject(let tag, let isMultiple, _):
      // A client that acknowledged all may hear of what was underway.
      isRight = channel.settle(tag, isMultiple: isMultiple) == nil
    case .publish(let message):
      isRight =
        !message.exchange.isEmpty && !exchanges.contains(message.exchange)
        || journal?.failure != nil
    case .consume(let name, _, _), .purge(let name), .inspect(let name):
      isRight = !queue(name).exists
      guard text.hasPrefix("NOT_FOUND") else { break }
      if case .inspect = command.action, queue(name).existence == nil {
        try queue(name).observed(exists: false)
        return
      }
      if case .inspect = command.action, !isRight {
        throw BrokenPromise("a durable queue is not lost", name)
      }
    case .get(let name, _):
      if !text.contains("could not be read back") {
        isRight = !queue(name).exists
      } else {
        coverage.note(.unreadableMessages)
        isRight = true
      }
    case .bind(let binding), .unbind(let binding):
      isRight = !queue(binding.queue).exists || !exchanges.contains(binding.exchange)
    default: isRight = false
    }
    try promise(
      isRight || journal?.failure != nil, "what is right is not refused",
      "\(command.action): \(text)")
  }

  private func apply(
    _ command: Command, _ channel: ChannelModel, _ connection: ConnectionModel
  ) throws(BrokenPromise) {
    switch command.action {
    case .connect, .openChannel, .closeChannelOk: break
    case .mistake: throw BrokenPromise("what is wrong is refused", "\(command.action)")
    case .closeChannel:
      channel.giveUp()
      channel.isClosing = false
      channel.expected.append(ExpectedReply(name: "channel.close-ok"))
    case .confirmSelect:
      channel.isConfirming = true
      channel.expected.append(ExpectedReply(name: "confirm.select-ok"))
    case .prefetch(let count):
      channel.prefetch = count
      channel.expected.append(ExpectedReply(name: "basic.qos-ok"))
    case .publish(let message): publish(message, channel)
    case .consume(let name, let tag, let isAutomatic):
      let queue = queue(name)
      queue.consumerCount += 1
      channel.consumers[tag] = ConsumerModel(
        tag: tag, queue: queue, isAutomatic: isAutomatic, prefetch: channel.prefetch)
      channel.expected.append(ExpectedReply(name: "basic.consume-ok"))
    case .cancel(let tag):
      if let consumer = channel.consumers.removeValue(forKey: tag) {
        consumer.queue.consumerCount -= 1
      }
      channel.expected.append(ExpectedReply(name: "basic.cancel-ok"))
    case .get(let name, let isAutomatic):
      channel.expected.append(
        ExpectedReply(
          name: isAutomatic ? "basic.get automatic" : "basic.get", queue: queue(name)))
    case .acknowledge(let tag, let isMultiple):
      coverage.note(.acknowledgements)
      remove(try settled(tag, isMultiple, channel))
    case .reject(let tag, let isMultiple, let requeues):
      let deliveries = try settled(tag, isMultiple, channel)
      guard requeues else { return remove(deliveries) }
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
          name: "queue.declare-ok", count: queue.readyCount, consumers: queue.consumerCount,
          queue: queue))
    case .declare(let name):
      let queue = queue(name)
      queue.declared(at: endPosition)
      channel.expected.append(
        ExpectedReply(
          name: "queue.declare-ok", count: queue.readyCount, consumers: queue.consumerCount,
          queue: queue, promised: queue.laterPromise()))
    case .delete(let name):
      coverage.note(.deletions)
      let queue = queue(name)
      // What is not there is deleted already, whether that is durable or not.
      let exists = queue.exists
      let count = exists ? queue.readyCount : 0
      bindings = bindings.filter { $0.queue != name }
      queue.deleted(at: endPosition)
      channel.expected.append(
        ExpectedReply(
          name: "queue.delete-ok", count: count, promised: exists ? queue.laterPromise() : {}))
    case .declareExchange(let name):
      exchanges.insert(name)
      expectChange(channel, "exchange.declare-ok", isDurable: true)
    case .bind(let binding):
      bindings.insert(binding)
      expectChange(channel, "queue.bind-ok", isDurable: topology.isDurable(binding.queue))
    case .unbind(let binding):
      bindings.remove(binding)
      expectChange(channel, "queue.unbind-ok", isDurable: topology.isDurable(binding.queue))
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
    channel.published(message)
    let destinations = route(message)
    message.destinations = destinations
    trace.note("    m\(message.id) is before \(endPosition), for \(destinations.map(\.name))")
    for queue in destinations { queue.publish(message, at: endPosition) }
    if destinations.isEmpty, message.isMandatory {
      channel.expected.append(ExpectedReply(name: "basic.return \(message.id)"))
    }
  }

  private func route(_ message: Message) -> [QueueModel] {
    if message.exchange.isEmpty { return [queue(message.key)].filter(\.exists) }
    let type = topology.exchanges[message.exchange]!
    let names = Set(
      bindings.filter {
        $0.exchange == message.exchange && Topology.fits(type, $0.key, message.key)
      }.map(\.queue))
    return names.sorted().map { queue($0) }.filter(\.exists)
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
