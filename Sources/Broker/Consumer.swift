import AMQP
import Base

/// A subscription of a channel to a queue.
public final class Consumer {
  public let tag: Name
  /// The tag with its length in front, as frames have it; lives as long as the consumer.
  public let tagBytes: UnsafeRawBufferPointer
  /// When deliveries are settled.
  let settling: Settling
  public let isExclusive: Bool
  /// Higher ones are served first, lower ones only while those cannot take more.
  let priority: Int64
  /// How long deliveries may stay unacknowledged; nil for as long as the client likes.
  let lockTime: LockTime?
  let arguments: FieldTable

  // Unsafe but sound: the channel keeps its consumers; a queue keeps those in its rounds from
  // outliving it (`Queue.endConsumer`), and is not asked once `place` is `.nowhere`.
  unowned(unsafe) let channel: Channel
  unowned(unsafe) let queue: Queue

  /// Most unacknowledged deliveries; 0 is no limit.
  let prefetch: Int
  /// Unacknowledged deliveries of this consumer.
  var unacknowledged = 0
  /// One of its deliveries was not acknowledged in time: all of them go back.
  var isTimedOut = false
  /// Cancelled, and kept only until its deliveries are acknowledged.
  var isCancelled = false

  /// Where its queue has it.
  var place = Place.nowhere
  // Unsafe but sound: `ConsumerRounds.remove` takes a consumer out of ring and line before it goes.
  unowned(unsafe) var next: Consumer?
  unowned(unsafe) var previous: Consumer?
  /// Where it waits with others, until it gets a message; nil if it waits for its own deliveries.
  unowned(unsafe) var line: ConsumerLine?
  /// When it began to wait, as a number that grows; means something while there is a line.
  private(set) var waitsSince: UInt64 = 0
  unowned(unsafe) var nextInLine: Consumer?
  unowned(unsafe) var previousInLine: Consumer?

  enum Settling: UInt8 {
    /// They count as acknowledged.
    case atOnce
    /// When the client says so.
    case byClient
    /// The same, or they go back: see `lockTime`.
    case byClientInTime
  }

  enum Place: UInt8 {
    case nowhere
    /// Among those that may be able to take a message.
    case ring
    case parked
    /// Another one is served until it goes.
    case standby
  }

  init(
    tag: Name, channel: Channel, queue: Queue, isAutomatic: Bool, isExclusive: Bool,
    priority: Int64, lockTime: LockTime? = nil, arguments: FieldTable, prefetch: Int
  ) {
    self.tag = tag
    self.channel = channel
    self.queue = queue
    settling = isAutomatic ? .atOnce : lockTime == nil ? .byClient : .byClientInTime
    self.lockTime = lockTime
    self.isExclusive = isExclusive
    self.priority = priority
    self.arguments = arguments
    self.prefetch = prefetch
    let bytes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: tag.bytes.count + 1, alignment: 1)
    bytes[0] = UInt8(tag.bytes.count)
    UnsafeMutableRawBufferPointer(rebasing: bytes[1...]).copyBytes(from: tag.bytes)
    tagBytes = UnsafeRawBufferPointer(bytes)
  }

  deinit {
    tagBytes.deallocate()
  }

  /// Deliveries count as acknowledged at once.
  public var isAutomatic: Bool { settling == .atOnce }

  /// About what it takes of memory, with its places in tables. Measured with 50,000 of them.
  var memoryBytes: Int { MemoryAccount.bytes(400, tag, arguments) }

  /// Can take one more delivery now.
  @inline(__always) var isReady: Bool {
    guard channel.peer.hasRoom, channel.isFlowing else { return false }
    if isAutomatic { return true }
    return (prefetch == 0 || unacknowledged < prefetch) && channel.hasCredit
  }

  /// Its own deliveries hold it back.
  private var isFull: Bool { !isAutomatic && prefetch != 0 && unacknowledged >= prefetch }

  /// It cannot take a message for want of what it shares with others.
  var waitsWithOthers: Bool { !isReady && !isFull }

  /// Waits for what it lacks to take a message.
  func joinLine() {
    if isFull {
      leaveLine()
    } else if !channel.isFlowing {
      join(channel.flowLine)
    } else if !isAutomatic, !channel.hasCredit {
      join(channel.creditLine)
    } else {
      join(channel.peer.line)
    }
  }

  private func join(_ other: ConsumerLine) {
    guard line !== other else { return }
    // Who waits for one thing and then for another has not been served since.
    if line == nil { waitsSince = channel.broker.nextWait() }
    leaveLine()
    other.add(self)
  }

  @inline(never)
  func leaveLine() {
    line?.remove(self)
  }
}
