import AMQP
import Arbitrary
import Base
import Testing

@Suite struct MethodTests {
  @Test func theTableHasEveryMethod() {
    #expect(MethodTable.methods.count == 66)
    #expect(Set(MethodTable.methods.map(\.id)).count == 66)
  }

  @Test(arguments: MethodTable.methods)
  func argumentsRoundTrip(method: TableMethod) throws {
    for seed in Seed.some(40) {
      var random = SeededGenerator(seed: seed)
      let bytes = method.arguments(&random)
      let (decoded, isAtEnd) = try Self.decode(method.id, bytes)
      let found = try #require(decoded, "seed \(seed)")
      try #require(isAtEnd && found.id == method.id, "seed \(seed)")
      try #require(Self.encodedArguments(found) == bytes, "seed \(seed)")
      try #require(Self.decode(method.id, Self.encodedArguments(found)).0 == found, "seed \(seed)")
    }
  }

  @Test(arguments: MethodTable.methods)
  func everyTruncationIsAnError(method: TableMethod) throws {
    for seed in Seed.some(5) {
      var random = SeededGenerator(seed: seed)
      let bytes = method.arguments(&random)
      for count in 0..<bytes.count {
        #expect(throws: MalformedInput.truncated, "seed \(seed), \(count) of \(bytes.count)") {
          try Self.decode(method.id, Array(bytes[..<count]))
        }
      }
    }
  }

  @Test(arguments: MethodTable.methods.filter { $0.fields.contains(where: \.isReserved) })
  func whatIsReservedIsIgnored(method: TableMethod) throws {
    for seed in Seed.some(20) {
      var (first, second) = (SeededGenerator(seed: seed), SeededGenerator(seed: seed))
      let clean = try Self.decode(method.id, method.arguments(&first)).0
      let random = try Self.decode(
        method.id, method.arguments(&second, reservedIsZero: false)
      ).0
      #expect(clean == random, "seed \(seed)")
    }
  }

  @Test func onlyTheTablesMethodsAreKnown() throws {
    let known = Dictionary(uniqueKeysWithValues: MethodTable.methods.map { ($0.id, $0) })
    let enough = [UInt8](repeating: 0, count: 64)
    for classID in UInt16(0)...100 {
      for methodID in UInt16(0)...130 {
        let id = MethodID(classID: classID, methodID: methodID)
        try #require(try (Self.decode(id, enough).0 == nil) == (known[id] == nil), "\(id)")
        try #require(id.name == known[id]?.name)
        try #require(id.description == known[id]?.name ?? "\(classID).\(methodID)")
        try #require(id.isFromServerOnly == (known[id]?.sender == "server"), "\(id)")
      }
    }
    #expect(try Self.decode(MethodID(classID: .max, methodID: .max), enough).0 == nil)
  }

  // MARK: By hand

  @Test func aPublishHasItsFieldsInTheirPlaces() throws {
    let bytes: [UInt8] = [0, 0, 1, 0x78, 2, 0x6B, 0x79, 0b01]
    let expected = BasicPublish(exchange: "x", routingKey: "ky", mandatory: true)
    #expect(try Self.decode(BasicPublish.id, bytes).0 == .basicPublish(expected))
  }

  @Test func aDeclarationHasItsBitsInOneOctet() throws {
    let bytes: [UInt8] = [0, 0, 1, 0x71, 0b01010, 0, 0, 0, 4, 1, 0x61, 0x74, 1]
    let expected = QueueDeclare(
      queue: "q", durable: true, autoDelete: true, arguments: ["a": .bool(true)])
    #expect(try Self.decode(QueueDeclare.id, bytes).0 == .queueDeclare(expected))
  }

  @Test func aDeliveryHasItsFieldsInTheirPlaces() throws {
    let expected = BasicDeliver(
      consumerTag: "c", deliveryTag: 258, redelivered: true, exchange: "", routingKey: "q")
    let bytes: [UInt8] = [1, 0x63, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 1, 0x71]
    #expect(Self.encodedArguments(.basicDeliver(expected)) == bytes)
  }

  // MARK: Helpers

  static func decode(
    _ id: MethodID, _ arguments: [UInt8]
  ) throws(MalformedInput) -> (Method?, isAtEnd: Bool) {
    var reader = ByteReader(arguments.span.bytes)
    let method = try Method.decode(id, from: &reader)
    return (method, reader.isAtEnd)
  }

  /// The arguments out of a whole frame: behind its header and the method's id, before its end.
  static func encodedArguments(_ method: Method) -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.append(method, channel: 1)
    return Array(buffer.readable.dropFirst(Frame.headerSize + 4).dropLast())
  }
}
