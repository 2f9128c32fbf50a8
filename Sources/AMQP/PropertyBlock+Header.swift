import Base

extension ByteBuffer {
  /// Appends a block of properties as it is, but with one more header, in place of those of the same name.
  /// Returns false, and has appended nothing, if there are as many headers as there can be, or the table
  /// of headers is none.
  public mutating func append(
    properties: RawSpan, settingHeader name: Name, to value: Int64
  ) -> Bool {
    let before = count
    do throws(MalformedInput) {
      try appendChecked(properties, name, value)
      return true
    } catch {
      removeLast(count - before)
      return false
    }
  }

  private mutating func appendChecked(
    _ properties: RawSpan, _ name: Name, _ value: Int64
  ) throws(MalformedInput) {
    let block = try PropertyBlock(properties)
    append(block.flags.union(.headers).rawValue)
    guard block.flags.contains(.headers) else {
      let place = try Self.headersPlace(properties, block.flags)
      append(properties.extracting(2..<place))
      append(UInt32(Self.entrySize(name)))
      append(name, value)
      append(properties.extracting(place..<properties.byteCount))
      return
    }
    append(properties.extracting(2..<block.headers.lowerBound))
    append(UInt32(0))
    let start = count
    try append(properties.extracting(block.headers), without: name)
    append(name, value)
    patch(UInt32(count - start), fromEnd: count - start + 4)
    append(properties.extracting(block.headers.upperBound..<properties.byteCount))
  }

  /// The entries of a table, which begins with its length.
  private mutating func append(_ table: RawSpan, without name: Name) throws(MalformedInput) {
    var cursor = try FieldTableCursor(table)
    while try cursor.next() {
      if Name(copying: table.extracting(cursor.name)) == name { continue }
      append(table.extracting(cursor.name.lowerBound - 1..<cursor.value.upperBound))
    }
    guard !cursor.isFull else { throw FieldTable.tooManyValues }
  }

  private static func entrySize(_ name: Name) -> Int { 1 + name.bytes.count + 1 + 8 }

  private mutating func append(_ name: Name, _ value: Int64) {
    append(name)
    append(UInt8(ascii: "l"))
    append(UInt64(bitPattern: value))
  }

  /// Where the headers would stand in a block that has none.
  private static func headersPlace(
    _ properties: RawSpan, _ flags: PropertyFlags
  ) throws(MalformedInput) -> Int {
    var reader = ByteReader(properties)
    _ = try reader.u16()
    for flag in [PropertyFlags.contentType, .contentEncoding] where flags.contains(flag) {
      _ = try reader.name()
    }
    return reader.offset
  }
}
