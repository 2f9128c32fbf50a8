import AMQP
import Base
import Journal

/// Knows what the broker must do: it is told of each request when the broker has taken it, and of
/// all that sessions write, and compares. Across crashes it knows what must have survived, what may
/// have, and what must not.
final class Oracle {
  let topology: Topology
  /// A confirm promises that a message survives power loss.
  let isSynced: Bool
  let coverage: CoverageCounter
  let trace: Trace
  private(set) var queues: [String: QueueModel] = [:]
  private(set) var messages: [Message] = []
  var exchanges: Set<String> = []
  /// Consumers that were ended by the broker, until it is known why.
  var cancelled: [ConsumerModel] = []
  var bindings: Set<Topology.Binding> = []
  /// Changes of exchanges and bindings that a crash may take back.
  var topologyChanges: [Durability] = []
  /// A crash may have taken back changes of queues, exchanges or bindings.
  private(set) var isTopologyUncertain = true
  /// The broker's journal, for positions; nil while none runs.
  var journal: Journal?
  /// Damage of the log before this position can be told from a write that was not finished: a batch was
  /// written behind it that says that it was durable.
  private(set) var provenPosition = 0
  /// A bit of the journal may have flipped: what stands there is not delivered, and nothing else.
  var isRotten = false
  /// The log of the broker speaks of damage since the bit flipped.
  var isDamageTold: () -> Bool = { true }
  /// Whether the broker has a queue of this name now.
  var isThere: (String) -> Bool = { _ in false }
  private(set) var turn = 0
  /// The turn in which consumers were last cancelled for damage, until it is seen that this is told.
  var cancelledForDamage: Int?
  /// They are told what the log knows, and what a crash leaves.
  var guests: Guests?
  /// Channels whose commits go on between turns.
  var committing: [ChannelModel] = []
  /// Removals that the log was not told yet.
  var unlogged: [Copy] = []
  /// The same of what was rejected, some of which has to be read first.
  var discarded: [Copy] = []
  /// Deliveries since they were last compared with the queues.
  private var deliveries: [(delivery: ChannelModel.Delivery, from: ConnectionModel)] = []

  init(
    topology: Topology, isSynced: Bool, coverage: CoverageCounter, trace: Trace
  ) {
    self.topology = topology
    self.isSynced = isSynced
    self.coverage = coverage
    self.trace = trace
    for name in topology.queues {
      queues[name] = QueueModel(name: name, in: topology)
    }
  }

  var endPosition: Int { journal?.endPosition ?? 0 }
  /// What a power loss leaves.
  private var syncedBound: DurableBound {
    DurableBound(position: journal?.syncedEnd ?? 0, keepsPromises: isSynced)
  }

  func makeMessage(_ make: (Int) -> Message) -> Message {
    let message = make(messages.count + 1)
    messages.append(message)
    return message
  }

  /// Messages that wait in queues.
  var backlog: Int { topology.queues.reduce(0) { $0 + queue($1).waitingCount } }

  func queue(_ name: String) -> QueueModel {
    guard let queue = queues[name] else { invariantFailed("\(name) is no queue of this run") }
    return queue
  }

  /// The next start will know what was delivered by now: by the log, or by what stands beside a log that
  /// failed.
  var isToldOfDeliveries: Bool { journal.map { $0.failure == nil || $0.isFailureMarked } ?? true }

  /// The broker has read its log. `isAfterFailure`: it found that the log had failed before.
  func recovered(isAfterFailure: Bool) {
    guard isAfterFailure else { return }
    coverage.note(.startsAfterFailure)
    for queue in queues.values { queue.takeForDelivered() }
  }

  // MARK: What the broker says

  /// A session has written something; returns whose message it is, if a queue gave it.
  func heard(
    _ event: ClientEvent, on connection: ConnectionModel
  ) throws(BrokenPromise) -> Copy? {
    guard !connection.isClosed else { return nil }
    finishCommits()
    switch event {
    case .content(let content): return try heard(content, on: connection)
    case .method(let method, let number):
      if number == 0 {
        heardOnConnection(method, connection)
        return nil
      }
      guard let channel = connection.channels[number] else {
        throw BrokenPromise("replies answer requests", "\(method) on channel \(number)")
      }
      try heard(method, on: channel, connection)
      return nil
    }
  }

  private func heardOnConnection(_ method: Method, _ connection: ConnectionModel) {
    switch method {
    case .connectionClose, .connectionCloseOk: connection.close()
    case .connectionBlocked: coverage.note(.blockedPublishers)
    default: break
    }
  }

