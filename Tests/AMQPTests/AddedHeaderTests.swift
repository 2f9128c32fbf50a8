import AMQP
import Arbitrary
import Base
import Testing

/// One more header in a block of properties, of which all else stays as it is.
@Suite struct AddedHeaderTests {
  private static func added(_ properties: [UInt8], _ value: Int64) -> [UInt8]? {
    var buffer = ByteBuffer()
    buffer.append(UInt8(7))
    guard buffer.append(properties: properties.span.bytes, settingHeader: "x-n", to: value) else {
      #expect(buffer.count == 1, "nothing was appended")
      return nil
    }
    return Array(buffer.readable.dropFirst())
  }

  private static func encoded(_ properties: BasicProperties) -> [UInt8] {
    var buffer = ByteBuffer()
    properties.encode(into: &buffer)
    return Array(buffer.readable)
  }

  @Test func everyCombinationOfPropertiesGetsIt() throws {
    var random = SeededGenerator(seed: 5)
    for flags in (UInt16(0)..<1 << 14).map({ PropertyFlags(rawValue: $0 << 2) }) {
      var properties = random.properties(flags)
      let bytes = try #require(Self.added(Self.encoded(properties), -3))
      var table = properties.headers ?? FieldTable()
      table.entries.removeAll { $0.name == "x-n" }
      table.entries.append(.init(name: "x-n", value: .int64(-3)))
      properties.headers = table
      try #require(bytes == Self.encoded(properties), "flags \(flags.rawValue)")
    }
  }

  @Test func itTakesTheOldOnesPlace() throws {
    var properties = BasicProperties()
    properties.headers = ["x-n": .string("old"), "a": .bool(true)]
    let once = try #require(Self.added(Self.encoded(properties), 1))
    properties.headers = ["a": .bool(true), "x-n": .int64(2)]
    #expect(Self.added(once, 2) == Self.encoded(properties))
  }

  @Test func whatCannotHaveItStaysWithout() {
    var full = BasicProperties()
    full.headers = FieldTable(
      (0..<FieldTable.valuesMax).map { .init(name: Name("\($0)"), value: .void) })
    #expect(Self.added(Self.encoded(full), 1) == nil)
    full.headers?.entries.removeLast()
    #expect(Self.added(Self.encoded(full), 1) != nil)
    // No table, and no properties.
    #expect(Self.added([0x20, 0, 0, 0, 0, 2, 1, 0x61], 1) == nil)
    #expect(Self.added([0x80, 0, 9], 1) == nil)
    #expect(Self.added([], 1) == nil)
  }
}
