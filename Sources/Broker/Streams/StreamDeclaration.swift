import AMQP
import Base
import Journal

/// What tools need to know of a stream that a journal declares.
package struct StreamDeclaration {
  package let partitionCount: Int
  package let segmentBytesMax: Int
  /// How its messages stand in segments.
  package let form: any PartitionForm

  /// Of the arguments of a queue's declaration; nil if it is no stream.
  package init?(_ arguments: FieldTable) {
    guard arguments["x-queue-type"]?.text == "stream" else { return nil }
    let settings = StreamSettings(arguments)
    partitionCount = settings.partitionCount
    segmentBytesMax = settings.segmentBytesMax
    form = StreamForm(key: settings.key)
  }

  /// Arguments for one of which the declaration is lost.
  package static func arguments(partitionCount: Int) -> FieldTable {
    [
      "x-queue-type": .string("stream"),
      "x-stream-partitions": .int32(Int32(clamping: partitionCount)),
    ]
  }
}

extension PartitionSegment {
  /// As a checkpoint says it.
  package init(_ state: SegmentState) {
    self.init(
      base: state.base, end: state.end, bytes: Int(clamping: state.length),
      batchCount: Int(clamping: state.batches), timeMax: Int64(bitPattern: state.latest))
  }

  package var state: SegmentState {
    SegmentState(
      base: base, end: end, length: UInt64(bytes), batches: UInt64(batchCount),
      latest: UInt64(bitPattern: timeMax))
  }
}
