import Base

/// Reads a table entry by entry and copies nothing: for tables of which little matters.
public struct FieldTableCursor: ~Escapable {
  private var reader: ByteReader
  private let end: Int
  private var valuesLeft = FieldTable.valuesMax
  /// Where the entry's name is, in the bytes from the table's length on.
  public private(set) var name = 0..<0
  /// Where its value is, with its type letter.
  public private(set) var value = 0..<0
  /// A table with one value more than what was come to would have too many.
  var isFull: Bool { valuesLeft == 0 }

  /// `bytes` begin with the table's length.
  @_lifetime(copy bytes)
  public init(_ bytes: RawSpan) throws(MalformedInput) {
    reader = ByteReader(bytes)
    let size = Int(try reader.u32())
    guard size <= reader.remaining else { throw .truncated }
    end = reader.offset + size
  }

  /// Goes to the next entry, which is checked as if it was read; false at the table's end.
  @_lifetime(self: copy self)
  public mutating func next() throws(MalformedInput) -> Bool {
    guard reader.offset < end else {
      guard reader.offset == end else {
        throw .invalid("a table's value reaches over the table's end")
      }
      return false
    }
    let size = Int(try reader.u8())
    let start = try reader.take(size)
    name = start..<start + size
    let place = reader.offset
    try reader.skipFieldValue(depth: 1, &valuesLeft)
    value = place..<reader.offset
    return true
  }
}

extension ByteReader {
  @_lifetime(self: copy self)
  fileprivate mutating func skipFieldValue(
    depth: Int, _ valuesLeft: inout Int
  ) throws(MalformedInput) {
    valuesLeft -= 1
    guard valuesLeft >= 0 else { throw FieldTable.tooManyValues }
    let letter = try u8()
    switch letter {
    case UInt8(ascii: "t"), UInt8(ascii: "b"), UInt8(ascii: "B"): _ = try take(1)
    case UInt8(ascii: "s"), UInt8(ascii: "U"), UInt8(ascii: "u"): _ = try take(2)
    case UInt8(ascii: "I"), UInt8(ascii: "i"), UInt8(ascii: "f"): _ = try take(4)
    case UInt8(ascii: "l"), UInt8(ascii: "L"), UInt8(ascii: "d"), UInt8(ascii: "T"):
      _ = try take(8)
    case UInt8(ascii: "D"): _ = try take(5)
    case UInt8(ascii: "S"), UInt8(ascii: "x"):
      let size = Int(try u32())
      _ = try take(size)
    case UInt8(ascii: "A"), UInt8(ascii: "F"):
      try skipInner(depth: depth + 1, &valuesLeft, isTable: letter == UInt8(ascii: "F"))
    case UInt8(ascii: "V"): break
    default: throw .invalid("unknown type \(letter) in a table")
    }
  }

  @_lifetime(self: copy self)
  private mutating func skipInner(
    depth: Int, _ valuesLeft: inout Int, isTable: Bool
  ) throws(MalformedInput) {
    guard depth <= FieldTable.depthMax else { throw FieldTable.tooDeep }
    let size = Int(try u32())
    guard size <= remaining else { throw .truncated }
    let end = offset + size
    while offset < end {
      if isTable {
        let count = Int(try u8())
        _ = try take(count)
      }
      try skipFieldValue(depth: depth, &valuesLeft)
    }
    guard offset == end else {
      let kind =
        isTable
        ? "a table's value reaches over the table's" : "an array's value reaches over the array's"
      throw .invalid("\(kind) end")
    }
  }
}
