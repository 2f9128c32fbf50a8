import AMQP
import Arbitrary
import Base
import Testing

@testable import Filters

/// Random filters and messages, against filters by definition; and damaged messages, against nothing but time.
@Suite struct FilterModelTests {
  @Test(arguments: Seed.some(8))
  func anyFilterIsTrueOfWhatTheDefinitionSays(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    var counts: [Bool?: Int] = [:]
    for round in 0..<1500 {
      let filter = NaiveFilter.condition(&random, depth: random.number(0...4))
      guard let compiled = try? Filter(filter.text) else {
        // Only the sizes of what is made here can be wrong.
        try #require(filter.text.utf8.count > 100, "round \(round): \(filter.text)")
        continue
      }
      for _ in 0..<4 {
        let headers = Self.headers(&random)
        let expected = filter.truth(headers)
        counts[expected, default: 0] += 1
        let sample = FilterSample(headers: headers)
        try #require(
          sample.fits(compiled).isTrue == (expected == true),
          "round \(round): \(filter.text) of \(headers)")
        if let negated = try? Filter("NOT (\(filter.text))") {
          try #require(
            sample.fits(negated).isTrue == (expected == false),
            "round \(round): \(filter.text) of \(headers)")
        }
      }
    }
    for truth in [true, false, nil] as [Bool?] { #expect(counts[truth, default: 0] > 300) }
  }

  private static func headers(_ random: inout SeededGenerator) -> FieldTable {
    FieldTable(
      NaiveFilter.names.compactMap { name in
        guard !random.oneIn(4) else { return nil }
        let value: FieldValue =
          switch random.number(0...7) {
          case 0: .bool(random.flag())
          case 1: .int32(Int32(random.number(-2...3)))
          case 2: .int64(random.choose([.max, .min, 0, 1]))
          case 3: .double(random.choose([0.5, 1, -2, 0, .nan, .infinity, 0x1p63]))
          case 4: .string(random.choose(["", "a", "ab", "ba", "äb"]))
          case 5: .bytes(Array("ab".utf8))
          case 6: random.flag() ? .void : .array([.int32(1)])
          default: .uint8(UInt8(random.number(0...2)))
          }
        return FieldTable.Entry(name: Name(name), value: value)
      })
  }

  // MARK: Damage

  private static let filters = [
    "a = 1 AND b LIKE '%a_b%' OR c IN (1, 'x') OR d > 1.5",
    "p.timestamp > 5 OR p.expiration < 6 OR p.priority = 1 OR p.cluster_id = 'x'",
    "p.content_type LIKE '%/%' AND p.app_id IS NOT NULL AND p.user_id <> p.reply_to",
    "body LIKE '_%' AND exchange = routing_key", "a BETWEEN b AND c OR a + b * c - d / 2 > 0",
  ]

  @Test(arguments: Seed.some(8))
  func damagedPropertiesAreNoTrouble(seed: UInt64) throws {
    Seed.tell(seed)
    var random = SeededGenerator(seed: seed)
    let filters = try Self.filters.map { try Filter($0) }
    for _ in 0..<400 {
      var properties = random.properties()
      if random.flag() { properties.headers = Self.headers(&random) }
      var block = ByteBuffer()
      properties.encode(into: &block)
      var bytes = Array(block.readable)
      for _ in 0..<random.choose([0, 1, 1, 2, 8]) { random.mutate(&bytes) }
      let names: [UInt8] = random.choose([[], [0], [3, 65], [1, 65, 1, 66], [0, 0], [1, 65]])
      let sample = FilterSample(names: names, properties: bytes, body: Array(bytes.prefix(9)))
      for filter in filters { #expect(sample.fits(filter).steps > 0) }
    }
  }

  @Test func propertiesThatEndTooEarlyAreNoTrouble() throws {
    var properties = BasicProperties()
    properties.contentType = "text/plain"
    properties.headers = ["a": .string("xaxb"), "b": .table(["c": .int32(1)]), "d": .double(2)]
    properties.timestamp = 7
    properties.clusterID = "x"
    var block = ByteBuffer()
    properties.encode(into: &block)
    let bytes = Array(block.readable)
    let filters = try Self.filters.map { try Filter($0) }
    for size in 0...bytes.count {
      let sample = FilterSample(names: [], properties: Array(bytes.prefix(size)), body: [])
      for filter in filters { #expect(sample.fits(filter).steps > 0) }
    }
  }
}
