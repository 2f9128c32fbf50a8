import AMQP
import Base
import Journal

/// A message's place in a lane: 16 bytes, without an object. The message itself is in a journal
/// block, which counts its entries.
package struct Entry: BitwiseCopyable {
  /// The sequence in the upper 56 bits, the flags in the lower 8.
  private(set) var packed: UInt64
  /// Changes when the message moves into a lane file.
  package internal(set) var location: RecordLocation

  package struct Flags: OptionSet, BitwiseCopyable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The message is in the log, and leaving the queue must be written there.
    package static let durable = Flags(rawValue: 1)
    /// A client may have seen it.
    static let redelivered = Flags(rawValue: 2)
    /// The bytes of its body are in its queue's `readyBytes` while it is ready.
    static let counted = Flags(rawValue: 8)
    /// It has a time of its own, or its queue gives it one, and is looked at before it is delivered.
    static let expires = Flags(rawValue: 16)
    /// It was given back: its lane knows how often (`DeliveryCounts`).
    static let cameBack = Flags(rawValue: 32)
    /// It says itself where it goes as a dead letter.
    static let namesTarget = Flags(rawValue: 64)
    /// It is a record of a stream, which its consumer reads.
    static let ofStream = Flags(rawValue: 128)
    /// It has left the queue; only recovery keeps such entries for a while.
    static let settled = Flags(rawValue: 4)
  }

  @inline(__always)
  package init(sequence: UInt64, location: RecordLocation, flags: Flags) {
    packed = sequence << 8 | UInt64(flags.rawValue)
    self.location = location
  }

  /// A message of a lane file.
  @inline(__always)
  init(_ entry: LaneEntry) {
    packed = entry.packed
    location = entry.location
  }

  var inLane: LaneEntry { LaneEntry(packed: packed, location: location) }

  /// Counts up in each lane and is never used again; the lane's order.
  @inline(__always) package var sequence: UInt64 { packed >> 8 }
  @inline(__always) var flags: Flags {
    get { Flags(rawValue: UInt8(truncatingIfNeeded: packed)) }
    set { packed = packed & ~0xFF | UInt64(newValue.rawValue) }
  }

  @inline(__always) var isDurable: Bool { flags.contains(.durable) }
  @inline(__always) var isRedelivered: Bool { flags.contains(.redelivered) }
  @inline(__always) var isCounted: Bool { flags.contains(.counted) }
  @inline(__always) var expires: Bool { packed & UInt64(Flags.expires.rawValue) != 0 }
  @inline(__always) var cameBack: Bool { packed & UInt64(Flags.cameBack.rawValue) != 0 }
  /// It is delivered with other properties than it was stored with.
  @inline(__always) var hasMoreProperties: Bool {
    packed & UInt64(Flags.cameBack.rawValue | Flags.ofStream.rawValue) != 0
  }
  var isOfStream: Bool { flags.contains(.ofStream) }
  var namesTarget: Bool { flags.contains(.namesTarget) }
  var isSettled: Bool { flags.contains(.settled) }
}

/// A message in a journal block; `Specs/Journal.md`, record 16, has the picture. Valid only while
/// its entry is in a queue or unacknowledged, and until the turn's end.
public struct MessageView {
  let record: UnsafeRawPointer
  /// The block that the record is in, for messages that are given to clients.
  public let block: UInt32

  @inline(__always)
  init(_ record: UnsafeRawPointer, in block: UInt32 = .max) {
    self.record = record
    self.block = block
  }

  /// How many durable queues the record names at its end.
  var destinationCount: Int {
    Int(record.load(fromByteOffset: MessageRecord.destinationCountOffset, as: UInt32.self))
  }

  /// When it was stored, in wall-clock milliseconds.
  var storedAt: Int64 {
    Int64(waitingID & Self.dateMask)
  }

  private static let dateMask: UInt64 = (1 << 48) - 1

  /// What tells a message that waits for its time from others: when it was stored, and a number.
  var waitingID: UInt64 {
    record.load(fromByteOffset: MessageRecord.storedAtOffset, as: UInt64.self)
  }

  /// It came with an expiration.
  var hasExpiration: Bool {
    let properties = properties(behind: names)
    return properties.count >= 2 && properties[0] & 1 != 0
  }

  /// When it expires, by the property that it came with, in wall-clock milliseconds; else
  /// `LaneBlock.neverExpires`. The property was looked at when it was published.
  var expiry: UInt64 {
    let properties = properties(behind: names)
    guard let life = Self.life(in: properties.bytes) else { return LaneBlock.neverExpires }
    let (sum, isTooLarge) = UInt64(clamping: storedAt).addingReportingOverflow(UInt64(life))
    return isTooLarge ? LaneBlock.neverExpires : sum
  }

  /// Bytes of the body.
  var bodySize: Int { Int(record.load(fromByteOffset: 12, as: UInt32.self)) }

  /// Exchange and routing key as they are on the wire: each with its length in front.
  @inline(__always)
  public var names: UnsafeRawBufferPointer {
    let exchange = Int(record.load(fromByteOffset: MessageRecord.restOffset, as: UInt8.self))
    let key = Int(
      record.load(fromByteOffset: MessageRecord.restOffset + 1 + exchange, as: UInt8.self))
    return UnsafeRawBufferPointer(
      start: record + MessageRecord.restOffset, count: exchange + key + 2)
  }

  /// The property flags and the values behind them, as they came.
  @inline(__always)
  public func properties(behind names: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let size = Int(record.load(fromByteOffset: MessageRecord.propertiesSizeOffset, as: UInt32.self))
    return UnsafeRawBufferPointer(
      start: names.baseAddress.unsafelyUnwrapped + names.count, count: size)
  }

  @inline(__always)
  public func body(behind properties: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let size = Int(record.load(fromByteOffset: 12, as: UInt32.self))
    return UnsafeRawBufferPointer(
      start: properties.baseAddress.unsafelyUnwrapped + properties.count, count: size)
  }
}
