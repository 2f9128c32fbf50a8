import AMQP
import Base

/// A subscription of a channel to a queue.
public final class Consumer {
  public let tag: Name
  /// The tag with its length in front, as frames have it; lives as long as the consumer.
  public let tagBytes: UnsafeRawBufferPointer
  /// Deliveries count as acknowledged at once.
  public let isAutomatic: Bool
  public let isExclusive: Bool
  /// Higher ones are served first, lower ones only while those cannot take more.
  let priority: Int64
  let arguments: FieldTable

  unowned(unsafe) let channel: Channel
  unowned(unsafe) let queue: Queue

  /// Most unacknowledged deliveries; 0 is no limit.
  let prefetch: Int
  /// Unacknowledged deliveries of this consumer.
  var unacknowledged = 0
  /// Cancelled, and kept only until its deliveries are acknowledged.
  var isCancelled = false

  init(
    tag: Name, channel: Channel, queue: Queue, isAutomatic: Bool, isExclusive: Bool,
    priority: Int64, arguments: FieldTable, prefetch: Int
  ) {
    self.tag = tag
    self.channel = channel
    self.queue = queue
    self.isAutomatic = isAutomatic
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

  /// Can take one more delivery now.
  @inline(__always) var isReady: Bool {
    guard channel.peer.hasRoom, channel.isFlowing else { return false }
    if isAutomatic { return true }
    return (prefetch == 0 || unacknowledged < prefetch) && channel.hasCredit
  }
}
