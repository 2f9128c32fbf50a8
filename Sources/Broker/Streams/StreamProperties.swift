import AMQP
import Base

/// The properties of records with what clients are to know of them among their headers.
struct StreamProperties: ~Copyable {
  private static let offsetHeader: Name = "x-stream-offset"
  private static let partitionHeader: Name = "x-stream-partition"
  private static let skippedHeader: Name = "x-stream-skipped"
  private var buffer = ByteBuffer()
  private var spare = ByteBuffer()

  /// Valid until the next call. The properties as they are if they can have no more headers.
  mutating func of(
    _ properties: UnsafeRawBufferPointer, offset: UInt64, partition: Int?, skipped: UInt64
  ) -> UnsafeRawBufferPointer {
    buffer.removeAll()
    guard
      buffer.append(
        properties: properties.bytes, settingHeader: Self.offsetHeader, to: Int64(offset))
    else { return properties }
    if let partition { add(Self.partitionHeader, Int64(partition)) }
    if skipped > 0 { add(Self.skippedHeader, Int64(clamping: skipped)) }
    return buffer.readable
  }

  private mutating func add(_ header: Name, _ value: Int64) {
    spare.removeAll()
    guard spare.append(properties: buffer.readable.bytes, settingHeader: header, to: value) else {
      return
    }
    swap(&buffer, &spare)
  }
}
