import AMQP
import Base

/// What a session must do for the broker: turn what happens to its channels into its protocol.
/// All calls come from the core thread, within a turn; a session writes to its socket at the end.
public protocol Outlet: AnyObject {
  /// A message for a consumer. The view is valid only during the call.
  func deliver(
    _ message: MessageView, to consumer: Consumer, on channel: Channel, tag: UInt64,
    isRedelivered: Bool)
  /// The broker ended a consumer, because its queue is gone.
  func consumerCancelled(_ tag: Name, on channel: Channel)
  /// The broker ended a consumer, because the next message of its queue is damaged.
  func consumerFailed(_ tag: Name, of queue: Name, on channel: Channel)
  /// Publishes up to this one have been taken over; all since the last call if `isMultiple`.
  func confirmed(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel)
  /// Publishes up to this one are not taken over.
  func refused(upTo sequence: UInt64, isMultiple: Bool, on channel: Channel)
  /// A mandatory message reached no queue. The views are valid only during the call.
  func returned(
    names: UnsafeRawBufferPointer, properties: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer, on channel: Channel)
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
  unowned(unsafe) let broker: Broker
  unowned(unsafe) let outlet: any Outlet

  /// Deliveries go out only while the connection's output has room.
  public private(set) var hasRoom = true
  /// Bytes of direct replies since there was room; no queue could hold them back.
  private var unreadReplyBytes = 0
  var channels: [Channel] = []
  private var exclusiveQueues: [Queue] = []
  private var choreCount = 0

  public init(name: String, user: Name, vhost: VirtualHost, outlet: any Outlet) {
    self.name = name
    self.user = user
    self.vhost = vhost
    self.outlet = outlet
    broker = vhost.broker
    broker.add(self)
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
    for channel in channels { channel.touchQueues() }
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

  public func openChannel(_ number: UInt16) -> Channel {
    let channel = Channel(number: number, peer: self)
    channels.append(channel)
    return channel
  }

  /// The connection is over: what it held goes back, what was exclusive to it goes.
  public func close() {
    for channel in channels { channel.giveUp() }
    channels = []
    if !exclusiveQueues.isEmpty, !Sabotage.is(.keepsExclusiveQueue) {
      broker.chores.begin(ExclusiveQueues(self), for: nil)
    }
    broker.remove(self)
  }

  // MARK: Exclusive queues

  func own(_ queue: Queue) {
    queue.ownedPlace = exclusiveQueues.count
    exclusiveQueues.append(queue)
  }

  /// The queue is deleted.
  func forget(_ queue: Queue) {
    let last = exclusiveQueues.removeLast()
    guard last !== queue else { return }
    last.ownedPlace = queue.ownedPlace
    exclusiveQueues[queue.ownedPlace] = last
  }

  /// Deletes what was exclusive to a connection that is over, which is kept as the owner meanwhile.
  private final class ExclusiveQueues: Chore {
    private let peer: Peer

    /// A queue has a name, a record in the log, and places in several lists.
    private static let stepsPerQueue = 8

    init(_ peer: Peer) { self.peer = peer }

    func advance(_ steps: inout Int) -> Bool {
      while steps > 0, let queue = peer.exclusiveQueues.last {
        peer.vhost.remove(queue)
        steps -= Self.stepsPerQueue
      }
      return peer.exclusiveQueues.isEmpty
    }
  }
}
