/// A reply that a client waits for: what it must say, and what it promises.
struct ExpectedReply {
  let name: String
  /// The ready messages and consumers that it must tell; nil where it tells none, or they are not
  /// known.
  var count: Int?
  var consumers: Int?
  /// The queue whose count it tells.
  var queue: QueueModel?
  /// What the client was promised with it.
  var promised: () -> Void = {}
}

/// A channel as the broker should know it.
final class ChannelModel {
  struct Delivery {
    let tag: UInt64
    let copy: Copy
    let consumer: ConsumerModel?
  }

  let number: UInt16
  unowned let connection: ConnectionModel
  /// The broker closed it, and the client has not answered.
  var isClosing = false
  var isConfirming = false
  /// What it has asked for since its last commit; nil without transactions.
  var transaction: TransactionModel?
  /// Publishes since confirms were selected, those that are not confirmed yet at the end.
  private(set) var unconfirmed: [Message] = []
  private(set) var publishCount: UInt64 = 0
  private(set) var confirmedTag: UInt64 = 0
  private var nextTag: UInt64 = 1
  /// For consumers that start from now on; 0 is no limit.
  var prefetch = 0
  /// For the deliveries of all consumers together, those of `basic.get` not counted; 0 is no limit.
  var sharedPrefetch = 0
  var deliveries: [Delivery] = []
  var consumers: [String: ConsumerModel] = [:]
  var expected: [ExpectedReply] = []

  init(number: UInt16, connection: ConnectionModel) {
    self.number = number
    self.connection = connection
  }

  /// Deliveries that count against the shared prefetch.
  var sharedCount: Int { deliveries.count { $0.consumer != nil } }

  func published(_ message: Message) {
    guard isConfirming else { return }
    publishCount += 1
    unconfirmed.append(message)
  }

  /// The broker confirms or refuses; returns the messages that it means.
  func confirmed(_ tag: UInt64, isMultiple: Bool) throws(BrokenPromise) -> [Message] {
    try promise(
      tag > confirmedTag && tag <= publishCount && (isMultiple || tag == confirmedTag + 1),
      "each publish is confirmed once and in order",
      "tag \(tag), \(isMultiple ? "multiple" : "single"), after \(confirmedTag) of \(publishCount)")
    let messages = Array(unconfirmed.prefix(Int(tag - confirmedTag)))
    unconfirmed.removeFirst(messages.count)
    confirmedTag = tag
    return messages
  }

  /// A message came with this tag.
  func delivered(_ tag: UInt64) throws(BrokenPromise) {
    try promise(
      tag == nextTag, "delivery tags count up", "tag \(tag) instead of \(nextTag)")
    nextTag += 1
  }

  /// Takes out the deliveries that an acknowledgement means; nil if there are none.
  func settle(_ tag: UInt64, isMultiple: Bool) -> [Delivery]? {
    guard isMultiple else {
      guard let index = deliveries.firstIndex(where: { $0.tag == tag }) else { return nil }
      return [deliveries.remove(at: index)]
    }
    if tag == 0 {
      defer { deliveries = [] }
      return deliveries
    }
    guard let index = deliveries.firstIndex(where: { $0.tag == tag }) else { return nil }
    defer { deliveries.removeFirst(index + 1) }
    return Array(deliveries[...index])
  }

  /// The client may acknowledge this delivery.
  func mayAnswer(_ tag: UInt64) -> Bool {
    deliveries.contains { $0.tag == tag } && transaction?.answered.contains(tag) != true
  }

  /// The channel is over: what was locked comes back. Returns the queues that consumers left.
  func giveUp() -> [QueueModel] {
    let queues = consumers.sorted { $0.key < $1.key }.map(\.value.queue)
    for consumer in consumers.values { consumer.queue.remove(consumer) }
    consumers = [:]
    giveBack(deliveries)
    deliveries = []
    expected = []
    transaction = nil
    return queues
  }

  func giveBack(_ deliveries: [Delivery]) {
    for delivery in deliveries {
      delivery.consumer?.lockedCount -= 1
      delivery.copy.queue.giveBack(delivery.copy)
    }
  }
}

/// A connection as the broker should know it.
final class ConnectionModel {
  let name: String
  var channels: [UInt16: ChannelModel] = [:]
  /// Over, or about to be.
  var isClosed = false
  /// It can be told of consumers that the broker ends; otherwise it loses its connection for damage.
  var isTold = true
  /// The broker writes deliveries for it, since not too much is unsent.
  var hasRoom: () -> Bool = { true }
  /// The broker has not answered yet what it asked for last.
  var isWaiting: () -> Bool = { false }
  /// What it asked for last goes on between turns.
  var isWorking: () -> Bool = { false }
  private unowned let oracle: Oracle

  init(name: String, oracle: Oracle) {
    self.name = name
    self.oracle = oracle
  }

  func close() { oracle.close(self) }
}
