import Testing

@testable import Broker

/// The hash of Kafka's partitioner, against the values of Kafka's own test (UtilsTest.testMurmur2).
@Suite struct Murmur2Tests {
  private static let known: [(text: String, hash: Int32)] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
  ]

  @Test func keysHaveKafkasHash() {
    for (text, hash) in Self.known {
      let bytes = Array(text.utf8)
      #expect(Int32(bitPattern: Murmur2.hash(bytes.span.bytes)) == hash, "\(text)")
    }
  }

  /// `toPositive(murmur2(key)) % partitions`; what is taken away is the sign, and not the amount.
  @Test func keysHaveKafkasPartition() {
    let bytes = Array("21".utf8)
    #expect(Murmur2.partition(of: bytes.span.bytes, count: 1) == 0)
    #expect(Murmur2.partition(of: bytes.span.bytes, count: 1000) == 340)
    #expect(Murmur2.partition(of: bytes.span.bytes, count: 7) == 1_173_551_340 % 7)
  }
}