  private func heard(
    _ method: Method, on channel: ChannelModel, _ connection: ConnectionModel
  ) throws(BrokenPromise) {
    switch method {
    case .channelClose:
      giveUp(channel)
      channel.isClosing = true
    case .basicAck(let ack):
      let messages = try channel.confirmed(ack.deliveryTag, isMultiple: ack.multiple)
      coverage.note(.confirms, messages.count)
      for message in messages { try confirmed(message) }
    case .basicNack(let nack):
      try promise(
        journal?.failure != nil, "a publish is refused only when the journal failed",
        "tag \(nack.deliveryTag)")
      coverage.note(
        .refusals, try channel.confirmed(nack.deliveryTag, isMultiple: nack.multiple).count)
    case .basicCancel(let cancel):
      guard connection.isTold,
        let consumer = channel.consumers.removeValue(forKey: cancel.consumerTag.description)
      else { throw BrokenPromise("only consumers are cancelled", "\(cancel.consumerTag)") }
      cancelled.append(consumer)
    default: try replied(method, channel, connection)
    }
  }

  private func confirmed(_ message: Message) throws(BrokenPromise) {
    for queue in message.destinations ?? [] {
      queue.copy(of: message)?.stored.isPromised = true
    }
  }

  private func replied(
    _ method: Method, _ channel: ChannelModel, _ connection: ConnectionModel
  ) throws(BrokenPromise) {
    let name = "\(method.id)"
    guard let expected = channel.expected.first,
      expected.name == name || (name == "basic.get-empty" && expected.name.hasPrefix("basic.get"))
    else {
      throw BrokenPromise(
        "replies answer requests", "\(name) instead of \(channel.expected.first?.name ?? "nothing")"
      )
    }
    channel.expected.removeFirst()
    if name == "channel.close-ok", !channel.isClosing { connection.channels[channel.number] = nil }
    switch method {
    case .queueDeclareOk(let ok):
      guard let queue = expected.queue else { break }
      if queue.existence == nil { try queue.observed(exists: true) }
      try check(expected, count: Int(ok.messageCount))
      let consumers = expected.consumers ?? -1
      // Whoever waits for another answer hears behind that one that its consumers were cancelled for damage.
      let isCancelled = isRotten && ok.consumerCount < consumers
      try promise(
        consumers == Int(ok.consumerCount) || isCancelled, "counts are right",
        "\(queue.name) has \(ok.consumerCount) consumers, not \(consumers)")
    case .queuePurgeOk(let ok): try check(expected, count: Int(ok.messageCount))
    case .queueDeleteOk(let ok): try check(expected, count: Int(ok.messageCount))
    case .basicGetEmpty:
      guard let queue = expected.queue else { break }
      coverage.note(.gets)
      try promise(
        queue.readyCount ?? 0 == 0, "counts are right",
        "\(queue.name) said that it was empty and has \(queue.readyCount ?? 0)")
      if !queue.isObserved { try queue.observe(count: 0) }
    default: break
    }
    expected.promised()
  }

  private func check(_ expected: ExpectedReply, count: Int) throws(BrokenPromise) {
    if let wanted = expected.count {
      try promise(
        wanted == count, "counts are right",
        "\(expected.name) of \(expected.queue?.name ?? "a queue") told \(count), not \(wanted):"
          + " \(expected.queue?.contents ?? "")")
    } else if let queue = expected.queue, !queue.isObserved {
      try queue.observe(count: count)
    }
  }

  private func heard(
    _ content: Content, on connection: ConnectionModel
  ) throws(BrokenPromise) -> Copy? {
    guard let channel = connection.channels[content.channel] else {
      throw BrokenPromise("replies answer requests", "a message on channel \(content.channel)")
    }
    let message = try identify(content)
    switch content.kind {
    case .returned(let code):
      let wanted = "basic.return \(message.id)"
      try promise(
        channel.expected.first?.name == wanted && code == 312, "only what has no route is returned",
        "m\(message.id) came back with \(code)")
      channel.expected.removeFirst()
      coverage.note(.returns)
      return nil
    case .delivery(let tag, let isRedelivered, let consumerTag):
      guard let consumer = channel.consumers[consumerTag] else {
        throw BrokenPromise("only consumers get messages", "m\(message.id) for \(consumerTag)")
      }
      try channel.delivered(tag)
      coverage.note(.deliveries)
      let copy = try findCopy(message, consumer.queue)
      try check(copy, isRedelivered: isRedelivered)
      try check(copy, count: content.count)
      deliveries.append(
        (ChannelModel.Delivery(tag: tag, copy: copy, consumer: consumer), connection))
      if !consumer.isAutomatic {
        consumer.lockedCount += 1
        channel.deliveries.append(deliveries[deliveries.count - 1].delivery)
        try promise(
          consumer.prefetch == 0 || consumer.lockedCount <= consumer.prefetch,
          "no consumer gets more than its prefetch",
          "\(consumerTag) has \(consumer.lockedCount) of \(consumer.prefetch)")
        try checkShared(channel, consumer)
      }
      return copy
    case .got(let tag, let isRedelivered, let remaining):
      let copy = try got(
        message, channel, tag, isRedelivered: isRedelivered, remaining: remaining)
      try check(copy, count: content.count)
      return copy
    }
  }

