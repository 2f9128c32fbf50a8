import AMQP
import Arbitrary
import Base
import Testing

/// Damaged input for every decoder. What is decoded all the same must encode to bytes that decode
/// to the same again. `Tools/fuzz` looks further, guided by coverage.
@Suite struct DecoderFuzzTests {
  private static let rounds = 1000

  @Test(arguments: Seed.some(8))
  func damagedMethodsAreErrorsOrMethods(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    for round in 0..<Self.rounds {
      let method = random.choose(MethodTable.methods)
      var bytes = method.arguments(&random)
      Self.damage(&bytes, &random)
      // At times the arguments of one method behind the id of another.
      let id = random.oneIn(4) ? random.choose(MethodTable.methods).id : method.id
      guard let found = try? MethodTests.decode(id, bytes).0 else { continue }
      let encoded = MethodTests.encodedArguments(found)
      let again = try #require(try MethodTests.decode(id, encoded).0, "round \(round)")
      try #require(MethodTests.encodedArguments(again) == encoded, "round \(round)")
    }
  }

  @Test(arguments: Seed.some(8))
  func damagedTablesAreErrorsOrTables(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    for round in 0..<Self.rounds {
      var bytes = Self.encoded(random.fieldTable(depth: random.number(0...6)))
      Self.damage(&bytes, &random)
      let walked = Result { () throws(MalformedInput) in try Self.walked(bytes) }
      let decoded = Result { () throws(MalformedInput) in try Self.decoded(bytes) }
      try #require(
        walked.map { Self.encoded(FieldTable($0)) } == decoded.map(Self.encoded), "round \(round)")
      guard let table = try? decoded.get() else { continue }
      let encoded = Self.encoded(table)
      try #require(try Self.encoded(Self.decoded(encoded)) == encoded, "round \(round)")
    }
  }

  @Test(arguments: Seed.some(8))
  func damagedPropertiesAreErrorsOrProperties(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    for round in 0..<Self.rounds {
      var bytes = BasicPropertiesTests.encoded(random.properties())
      Self.damage(&bytes, &random)
      let block = try? BasicPropertiesTests.block(bytes)
      guard let (properties, isAtEnd) = try? BasicPropertiesTests.decoded(bytes) else {
        // The block does not look into the headers; nothing else may be wrong.
        try #require(block == nil || block?.headers.isEmpty == false, "round \(round)")
        continue
      }
      try #require((block != nil) == isAtEnd, "round \(round)")
      let encoded = BasicPropertiesTests.encoded(properties)
      let again = try BasicPropertiesTests.decoded(encoded).0
      try #require(BasicPropertiesTests.encoded(again) == encoded, "round \(round)")
    }
  }

  /// Once, or as often as makes something new of it.
  private static func damage(_ bytes: inout [UInt8], _ random: inout SeededGenerator) {
    for _ in 0..<random.choose([0, 1, 1, 1, 2, 3, 8]) { random.mutate(&bytes) }
  }

  private static func encoded(_ table: FieldTable) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(table)
    return Array(buffer.readable)
  }

  /// The same entries, found one by one.
  private static func walked(_ bytes: [UInt8]) throws(MalformedInput) -> [FieldTable.Entry] {
    var entries: [FieldTable.Entry] = []
    var cursor = try FieldTableCursor(bytes.span.bytes)
    while try cursor.next() {
      var value = ByteReader(bytes.span.bytes.extracting(cursor.value))
      entries.append(
        .init(name: Name(Array(bytes[cursor.name])), value: try value.fieldValue()))
      let rest = value.remaining
      #expect(rest == 0)
    }
    return entries
  }

  private static func decoded(_ bytes: [UInt8]) throws(MalformedInput) -> FieldTable {
    var reader = ByteReader(bytes.span.bytes)
    return try reader.fieldTable()
  }
}
