import AMQP
import Arbitrary
import Base
import Testing

@Suite struct FieldTableTests {
  private static let everyType: FieldTable = [
    "void": .void, "bool": .bool(true), "int8": .int8(-1), "uint8": .uint8(255),
    "int16": .int16(.min), "uint16": .uint16(.max), "int32": .int32(.min),
    "uint32": .uint32(.max), "int64": .int64(.min), "float": .float(-0.5),
    "double": .double(.greatestFiniteMagnitude), "decimal": .decimal(scale: 2, value: 314),
    "string": .string("text"), "bytes": .bytes([0, 255]), "timestamp": .timestamp(.max),
    "array": .array([.void, .array([]), .table([:]), .string("")]),
    "table": .table(["a": .table(["b": .array([.bool(false)])])]),
  ]

  // MARK: Round trips

  @Test func everyTypeRoundTrips() throws {
    let bytes = Self.encoded(Self.everyType)
    #expect(try Self.decoded(bytes) == Self.everyType)
    #expect(try Self.encoded(Self.decoded(bytes)) == bytes)
  }

  @Test(arguments: Seed.some(100))
  func randomTablesRoundTrip(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let table = random.fieldTable(depth: 5)
    let bytes = Self.encoded(table)
    #expect(try Self.decoded(bytes) == table)
  }

  @Test(
    arguments: [
      ("t", [1], .bool(true)), ("t", [7], .bool(true)), ("t", [0], .bool(false)),
      ("b", [0xFE], .int8(-2)), ("B", [0xFE], .uint8(254)), ("s", [0xFF, 0xFE], .int16(-2)),
      ("U", [0xFF, 0xFE], .int16(-2)), ("u", [0xFF, 0xFE], .uint16(65_534)),
      ("I", [0xFF, 0xFF, 0xFF, 0xFE], .int32(-2)), ("i", [0, 0, 1, 0], .uint32(256)),
      ("l", [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE], .int64(-2)),
      ("L", [0, 0, 0, 0, 0, 0, 1, 0], .int64(256)), ("f", [0x3F, 0x80, 0, 0], .float(1)),
      ("d", [0x3F, 0xF0, 0, 0, 0, 0, 0, 0], .double(1)),
      ("D", [2, 0, 0, 1, 0x3A], .decimal(scale: 2, value: 314)),
      ("S", [0, 0, 0, 2, 0x68, 0x69], .string("hi")), ("x", [0, 0, 0, 1, 0], .bytes([0])),
      ("T", [0, 0, 0, 0, 0x65, 0, 0, 0], .timestamp(0x6500_0000)), ("V", [], .void),
      ("A", [0, 0, 0, 1, 0x56], .array([.void])),
      ("F", [0, 0, 0, 3, 1, 0x61, 0x56], .table(["a": .void])),
    ] as [(Unicode.Scalar, [UInt8], FieldValue)])
  func lettersMeanWhatTheErrataSay(letter: Unicode.Scalar, value: [UInt8], expected: FieldValue)
    throws
  {
    #expect(try Self.decoded(Self.table(["k": [UInt8(ascii: letter)] + value])) == ["k": expected])
  }

  @Test func numbersThatAreNoneKeepTheirBits() throws {
    let bytes = Self.table(["k": [UInt8(ascii: "d"), 0x7F, 0xF8, 0, 0, 0, 0, 0x12, 0x34]])
    #expect(try Self.encoded(Self.decoded(bytes)) == bytes)
  }

  @Test func aNameThatStandsTwiceCountsOnceAndKeepsItsPlace() throws {
    let table = FieldTable([
      FieldTable.Entry(name: "a", value: .int8(1)), FieldTable.Entry(name: "b", value: .int8(2)),
      FieldTable.Entry(name: "a", value: .int8(3)),
    ])
    #expect(table["a"] == .int8(1))
    #expect(table["c"] == nil)
    #expect(try Self.decoded(Self.encoded(table)) == table)
  }