  private func got(
    _ message: Message, _ channel: ChannelModel, _ tag: UInt64, isRedelivered: Bool,
    remaining: Int
  ) throws(BrokenPromise) -> Copy {
    guard let expected = channel.expected.first, let queue = expected.queue,
      expected.name.hasPrefix("basic.get")
    else {
      throw BrokenPromise("replies answer requests", "get-ok of m\(message.id)")
    }
    channel.expected.removeFirst()
    coverage.note(.gets)
    // What consumers got before it was before it in the queue.
    try compareDeliveries()
    try channel.delivered(tag)
    let copy = try findCopy(message, queue)
    try check(copy, isRedelivered: isRedelivered)
    try queue.take(copy)
    queue.lock(copy)
    if expected.name.hasSuffix("automatic") {
      removeUnlogged(copy)
    } else {
      channel.deliveries.append(ChannelModel.Delivery(tag: tag, copy: copy, consumer: nil))
    }
    if queue.isObserved {
      try promise(
        queue.readyCount == remaining, "counts are right",
        "get told \(remaining) left in \(queue.name), not \(queue.readyCount ?? -1)")
    } else {
      try queue.observe(count: remaining)
    }
    return copy
  }

  private func identify(_ content: Content) throws(BrokenPromise) -> Message {
    guard let id = content.id, id > 0, id <= messages.count else {
      throw BrokenPromise(
        "nothing comes that was not published", "a message of \(content.body.count) bytes")
    }
    let message = messages[id - 1]
    try promise(
      message.equals(content), "messages come as they were published",
      "m\(id) of \(message.size) bytes came with \(content.body.count)")
    return message
  }

  /// The message that was delivered is locked for somebody, as far as is known.
  func isLocked(_ content: Content, on connection: ConnectionModel) -> Bool {
    guard case .delivery(_, _, let consumer) = content.kind, let id = content.id, id > 0,
      id <= messages.count, let channel = connection.channels[content.channel]
    else { return false }
    return channel.consumers[consumer]?.queue.copy(of: messages[id - 1])?.place == .locked
  }

  private func findCopy(_ message: Message, _ queue: QueueModel) throws(BrokenPromise) -> Copy {
    guard let destinations = message.destinations else {
      throw BrokenPromise("nothing comes that was not published", "m\(message.id)")
    }
    guard let copy = queue.copy(of: message) else {
      throw BrokenPromise(
        destinations.contains { $0 === queue }
          ? "no acknowledged message comes back" : "messages go where they are routed",
        "m\(message.id) in \(queue.name)")
    }
    try promise(
      copy.place == .ready, "a locked message is not delivered again",
      "m\(message.id) in \(queue.name)")
    return copy
  }

  /// How often a message came back is told where it is counted, from the first time on.
  private func check(_ copy: Copy, count: Int64?) throws(BrokenPromise) {
    let told = count ?? 0
    let isRight =
      copy.queue.countsDeliveries ? copy.comebacks.contains(told) && count != 0 : count == nil
    try promise(
      isRight, "deliveries are counted",
      "m\(copy.message.id) of \(copy.queue.name) came with \(count.map(String.init) ?? "no count"),"
        + " not \(copy.comebacks)")
    guard copy.queue.countsDeliveries else { return }
    copy.comebacks = told...told
    if told > 0 { coverage.note(.countedDeliveries) }
  }

  private func check(_ copy: Copy, isRedelivered: Bool) throws(BrokenPromise) {
    if isRedelivered { coverage.note(.redeliveries) }
    let isRight =
      switch copy.redelivered {
      case .yes: isRedelivered
      case .no: !isRedelivered
      case .either: true
      }
    try promise(
      isRight, "redelivered is truthful",
      "m\(copy.message.id) in \(copy.queue.name) came with \(isRedelivered)")
  }

  // MARK: Turns

