import AMQP
import Arbitrary
import Base
import Testing

@Suite struct BasicPropertiesTests {
  /// All 2^14 combinations of flags.
  private static let combinations = (UInt16(0)..<1 << 14).map { PropertyFlags(rawValue: $0 << 2) }

  @Test func everyCombinationOfFlagsRoundTrips() throws {
    var random = SeededGenerator(seed: 1)
    for flags in Self.combinations {
      let properties = random.properties(flags)
      let bytes = Self.encoded(properties)
      try #require(Array(bytes[..<2]) == [UInt8(flags.rawValue >> 8), UInt8(flags.rawValue & 255)])
      let (decoded, isAtEnd) = try Self.decoded(bytes)
      try #require(decoded == properties && isAtEnd, "flags \(flags.rawValue)")
    }
  }

  @Test func aBlockAgreesWithThePropertiesForEveryCombination() throws {
    var random = SeededGenerator(seed: 2)
    for flags in Self.combinations {
      let properties = random.properties(flags)
      try Self.requireAgreement(properties, Self.encoded(properties))
    }
  }

  @Test(arguments: Seed.some(40))
  func everyTruncationIsAnError(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let bytes = Self.encoded(random.properties())
    for count in 0..<bytes.count {
      let short = Array(bytes[..<count])
      #expect(throws: MalformedInput.truncated, "\(count) bytes") { try Self.decoded(short) }
      #expect(throws: MalformedInput.truncated, "\(count) bytes") { try Self.block(short) }
    }
  }

  @Test(arguments: [0b01, 0b10, 0b11] as [UInt16])
  func flagsWithoutAMeaningAreErrors(unknown: UInt16) {
    for flags in [unknown, unknown | PropertyFlags.contentType.rawValue] {
      let bytes: [UInt8] = [UInt8(flags >> 8), UInt8(flags & 255), 1, 0x61]
      #expect(throws: MalformedInput.invalid("unknown property flags")) { try Self.block(bytes) }
      #expect(throws: MalformedInput.invalid("unknown property flags")) { try Self.decoded(bytes) }
    }
  }

  @Test func aBlockEndsWithItsLastProperty() {
    #expect(throws: MalformedInput.invalid("bytes behind the properties")) {
      try Self.block([0, 0, 1])
    }
    #expect(throws: MalformedInput.invalid("bytes behind the properties")) {
      try Self.block([0x10, 0, 2, 0])
    }
  }

  @Test func onlyModeTwoIsPersistent() throws {
    for mode in UInt8.min...UInt8.max {
      #expect(try Self.block([0x10, 0, mode]).isPersistent == (mode == 2))
    }
    #expect(try !Self.block([0, 0]).isPersistent)
  }

  @Test func theFirstPropertyHasTheHighestFlag() {
    var properties = BasicProperties()
    properties.contentType = "a"
    #expect(Self.encoded(properties) == [0x80, 0, 1, 0x61])
    properties = BasicProperties()
    properties.clusterID = "b"
    #expect(Self.encoded(properties) == [0, 4, 1, 0x62])
    #expect(Self.encoded(BasicProperties()) == [0, 0])
  }

  // MARK: Helpers

  static func requireAgreement(_ properties: BasicProperties, _ bytes: [UInt8]) throws {
    let block = try block(bytes)
    try #require(block.isPersistent == (properties.deliveryMode == 2))
    try #require(block.priority == properties.priority ?? 0)
    try #require(Name(Array(bytes[block.replyTo])) == properties.replyTo ?? "")
    try #require(Name(Array(bytes[block.expiration])) == properties.expiration ?? "")
    try #require(Name(Array(bytes[block.userID])) == properties.userID ?? "")
    try #require(block.flags.contains(.headers) == (properties.headers != nil))
    try #require(block.headers.isEmpty == (properties.headers == nil))
    guard let headers = properties.headers else { return }
    let table = Array(bytes[block.headers])
    var reader = ByteReader(table.span.bytes)
    let (found, isAtEnd) = (try reader.fieldTable(), reader.isAtEnd)
    try #require(found == headers && isAtEnd)
  }

  static func encoded(_ properties: BasicProperties) -> [UInt8] {
    var buffer = ByteBuffer()
    properties.encode(into: &buffer)
    return Array(buffer.readable)
  }

  static func decoded(
    _ bytes: [UInt8]
  ) throws(MalformedInput) -> (BasicProperties, isAtEnd: Bool) {
    var reader = ByteReader(bytes.span.bytes)
    let properties = try BasicProperties(from: &reader)
    return (properties, reader.isAtEnd)
  }

  static func block(_ bytes: [UInt8]) throws(MalformedInput) -> PropertyBlock {
    try PropertyBlock(bytes.span.bytes)
  }
}
