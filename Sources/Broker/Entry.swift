import Base
import Journal

/// A message's place in a queue: small, of fixed size, without an object. The message itself is in
/// a journal block, which counts its entries.
struct Entry: BitwiseCopyable {
  /// Counts up in each queue and is never used again; the queue's order.
  var sequence: UInt64
  var location: RecordLocation
  var bodySize: UInt32
  var flags: Flags

  struct Flags: OptionSet, BitwiseCopyable {
    let rawValue: UInt8

    /// The message is in the log, and leaving the queue must be written there.
    static let durable = Flags(rawValue: 1)
    /// A client may have seen it.
    static let redelivered = Flags(rawValue: 2)
  }

  @inline(__always) var isDurable: Bool { flags.contains(.durable) }
  @inline(__always) var isRedelivered: Bool { flags.contains(.redelivered) }
}

/// A message in a journal block; `Specs/Journal.md`, record 16, has the picture. Valid only while
/// its entry is in a queue or unacknowledged, and until the turn's end.
public struct MessageView {
  let record: UnsafeRawPointer

  static let kind = Record.brokerKinds
  static let propertiesSizeOffset = 16
  static let destinationsOffset = 20
  static let namesOffset = 32
  static let destinationSize = 12

  @inline(__always)
  init(_ record: UnsafeRawPointer) {
    self.record = record
  }

  /// How many durable queues the record names at its end.
  var destinationCount: Int {
    Int(record.load(fromByteOffset: Self.destinationsOffset, as: UInt32.self))
  }

  /// Exchange and routing key as they are on the wire: each with its length in front.
  @inline(__always)
  public var names: UnsafeRawBufferPointer {
    let exchange = Int(record.load(fromByteOffset: Self.namesOffset, as: UInt8.self))
    let key = Int(
      record.load(fromByteOffset: Self.namesOffset + 1 + exchange, as: UInt8.self))
    return UnsafeRawBufferPointer(start: record + Self.namesOffset, count: exchange + key + 2)
  }

  /// The property flags and the values behind them, as they came.
  @inline(__always)
  public func properties(behind names: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let size = Int(record.load(fromByteOffset: Self.propertiesSizeOffset, as: UInt32.self))
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
