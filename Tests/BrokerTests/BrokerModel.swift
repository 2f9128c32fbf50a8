import Base

/// What a broker holds, kept in the plainest way: queues as sorted arrays, everything searched.
final class BrokerModel {
  struct Entry: Equatable {
    /// Its place in its queue for good.
    let order: Int
    let text: String
    let isDurable: Bool
    var isRedelivered = false
    /// A crash came over it: the log may have said that it was delivered before it was.
    var mayBeRedelivered = false

    /// Whether a client may be told this. Never that a message is new which somebody has seen.
    func allows(redelivered flag: Bool) -> Bool {
      flag == isRedelivered || (flag && mayBeRedelivered)
    }
  }

  final class Queue {
    let name: Name
    let isDurable: Bool
    let isAutoDelete: Bool
    let owner: Client?
    var ready: [Entry] = []
    var consumers: [Consumer] = []
    var hadConsumers = false
    var nextOrder = 0
    var isDeleted = false

    init(_ name: Name, isDurable: Bool, isAutoDelete: Bool, owner: Client?) {
      self.name = name
      self.isDurable = isDurable && owner == nil
      self.isAutoDelete = isAutoDelete
      self.owner = owner
    }
  }

  final class Consumer {
    let tag: Name
    let channel: Channel
    let queue: Queue
    let isAutomatic: Bool
    let priority: Int64
    let prefetch: Int

    init(
      _ tag: Name, _ channel: Channel, _ queue: Queue, isAutomatic: Bool, priority: Int64
    ) {
      self.tag = tag
      self.channel = channel
      self.queue = queue
      self.isAutomatic = isAutomatic
      self.priority = priority
      prefetch = channel.prefetch
    }

    var canTake: Bool {
      guard channel.client.room != 0, channel.isFlowing else { return false }
      if isAutomatic { return true }
      let outstanding = channel.pending.count { $0.consumer === self }
      // What basic.get has out is not counted.
      let shared = channel.pending.count { $0.consumer != nil }
      return (prefetch == 0 || outstanding < prefetch)
        && (channel.sharedPrefetch == 0 || shared < channel.sharedPrefetch)
    }
  }

  struct Pending {
    let tag: UInt64
    let entry: Entry
    let queue: Queue
    let consumer: Consumer?
  }

  final class Channel {
    let number: UInt16
    let client: Client
    var consumers: [Name: Consumer] = [:]
    var pending: [Pending] = []
    var nextTag: UInt64 = 1
    var prefetch = 0
    var sharedPrefetch = 0
    var isFlowing = true

    init(_ number: UInt16, _ client: Client) {
      self.number = number
      self.client = client
    }
  }

  final class Client {
    let number: Int
    var channels: [UInt16: Channel] = [:]
    /// Deliveries until the output is full, which it is at 0; nil if it never will be.
    var room: Int?

    init(_ number: Int) { self.number = number }
  }

  private(set) var queues: [Name: Queue] = [:]
  private(set) var clients: [Int: Client] = [:]
  /// The texts of all messages so far.
  private(set) var published: [String] = []
  /// Consumers that must be told that they have ended.
  private(set) var toldEnds: [Consumer] = []

  // MARK: Queues

  func declare(_ queue: Queue) { queues[queue.name] = queue }

  func publish(_ text: String, to names: [Name], isPersistent: Bool) {
    published.append(text)
    for queue in names.compactMap({ queues[$0] }) {
      queue.ready.append(
        Entry(order: queue.nextOrder, text: text, isDurable: isPersistent && queue.isDurable))
      queue.nextOrder += 1
    }
  }

  func delete(_ queue: Queue) {
    guard !queue.isDeleted else { return }
    queue.isDeleted = true
    queues[queue.name] = nil
    queue.ready = []
    toldEnds += queue.consumers
    for consumer in queue.consumers { consumer.channel.consumers[consumer.tag] = nil }
    queue.consumers = []
  }

  // MARK: Deliveries

