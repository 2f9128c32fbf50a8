import Base

/// What a session must do for the broker: turn what happens to its channels into its protocol.
/// All calls come from the core thread, within a turn; a session writes to its socket at the end.
public protocol Outlet: AnyObject {
  /// A message for a consumer. The view is valid only during the call.
  func deliver(
    _ message: MessageView, to consumer: Consumer, on channel: Channel, tag: UInt64,
    isRedelivered: Bool)
  /// The same with other properties than its own, if they fit into a frame of this client. They are valid
  /// only during the call as well.
  func deliver(
    _ message: MessageView, with properties: UnsafeRawBufferPointer, to consumer: Consumer,
    on channel: Channel, tag: UInt64, isRedelivered: Bool)
  /// The broker ended a consumer, because its queue is gone.
  func consumerCancelled(_ tag: Name, on channel: Channel)
  /// The broker ended a consumer of this queue, because a delivery was not acknowledged for so many
  /// milliseconds.
  func consumerTimedOut(
    _ tag: Name, of queue: Name, after milliseconds: Int64, on channel: Channel)
  /// The broker ended a consumer, because the next message of its queue is damaged.
  func consumerFailed(_ tag: Name, of queue: Name, on channel: Channel)
  /// Publishes up to this one have been taken over; all since the last call if `isMultiple`.
  func confirmed(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel)
  /// Publishes up to this one are not taken over.
  func refused(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel)
  /// A mandatory message reached no queue. The views are valid only during the call; a large body may stand
  /// in a block, which can be lent.
  func returned(
    names: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer, in block: UInt32?, on channel: Channel)
  /// A commit that has gone on between turns has failed, and nothing of it has happened.
  func commitFailed(_ error: BrokerError, on channel: Channel)
  /// A commit that has gone on between turns was rolled back, since no queue takes one of its mandatory messages.
  func commitRolledBack(on channel: Channel)
  /// What the connection asked for goes on between turns: it is to ask for nothing more, and to be
  /// answered nothing, while its peer `isWorking`.
  func workBegan()
}

/// A client's connection as the broker sees it.
public final class Peer {
  /// Such as `127.0.0.1:40562 -> 127.0.0.1:5672`.
  public let name: String
  public let user: Name
  public let vhost: VirtualHost
  // Unsafe but sound: the broker outlives its peers, and the session, which is the outlet, closes
  // the peer before it goes; a closed peer calls no outlet.
  unowned(unsafe) let broker: Broker
  unowned(unsafe) let outlet: any Outlet

  /// A commit with a mandatory message that no queue takes is rolled back.
  public var rollsBackUnroutable = false
  /// Deliveries go out only while the connection's output has room.
  public private(set) var hasRoom = true
  /// Bytes of direct replies since there was room; no queue could hold them back.
  private var unreadReplyBytes = 0
  /// Each knows its place here.
  private(set) var channels: [Channel] = []
  /// Its place among the broker's, while it is open.
  var index = 0
  private(set) var isClosed = false
  /// Each knows its place here.
  private(set) var exclusiveQueues: [Destination] = []
  /// Consumers that wait for room in the output.
  let line = ConsumerLine()
  let deliveryMeter: DeliveryMeter
  private var choreCount = 0
  /// What the log must be durable up to before work that is done may be answered.
  public private(set) var workedUpTo = 0

  public init(name: String, user: Name, vhost: VirtualHost, outlet: any Outlet) {
    self.name = name
    self.user = user
    self.vhost = vhost
    self.outlet = outlet
    broker = vhost.broker
    deliveryMeter = DeliveryMeter(broker)
    line.cause = .room(.passUnretained(self))
    broker.add(self)
  }

  /// Memory of what the connection has not acknowledged.
  public var deliveryBytes: Int { deliveryMeter.bytes }

  /// Memory of what it has asked for in transactions and not committed.
  public private(set) var transactionBytes = 0

  func count(transaction delta: Int) {
    transactionBytes += delta
    broker.account.add(delta, to: .transactions)
  }

  /// The output is full: no more deliveries until `roomMade`.
  @inline(__always)
  public func roomFilled() {
    hasRoom = false
  }

  /// The output was written: consumers that waited are served again.
  public func roomMade() {
    guard !hasRoom else { return }
    hasRoom = true
    unreadReplyBytes = 0
    line.move()
  }

  /// Whether a direct reply is delivered; otherwise it is dropped.
  func takesReply(bytes: Int) -> Bool {
    guard !hasRoom else { return true }
    unreadReplyBytes += bytes
    return unreadReplyBytes <= broker.limits.unreadReplyBytesMax
  }

  /// Work that this connection asked for is not done yet; its requests and replies wait.
  public var isWorking: Bool { choreCount > 0 }

  func choreBegan() {
    choreCount += 1
    outlet.workBegan()
  }

  func choreEnded() {
    choreCount -= 1
  }

  /// Work is done that is to be durable before it is answered.
  func worked() {
    workedUpTo = broker.journal.endPosition
  }

  public func openChannel(_ number: UInt16) -> Channel {
    let channel = Channel(number: number, peer: self)
    channel.index = channels.count
    channels.append(channel)
    broker.account.add(Channel.memoryBytes, to: .connections)
    broker.events.opened(channel)
    return channel
  }

  /// The channel is being closed.
  func forget(_ channel: Channel) {
    let last = channels.removeLast()
    guard last !== channel else { return }
    channels[channel.index] = last
    last.index = channel.index
  }

  func own(_ queue: Destination) {
    queue.exclusiveIndex = exclusiveQueues.count
    exclusiveQueues.append(queue)
  }

  func disown(_ queue: Destination) {
    let last = exclusiveQueues.removeLast()
    guard last !== queue else { return }
    exclusiveQueues[queue.exclusiveIndex] = last
    last.exclusiveIndex = queue.exclusiveIndex
  }

  /// The connection is over: what it held goes back, what was exclusive to it goes. The peer `isWorking`
  /// until that is done if the client `isAnswered` then.
  public func close(isAnswered: Bool = false) {
    guard !isClosed else { return }
    isClosed = true
    let waiting = isAnswered ? self : nil
    for channel in channels { channel.giveUp(for: waiting) }
    broker.letGo(of: channels)
    channels = []
    broker.remove(self)
    broker.events.closed(self)
    if !exclusiveQueues.isEmpty, !Sabotage.is(.keepsExclusiveQueue) {
      broker.chores.begin(ExclusiveQueues(of: self), for: waiting)
    }
  }
}

/// The queues of a connection that is over: they go one by one. The connection is kept until then, so
/// that nobody is taken for their owner.
private final class ExclusiveQueues: Chore {
  private static let stepsPerQueue = 12

  private let peer: Peer

  init(of peer: Peer) {
    self.peer = peer
  }

  func advance(_ steps: inout Int) -> Bool {
    while let queue = peer.exclusiveQueues.last {
      guard steps > 0 else { return false }
      steps -= Self.stepsPerQueue
      peer.vhost.remove(queue, .exclusive)
    }
    return true
  }
}