  @Test func whatStandsBehindATableIsNotRead() throws {
    let bytes = Self.encoded(["a": .void]) + [1, 2, 3]
    var reader = ByteReader(bytes.span.bytes)
    _ = try reader.fieldTable()
    let remaining = reader.remaining
    #expect(remaining == 3)
  }

  @Test func integersAreComparedWhateverTheirWidth() {
    let values: [FieldValue] = [
      .int8(7), .uint8(7), .int16(7), .uint16(7), .int32(7), .uint32(7), .int64(7),
    ]
    #expect(values.allSatisfy { $0.integer == 7 })
    #expect(FieldValue.string("7").integer == nil)
    #expect(FieldValue.timestamp(7).integer == nil)
  }

  // MARK: Errors

  @Test func everyTruncationIsAnError() {
    let bytes = Self.encoded(Self.everyType)
    for count in 0..<bytes.count {
      #expect(throws: MalformedInput.truncated, "\(count) bytes") {
        try Self.decoded(Array(bytes[..<count]))
      }
    }
  }

  /// The same, but every table that contains the cut says that it ends there.
  @Test func everyShorterTableIsAnErrorUnlessAnEntryEndsThere() throws {
    let bytes = Self.encoded(Self.everyType)
    var ends: Set<Int> = [4]
    var size = 4
    for entry in Self.everyType.entries {
      size += Self.encoded(FieldTable([entry])).count - 4
      ends.insert(size)
    }
    for count in 4..<bytes.count {
      var short = Array(bytes[..<count])
      short.replaceSubrange(0..<4, with: Self.size(count - 4))
      let isWhole = (try? Self.decoded(short)) != nil
      #expect(isWhole == ends.contains(count), "\(count) bytes")
    }
  }

  @Test func aValueMayNotReachOverItsTablesEnd() {
    let long = Self.size(5) + [1, 0x61, 0x49, 0, 0] + [0, 1, 2, 3, 4]
    Self.expect("a table's value reaches over the table's end", long)
    let string = Self.size(8) + [1, 0x61, 0x53, 0, 0, 0, 2, 0x68] + [0x69, 0]
    Self.expect("a table's value reaches over the table's end", string)
    let name = Self.size(2) + [5, 0x61] + [0x62, 0x63, 0x64, 0x65, 0x56]
    Self.expect("a table's value reaches over the table's end", name)
  }

  @Test func aValueMayNotReachOverItsArraysEnd() {
    let array: [UInt8] = [0x41] + Self.size(3) + [0x49, 0, 0]
    Self.expect("an array's value reaches over the array's end", Self.table(["k": array + [0, 1]]))
  }

  @Test func aTableWithinMayNotReachOverTheOneAround() {
    // The inner table claims seven bytes, of which the outer one has three.
    let inner: [UInt8] = [0x46] + Self.size(7) + [1, 0x61, 0x56]
    let outer = Self.table(["k": inner])
    Self.expect("a table's value reaches over the table's end", outer + [2, 0x62, 0x63, 0x56])
    #expect(throws: MalformedInput.truncated) { try Self.decoded(outer) }
  }

  @Test func typesThatAreUnknownAreErrors() {
    let known = Set("tbBsUuIilLfdDSxTAFV".utf8)
    for letter in UInt8.min...UInt8.max where !known.contains(letter) {
      let value = [letter] + [UInt8](repeating: 0, count: 16)
      Self.expect("unknown type \(letter) in a table", Self.table(["k": value]))
    }
  }

  @Test func tablesAreNestedUpToTheLimit() throws {
    let deepest = Self.nested(FieldTable.depthMax, inTables: { _ in true })
    #expect(try Self.encoded(Self.decoded(deepest)) == deepest)
    let deeper = Self.nested(FieldTable.depthMax + 1, inTables: { _ in true })
    Self.expect("tables are nested deeper than 64", deeper)
    Self.expect("tables are nested deeper than 64", Self.nested(20_000, inTables: { _ in true }))
  }

  @Test func arraysCountAsTablesDo() throws {
    let deepest = Self.nested(FieldTable.depthMax, inTables: { _ in false })
    #expect(try Self.encoded(Self.decoded(deepest)) == deepest)
    for inTables in [{ _ in false }, { $0 % 2 == 0 }] as [(Int) -> Bool] {
      Self.expect(
        "tables are nested deeper than 64", Self.nested(FieldTable.depthMax + 1, inTables: inTables)
      )
      Self.expect("tables are nested deeper than 64", Self.nested(20_000, inTables: inTables))
    }
  }

  @Test func valuesAreCountedWithThoseWithin() throws {
    func numbers(_ count: Int) -> FieldValue { .array(Array(repeating: .int8(1), count: count)) }
    let limit = FieldTable.valuesMax
    let most: FieldTable = ["a": numbers(limit - 3), "b": .table(["c": .void])]
    #expect(try Self.decoded(Self.encoded(most)) == most)
    let reason = "a table has more than 16384 values"
    Self.expect(reason, Self.encoded(["a": numbers(limit - 2), "b": .table(["c": .void])]))
    let flat = FieldTable((0...limit).map { .init(name: Name("\($0)"), value: .void) })
    Self.expect(reason, Self.encoded(flat))
    let bytes = Self.encoded(flat)
    #expect(throws: MalformedInput.invalid(reason)) {
      var cursor = try FieldTableCursor(bytes.span.bytes)
      while try cursor.next() {}
    }
  }

  // MARK: Without a length

  @Test func aBareTableReachesToTheEnd() throws {
    let bytes = Array(Self.encoded(Self.everyType).dropFirst(4))
    #expect(try Self.bare(bytes) == Self.everyType)
    #expect(try Self.bare([]) == [:])
    for count in 1..<bytes.count {
      let table = try? Self.bare(Array(bytes[..<count]))
      #expect(table.map { $0.entries.count < Self.everyType.entries.count } ?? true)
    }
  }

  // MARK: Helpers

  private static func encoded(_ table: FieldTable) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(table)
    return Array(buffer.readable)
  }

  private static func decoded(_ bytes: [UInt8]) throws(MalformedInput) -> FieldTable {
    var reader = ByteReader(bytes.span.bytes)
    return try reader.fieldTable()
  }

  private static func bare(_ bytes: [UInt8]) throws(MalformedInput) -> FieldTable {
    var reader = ByteReader(bytes.span.bytes)
    return try reader.bareFieldTable()
  }

  private static func expect(
    _ reason: String, _ bytes: [UInt8], at location: SourceLocation = #_sourceLocation
  ) {
    #expect(throws: MalformedInput.invalid(reason), sourceLocation: location) {
      try decoded(bytes)
    }
  }

  private static func size(_ size: Int) -> [UInt8] {
    withUnsafeBytes(of: UInt32(size).bigEndian) { Array($0) }
  }

  /// A table with values that are on the wire already.
  private static func table(_ entries: KeyValuePairs<String, [UInt8]>) -> [UInt8] {
    let bytes = entries.flatMap { [UInt8($0.key.utf8.count)] + Array($0.key.utf8) + $0.value }
    return size(bytes.count) + bytes
  }

  /// So many tables in each other, or arrays where `inTables` says so; the outermost is a table.
  private static func nested(_ depth: Int, inTables: (Int) -> Bool) -> [UInt8] {
    // Built from the inside out, each level's head in front of those before it.
    var heads: [[UInt8]] = []
    var size = 0
    for level in (1..<depth).reversed() {
      let letter: [UInt8] = inTables(level) ? [0x46] : [0x41]
      let holdsNames = level == 1 || inTables(level - 1)
      heads.append((holdsNames ? [1, 0x61] : []) + letter + Self.size(size))
      size += heads.last?.count ?? 0
    }
    return Self.size(size) + heads.reversed().flatMap(\.self)
  }
}