  /// A message leaves its queue for a channel.
  func take(
    from queue: Queue, _ channel: Channel, consumer: Consumer?, isAutomatic: Bool
  ) -> (entry: Entry, tag: UInt64) {
    let entry = queue.ready.removeFirst()
    let tag = channel.nextTag
    channel.nextTag += 1
    if !isAutomatic {
      channel.pending.append(Pending(tag: tag, entry: entry, queue: queue, consumer: consumer))
    }
    if consumer != nil, let room = channel.client.room { channel.client.room = room - 1 }
    return (entry, tag)
  }

  /// The outstanding deliveries that a tag means; nil if it means none.
  func pending(_ channel: Channel, _ tag: UInt64, isMultiple: Bool) -> [Pending]? {
    if isMultiple, tag == 0 { return channel.pending }
    guard channel.pending.contains(where: { $0.tag == tag }) else { return nil }
    return channel.pending.filter { isMultiple ? $0.tag <= tag : $0.tag == tag }
  }

  func settle(_ channel: Channel, _ settled: [Pending], requeues: Bool) {
    channel.pending.removeAll { pending in settled.contains { $0.tag == pending.tag } }
    guard requeues else { return }
    for pending in settled where !pending.queue.isDeleted {
      var entry = pending.entry
      entry.isRedelivered = true
      pending.queue.ready.append(entry)
      pending.queue.ready.sort { $0.order < $1.order }
    }
  }

  func unacknowledgedCount(_ queue: Queue) -> Int {
    allPending.count { $0.queue === queue }
  }

  var allPending: [Pending] {
    clients.values.flatMap { $0.channels.values.flatMap(\.pending) }
  }

  var entryCount: Int { queues.values.reduce(allPending.count) { $0 + $1.ready.count } }

  // MARK: Consumers

  func consume(_ consumer: Consumer) {
    consumer.channel.consumers[consumer.tag] = consumer
    consumer.queue.consumers.append(consumer)
    consumer.queue.hadConsumers = true
  }

  func cancel(_ consumer: Consumer) {
    consumer.channel.consumers[consumer.tag] = nil
    consumer.queue.consumers.removeAll { $0 === consumer }
    goIfLeft(consumer.queue)
  }

  private func goIfLeft(_ queue: Queue) {
    if queue.isAutoDelete, queue.hadConsumers, queue.consumers.isEmpty { delete(queue) }
  }

  func told(_ consumer: Consumer) { toldEnds.removeAll { $0 === consumer } }

  // MARK: Clients

  func open(_ client: Client) { clients[client.number] = client }

  func open(_ channel: Channel) { channel.client.channels[channel.number] = channel }

  func close(_ channel: Channel) {
    channel.client.channels[channel.number] = nil
    let queues = channel.consumers.values.map(\.queue)
    for queue in queues { queue.consumers.removeAll { $0.channel === channel } }
    channel.consumers = [:]
    settle(channel, channel.pending, requeues: true)
    for queue in queues { goIfLeft(queue) }
  }

  func close(_ client: Client) {
    for channel in client.channels.values { close(channel) }
    clients[client.number] = nil
    for queue in queues.values where queue.owner === client { delete(queue) }
  }

  // MARK: Restarts

  /// What a broker that starts now would find in each durable queue.
  func afterCrash() -> [Name: [Entry]] {
    var result: [Name: [Entry]] = [:]
    for queue in queues.values where queue.isDurable {
      var entries = queue.ready
      for pending in allPending where pending.queue === queue {
        var entry = pending.entry
        entry.isRedelivered = true
        entries.append(entry)
      }
      result[queue.name] = entries.filter(\.isDurable).sorted { $0.order < $1.order }
    }
    return result
  }

  /// Everybody leaves, and the broker begins again.
  func restart() {
    for client in clients.values { close(client) }
    begin(isUnordered: false)
  }

  /// The broker begins again with what a crash left.
  func crash() {
    begin(isUnordered: true)
  }

  private func begin(isUnordered: Bool) {
    let contents = afterCrash()
    clients = [:]
    toldEnds = []
    queues = queues.filter(\.value.isDurable)
    for (name, entries) in contents {
      queues[name]?.ready = entries.map { entry in
        var entry = entry
        entry.mayBeRedelivered = entry.mayBeRedelivered || isUnordered
        return entry
      }
      queues[name]?.consumers = []
      queues[name]?.hadConsumers = false
    }
  }
}
