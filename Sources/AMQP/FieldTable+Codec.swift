import Base

// A table is a length in bytes (u32) and entries: name (u8 length and bytes), type letter, value.
// An array is a length in bytes (u32) and values: type letter, value.

extension ByteReader {
  /// Reads a table with its length.
  @_lifetime(self: copy self)
  public mutating func fieldTable() throws(MalformedInput) -> FieldTable {
    var valuesLeft = FieldTable.valuesMax
    return try fieldTable(depth: 1, &valuesLeft)
  }

  @_lifetime(self: copy self)
  private mutating func fieldTable(
    depth: Int, _ valuesLeft: inout Int
  ) throws(MalformedInput) -> FieldTable {
    let size = Int(try u32())
    guard size <= remaining else { throw .truncated }
    let end = offset + size
    return FieldTable(try tableEntries(until: end, depth: depth, &valuesLeft))
  }

  /// Reads entries up to the reader's end: AMQPLAIN's response has them without a length.
  @_lifetime(self: copy self)
  public mutating func bareFieldTable() throws(MalformedInput) -> FieldTable {
    let end = offset + remaining
    var valuesLeft = FieldTable.valuesMax
    return FieldTable(try tableEntries(until: end, depth: 1, &valuesLeft))
  }

  /// Reads one value with its type letter.
  @_lifetime(self: copy self)
  public mutating func fieldValue() throws(MalformedInput) -> FieldValue {
    var valuesLeft = FieldTable.valuesMax
    return try fieldValue(depth: 1, &valuesLeft)
  }

  @_lifetime(self: copy self)
  private mutating func tableEntries(
    until end: Int, depth: Int, _ valuesLeft: inout Int
  ) throws(MalformedInput) -> [FieldTable.Entry] {
    guard depth <= FieldTable.depthMax else { throw FieldTable.tooDeep }
    var entries: [FieldTable.Entry] = []
    while offset < end {
      let name = try name()
      let value = try fieldValue(depth: depth, &valuesLeft)
      entries.append(FieldTable.Entry(name: name, value: value))
    }
    guard offset == end else { throw .invalid("a table's value reaches over the table's end") }
    return entries
  }

  @_lifetime(self: copy self)
  private mutating func fieldArray(
    depth: Int, _ valuesLeft: inout Int
  ) throws(MalformedInput) -> [FieldValue] {
    guard depth <= FieldTable.depthMax else { throw FieldTable.tooDeep }
    let size = Int(try u32())
    guard size <= remaining else { throw .truncated }
    let end = offset + size
    var values: [FieldValue] = []
    while offset < end { values.append(try fieldValue(depth: depth, &valuesLeft)) }
    guard offset == end else { throw .invalid("an array's value reaches over the array's end") }
    return values
  }

  @_lifetime(self: copy self)
  private mutating func fieldValue(
    depth: Int, _ valuesLeft: inout Int
  ) throws(MalformedInput) -> FieldValue {
    valuesLeft -= 1
    guard valuesLeft >= 0 else { throw FieldTable.tooManyValues }
    let letter = try u8()
    switch letter {
    case UInt8(ascii: "t"): return .bool(try u8() != 0)
    case UInt8(ascii: "b"): return .int8(Int8(bitPattern: try u8()))
    case UInt8(ascii: "B"): return .uint8(try u8())
    case UInt8(ascii: "s"), UInt8(ascii: "U"): return .int16(Int16(bitPattern: try u16()))
    case UInt8(ascii: "u"): return .uint16(try u16())
    case UInt8(ascii: "I"): return .int32(Int32(bitPattern: try u32()))
    case UInt8(ascii: "i"): return .uint32(try u32())
    case UInt8(ascii: "l"), UInt8(ascii: "L"): return .int64(Int64(bitPattern: try u64()))
    case UInt8(ascii: "f"): return .float(Float(bitPattern: try u32()))
    case UInt8(ascii: "d"): return .double(Double(bitPattern: try u64()))
    case UInt8(ascii: "D"):
      let scale = try u8()
      return .decimal(scale: scale, value: try u32())
    case UInt8(ascii: "S"): return .string(try longBytes())
    case UInt8(ascii: "x"): return .bytes(try longBytes())
    case UInt8(ascii: "T"): return .timestamp(try u64())
    case UInt8(ascii: "A"): return .array(try fieldArray(depth: depth + 1, &valuesLeft))
    case UInt8(ascii: "F"): return .table(try fieldTable(depth: depth + 1, &valuesLeft))
    case UInt8(ascii: "V"): return .void
    default: throw .invalid("unknown type \(letter) in a table")
    }
  }
}

extension ByteBuffer {
  /// Writes a table with its length.
  public mutating func append(_ table: FieldTable) {
    append(UInt32(0))
    let start = count
    for entry in table.entries {
      append(entry.name)
      append(entry.value)
    }
    patch(UInt32(count - start), fromEnd: count - start + 4)
  }

  private mutating func append(_ value: FieldValue) {
    switch value {
    case .void: append(UInt8(ascii: "V"))
    case .bool(let flag): append(letter: "t", UInt8(flag ? 1 : 0))
    case .int8(let number): append(letter: "b", UInt8(bitPattern: number))
    case .uint8(let number): append(letter: "B", number)
    case .int16(let number): append(letter: "s", UInt16(bitPattern: number))
    case .uint16(let number): append(letter: "u", number)
    case .int32(let number): append(letter: "I", UInt32(bitPattern: number))
    case .uint32(let number): append(letter: "i", number)
    case .int64(let number): append(letter: "l", UInt64(bitPattern: number))
    case .float(let number): append(letter: "f", number.bitPattern)
    case .double(let number): append(letter: "d", number.bitPattern)
    case .decimal(let scale, let number):
      append(letter: "D", scale)
      append(number)
    case .string(let bytes):
      append(UInt8(ascii: "S"))
      appendLong(bytes)
    case .bytes(let bytes):
      append(UInt8(ascii: "x"))
      appendLong(bytes)
    case .timestamp(let seconds): append(letter: "T", seconds)
    case .array(let values): append(values)
    case .table(let table):
      append(UInt8(ascii: "F"))
      append(table)
    }
  }

  private mutating func append(_ values: [FieldValue]) {
    append(UInt8(ascii: "A"))
    append(UInt32(0))
    let start = count
    for value in values { append(value) }
    patch(UInt32(count - start), fromEnd: count - start + 4)
  }

  private mutating func append(letter: Unicode.Scalar, _ value: UInt8) {
    append(UInt8(ascii: letter))
    append(value)
  }

  private mutating func append(letter: Unicode.Scalar, _ value: UInt16) {
    append(UInt8(ascii: letter))
    append(value)
  }

  private mutating func append(letter: Unicode.Scalar, _ value: UInt32) {
    append(UInt8(ascii: letter))
    append(value)
  }

  private mutating func append(letter: Unicode.Scalar, _ value: UInt64) {
    append(UInt8(ascii: letter))
    append(value)
  }
}
