import Base
import Testing

@Suite struct NameTests {
  @Test func whatFitsIsKeptWhateverItsBytes() {
    #expect(Name([]).isEmpty)
    for count in [1, 254, 255] {
      let bytes = [UInt8](repeating: 0xFF, count: count)
      #expect(Name(bytes).bytes == bytes)
    }
    let bytes: [UInt8] = [0, 1, 2]
    #expect(Name(copying: bytes.span.bytes).bytes == bytes)
  }

  @Test func longerTextIsCutAtTheLimit() {
    #expect(Name(String(repeating: "a", count: 256)).bytes.count == 255)
    #expect(Name(String(repeating: "a", count: 100_000)).bytes.count == 255)
  }

  @Test(arguments: ["é", "€", "🪿"])
  func noCharacterIsCutInTwo(character: String) {
    let size = character.utf8.count
    for prefix in 0..<size {
      let text = String(repeating: "a", count: prefix) + String(repeating: character, count: 300)
      let whole = (Name.sizeMax - prefix) / size
      let expected =
        String(repeating: "a", count: prefix) + String(repeating: character, count: whole)
      #expect(Name(text).description == expected)
    }
  }

  @Test func aCharacterThatEndsAtTheLimitStays() {
    let text = String(repeating: "a", count: 253) + "é"
    #expect(Name(text + "b").description == text)
  }

  @Test func bytesThatAreNoTextAreCutAtTheLimit() {
    #expect(Name([UInt8](repeating: 0x80, count: 300)).bytes.count == Name.sizeMax)
  }

  @Test func prefixesAreComparedByteByByte() {
    let name: Name = "amq.direct"
    #expect(name.hasPrefix("amq."))
    #expect(name.hasPrefix(""))
    #expect(name.hasPrefix("amq.direct"))
    #expect(!name.hasPrefix("amq.direct."))
    #expect(!name.hasPrefix("AMQ."))
    #expect(!Name("").hasPrefix("a"))
  }

  @Test func namesAreOrderedByTheirBytes() {
    let names: [Name] = ["", "A", "a", "aa", "b", "é"]
    #expect(names.shuffled().sorted() == names)
  }
}
