import Arbitrary
import Base
import Testing

@Suite struct ByteReaderTests {
  /// One of everything: 1, 2, 4 and 8 bytes, three bytes, a short and a long string.
  private static let bytes: [UInt8] =
    [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07] + [0xF0, 1, 2, 3, 4, 5, 6, 7] + [9, 8, 7]
    + [2, 0x61, 0x62] + [0, 0, 0, 3, 0x63, 0x64, 0x65]

  private static func readAll(_ reader: inout ByteReader) throws(MalformedInput) -> [String] {
    var values: [String] = []
    values.append(String(try reader.u8(), radix: 16))
    values.append(String(try reader.u16(), radix: 16))
    values.append(String(try reader.u32(), radix: 16))
    values.append(String(try reader.u64(), radix: 16))
    values.append("\(try reader.array(3))")
    values.append("\(try reader.name())")
    values.append("\(try reader.longBytes())")
    return values
  }

  @Test func valuesAreBigEndian() throws {
    var reader = ByteReader(Self.bytes.span.bytes)
    let values = try Self.readAll(&reader)
    let isAtEnd = reader.isAtEnd
    #expect(
      values == ["1", "203", "4050607", "f001020304050607", "[9, 8, 7]", "ab", "[99, 100, 101]"])
    #expect(isAtEnd)
  }

  @Test func everyTruncationIsAnError() {
    for count in 0..<Self.bytes.count {
      let short = Array(Self.bytes[..<count])
      #expect(throws: MalformedInput.truncated, "\(count) bytes") {
        var reader = ByteReader(short.span.bytes)
        _ = try Self.readAll(&reader)
      }
    }
  }

  @Test func nothingIsTakenByAReadThatFails() throws {
    let bytes: [UInt8] = [1, 2, 3]
    var reader = ByteReader(bytes.span.bytes)
    #expect(Self.fails { () throws(MalformedInput) in _ = try reader.u64() })
    #expect(Self.fails { () throws(MalformedInput) in _ = try reader.u32() })
    #expect(Self.fails { () throws(MalformedInput) in _ = try reader.array(4) })
    #expect(Self.fails { () throws(MalformedInput) in _ = try reader.take(-1) })
    #expect(Self.fails { () throws(MalformedInput) in _ = try reader.take(.max) })
    let offset = reader.offset
    let number = try reader.u16()
    let remaining = reader.remaining
    #expect(offset == 0)
    #expect(number == 0x0102)
    #expect(remaining == 1)
  }

  @Test func theRestIsShownAndNotRead() throws {
    var reader = ByteReader(Self.bytes.span.bytes)
    _ = try reader.u16()
    let rest = reader.rest().withUnsafeBytes { Array($0) }
    let remaining = reader.remaining
    #expect(rest == Array(Self.bytes[2...]))
    #expect(remaining == Self.bytes.count - 2)
  }

  @Test func aLongStringMayNotClaimMoreThanThereIs() {
    let bytes: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 1, 2]
    #expect(throws: MalformedInput.truncated) {
      var reader = ByteReader(bytes.span.bytes)
      _ = try reader.longBytes()
    }
  }

  @Test func errorsHaveAReasonForPeers() {
    #expect(MalformedInput.truncated.reason == "the bytes end too early")
    #expect(MalformedInput.invalid("odd").reason == "odd")
  }

  @Test(arguments: Seed.some(20))
  func anySequenceOfReadsAgreesWithAnArray(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let bytes = random.bytes(200)
    var model = bytes[...]
    var reader = ByteReader(bytes.span.bytes)
    while true {
      let size = [1, 2, 4, 8, random.number(0...20)][random.number(0...4)]
      let expected = model.prefix(size)
      do throws(MalformedInput) {
        let found: [UInt8]
        switch size {
        case 1: found = Self.bytes(of: try reader.u8())
        case 2: found = Self.bytes(of: try reader.u16())
        case 4: found = Self.bytes(of: try reader.u32())
        case 8: found = Self.bytes(of: try reader.u64())
        default: found = try reader.array(size)
        }
        try? #require(found == Array(expected))
        model = model.dropFirst(size)
      } catch {
        #expect(error == .truncated && expected.count < size)
        break
      }
      let remaining = reader.remaining
      try #require(remaining == model.count)
    }
  }

  private static func bytes<Value: FixedWidthInteger>(of value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.bigEndian) { Array($0) }
  }

  private static func fails(_ body: () throws(MalformedInput) -> Void) -> Bool {
    do throws(MalformedInput) {
      try body()
      return false
    } catch {
      return error == .truncated
    }
  }
}