  /// Everything that queues gave was heard: it must have been what was first in them, and each client
  /// must have got its part in order.
  func compareDeliveries() throws(BrokenPromise) {
    noteReading()
    guard !deliveries.isEmpty else { return }
    var last: [ObjectIdentifier: [String: Int]] = [:]
    for (delivery, connection) in deliveries {
      let name = delivery.copy.queue.name
      let before = last[ObjectIdentifier(connection)]?[name] ?? -1
      try promise(
        before < delivery.copy.order, "messages leave a queue in its order",
        "\(connection.name) got m\(delivery.copy.message.id) of \(name) too late")
      last[ObjectIdentifier(connection), default: [:]][name] = delivery.copy.order
    }
    for (delivery, _) in deliveries.sorted(by: {
      ($0.delivery.copy.queue.name, $0.delivery.copy.order)
        < ($1.delivery.copy.queue.name, $1.delivery.copy.order)
    }) {
      let copy = delivery.copy
      try promise(
        copy.place == .ready, "a locked message is not delivered again",
        "m\(copy.message.id) in \(copy.queue.name)")
      try copy.queue.take(copy)
      copy.queue.lock(copy)
      if delivery.consumer?.isAutomatic == true { removeUnlogged(copy) }
    }
    for (delivery, _) in deliveries {
      if let consumer = delivery.consumer { try checkPriority(consumer) }
    }
    for name in topology.queues {
      for consumer in queue(name).consumers where consumer.isLongReady && !consumer.isReady {
        consumer.isLongReady = false
      }
    }
    deliveries.removeAll(keepingCapacity: true)
  }

  /// All that could be delivered in a turn was.
  func turned() throws(BrokenPromise) {
    turn += 1
    finishCommits()
    try explainCancelled(before: nil)
    if let since = cancelledForDamage, turn > since + 1 {
      try promise(isDamageTold(), "damage is told", "consumers were cancelled without a word")
      cancelledForDamage = nil
    }
    for name in topology.queues {
      for consumer in queue(name).consumers { consumer.isLongReady = consumer.isReady }
    }
    noteReading()
  }

  /// While messages are read back, consumers may have to leave what they share to those that wait for
  /// the disk, which would never get it otherwise. Then they are no longer ready for long.
  private func noteReading() {
    guard journal?.isLoading == true else { return }
    for name in topology.queues {
      for consumer in queue(name).consumers where consumer.isLongReady && consumer.mayLeaveItsTurn {
        consumer.isLongReady = false
      }
    }
  }

  /// Lower priorities are served only while higher ones can take nothing, or until their turn has come
  /// again within the turn of the loop in which they can.
  private func checkPriority(_ consumer: ConsumerModel) throws(BrokenPromise) {
    for other in consumer.queue.consumers where other.priority > consumer.priority {
      coverage.note(.lowerPriorities)
      try promise(
        !other.isReady || !other.isLongReady, "higher priorities are served first",
        "\(consumer.tag) got a message of \(consumer.queue.name), and \(other.tag) did not")
    }
  }

  private func checkShared(
    _ channel: ChannelModel, _ consumer: ConsumerModel
  ) throws(BrokenPromise) {
    guard channel.sharedPrefetch > 0 else { return }
    let count = channel.sharedCount
    if count == channel.sharedPrefetch { coverage.note(.sharedLimits) }
    try promise(
      count <= channel.sharedPrefetch, "no channel gets more than its prefetch",
      "channel \(channel.number) has \(count) of \(channel.sharedPrefetch) with \(consumer.tag)")
  }

  /// The broker has told the log what left its queues.
  func logged() {
    if journal?.isLoading == false {
      unlogged += discarded
      discarded = []
    }
    for copy in unlogged where copy.removed?.position == .max {
      copy.removed?.position = endPosition
    }
    unlogged.removeAll(keepingCapacity: true)
    guests?.logged(before: endPosition)
  }

  /// The log moved.
  func moved() {
    if let position = journal?.provenPosition { provenPosition = max(provenPosition, position) }
    for queue in queues.values { queue.settle(syncedBound) }
    if topologyChanges.count > 100, topologyChanges.allSatisfy({ $0.isSure(syncedBound) }) {
      topologyChanges = []
    }
  }

  // MARK: Crashes

  /// The broker is gone. `isOrderly`: everything that it knew is durable.
  func crash(_ kind: CrashKind, isOrderly: Bool) {
    finishCommits()
    committing = []
    let written = DurableBound(position: isOrderly ? .max - 1 : journal?.durablePosition ?? 0)
    let bound = isOrderly || kind == .kill ? written : syncedBound
    if isOrderly { logged() }
    guests?.crash(bound)
    if !topologyChanges.allSatisfy({ $0.isSure(bound) }) { isTopologyUncertain = true }
    topologyChanges = []
    for name in topology.queues {
      let queue = queue(name)
      if !queue.isSettled(bound) { isTopologyUncertain = true }
      queue.crash(bound, isOrderly: isOrderly)
      coverage.note(.uncertainMessages, queue.uncertain)
    }
    exchanges = exchanges.filter { topology.isDurable(exchange: $0) }
    bindings = bindings.filter { topology.isDurable($0) }
    unlogged = []
    discarded = []
    deliveries = []
    cancelled = []
    cancelledForDamage = nil
    journal = nil
  }

  /// Exchanges, queues and bindings are as they should be again.
  func topologyRestored() {
    isTopologyUncertain = false
  }
}
