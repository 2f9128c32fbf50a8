import AMQP
import Base
import Journal

/// What stands several times in a record, with fields of fixed size; `Specs/Tables/records.txt` has all.
package protocol RecordItem: BitwiseCopyable {
  static var size: Int { get }
  init(at place: UnsafeRawPointer)
  var text: String { get }
}

/// A list in a record; its length was looked at before, and the record must stay while it is used.
package struct RecordList<Item: RecordItem>: RandomAccessCollection {
  private let base: UnsafeRawPointer
  package let count: Int

  init(_ base: UnsafeRawPointer, count: Int) {
    self.base = base
    self.count = count
  }

  package var startIndex: Int { 0 }
  package var endIndex: Int { count }

  @inline(__always)
  package subscript(index: Int) -> Item { Item(at: base + index &* Item.size) }

  /// The items, with `words` before them; nothing if there are none.
  func text(behind words: String) -> String {
    isEmpty ? "" : words + map { " " + $0.text }.joined()
  }
}

extension SequenceRange {
  package init(_ range: ClosedRange<UInt64>) {
    self.init(first: range.lowerBound, count: range.upperBound - range.lowerBound + 1)
  }

  package var text: String { count == 1 ? "\(first)" : "\(first)-\(first &+ count &- 1)" }
}

extension MessagePlace {
  package var text: String { "\(lane)#\(sequence)" }
}

extension PayloadWalk {
  /// The table that comes next, which is the last field.
  mutating func fieldTable() throws(MalformedInput) -> FieldTable {
    var reader = ByteReader(record.bytes(at: offset, record.size - offset).bytes)
    let table = try reader.fieldTable()
    try skip(reader.offset)
    return table
  }
}

extension FieldTable {
  /// As on the wire, with its length.
  package var encoded: [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(self)
    return Array(buffer.readable)
  }
}

extension SegmentState {
  package var text: String { "\(base)-\(end &- 1) in \(length) bytes" }
}
