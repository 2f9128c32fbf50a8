import Base
import Testbed
import Testing

@testable import Batches

/// RecordBatch v2 as Kafka's documentation has it, written and read.
@Suite struct BatchTests {
  // MARK: Bytes

  /// Three records: with a key and a header; without a key, and stored 5 ms before the first; with an empty key
  /// and a value whose length takes two bytes. Made by hand, and by a program that is not this one.
  private static let known: [UInt8] =
    bytes(
      """
      00 00 01 1f 71 fb 04 cb 00 00 00 9f 00 00 00 00
      02 e6 77 6b 1b 00 00 00 00 00 02 00 00 01 8b cf
      e5 68 00 00 00 01 8b cf e5 69 2c ff ff ff ff ff
      ff ff ff ff ff ff ff ff ff 00 00 00 03 2c 00 00
      00 06 6b 65 79 0a 68 65 6c 6c 6f 02 08 61 6d 71
      70 04 01 02 0c 00 09 02 01 00 00 9c 01 00 d8 04
      04 00 8c 01
      """) + [UInt8](repeating: 0x78, count: 70) + [0]

  private static func bytes(_ hexadecimal: String) -> [UInt8] {
    hexadecimal.split(whereSeparator: \.isWhitespace).map { UInt8($0, radix: 16)! }
  }

  private static let knownTime: Int64 = 1_700_000_000_000

  private static let knownRecords = [
    SampleRecord(
      time: knownTime, key: Array("key".utf8), value: Array("hello".utf8), header: [1, 2]),
    SampleRecord(time: knownTime - 5, key: nil, value: [], header: nil),
    SampleRecord(
      time: knownTime + 300, key: [], value: [UInt8](repeating: 0x78, count: 70), header: nil),
  ]

  @Test func aBatchHasKafkasBytes() {
    #expect(Self.knownRecords.batch(from: 1_234_567_890_123) == Self.known)
    #expect(Self.known.records() == Self.knownRecords)
    Self.known.withUnsafeBytes { bytes in
      let header = BatchHeader(bytes)
      #expect(header?.baseOffset == 1_234_567_890_123)
      #expect(header?.lastOffset == 1_234_567_890_125)
      #expect(header?.recordCount == 3)
      #expect(header?.byteCount == bytes.count)
      #expect(header?.baseTime == Self.knownTime)
      #expect(header?.timeMax == Self.knownTime + 300)
      #expect(header?.codec == 0)
      #expect(BatchHeader.isSound(bytes))
    }
  }

  @Test func varintsHaveTheirSizes() {
    for value in [
      0, 1, -1, 63, 64, -64, -65, 8191, 8192, -8192, -8193, Int(Int32.max), Int(Int32.min), .max,
      .min,
    ] {
      var bytes: [UInt8] = []
      Varint.append(value, to: &bytes)
      #expect(bytes.count == Varint.size(value), "\(value)")
    }
    var bytes: [UInt8] = []
    Varint.append(-65, to: &bytes)
    #expect(bytes == [0x81, 0x01])
  }

  // MARK: Random ones

  @Test(arguments: Seeds.all)
  func whatWasWrittenIsRead(seed: UInt64) {
    var random = SeededRandom(seed)
    for _ in 0..<200 {
      let records = (0..<random.number(1..<40)).map { _ in SampleRecord(&random) }
      let offset = UInt64(random.number(0..<1 << 54))
      let batch = records.batch(from: offset)
      #expect(batch.records() == records)
      #expect(batch.offsets() == (0..<records.count).map { offset + UInt64($0) })
      batch.withUnsafeBytes { #expect(BatchHeader.isSound($0)) }
    }
  }

  @Test(arguments: Seeds.all)
  func whatIsCutOrChangedIsNotSound(seed: UInt64) {
    var random = SeededRandom(seed)
    let records = (0..<12).map { _ in SampleRecord(&random) }
    let batch = records.batch(from: 77)
    for count in 0..<batch.count {
      let cut = Array(batch[..<count])
      cut.withUnsafeBytes { bytes in
        #expect(!BatchHeader.isSound(bytes), "cut at \(count)")
        if let header = BatchHeader(bytes) { #expect(header.byteCount > count) }
      }
    }
    for place in 0..<batch.count {
      var changed = batch
      changed[place] ^= UInt8(1 << random.number(0..<8))
      // The base offset and the leader's epoch are outside the checksum, as with Kafka; so is the length.
      if place >= 17 { changed.withUnsafeBytes { #expect(!BatchHeader.isSound($0), "\(place)") } }
      // Whoever does not look at the checksum gets wrong records at worst.
      _ = changed.records()
      _ = Array(changed[..<random.number(0..<changed.count)]).records()
    }
  }

  /// A checksum that is right vouches for nothing but the bytes.
  @Test(arguments: Seeds.all)
  func anyRecordsAreReadWithoutHarm(seed: UInt64) {
    var random = SeededRandom(seed)
    for _ in 0..<2000 {
      var batch = [SampleRecord(&random), SampleRecord(&random)].batch(from: 5)
      for _ in 0..<random.number(1..<8) {
        batch[random.number(23..<batch.count)] = UInt8.random(in: .min ... .max, using: &random)
      }
      let found = batch.records()
      #expect(found.reduce(0) { $0 + $1.value.count } <= 4 * batch.count)
    }
  }

  @Test func whatIsNoBatchIsNone() {
    func header(_ change: (inout [UInt8]) -> Void) -> Bool {
      var batch = Self.known
      change(&batch)
      return batch.withUnsafeBytes { BatchHeader($0) != nil }
    }
    #expect(header { _ in })
    #expect(!header { $0[16] = 1 }, "an older format")
    #expect(!header { $0[8] = 0x80 }, "a length below zero")
    #expect(
      !header {
        $0[11] = 40
        $0[10] = 0
      }, "a length within the header")
    #expect(!header { $0[0] = 1 }, "an offset that no partition has")
    #expect(!header { $0[60] = 0 }, "no records")
    #expect(!header { $0[23] = 0xFF }, "a last offset before the first")
  }
}

/// A record of which the first header is called `amqp`, if it has one.
private struct SampleRecord: Equatable {
  let time: Int64
  let key: [UInt8]?
  let value: [UInt8]
  let header: [UInt8]?

  init(time: Int64, key: [UInt8]?, value: [UInt8], header: [UInt8]?) {
    self.time = time
    self.key = key
    self.value = value
    self.header = header
  }

  init(_ random: inout SeededRandom) {
    func bytes(_ random: inout SeededRandom) -> [UInt8] {
      let count = random.isOne(in: 10) ? random.number(0..<5000) : random.number(0..<70)
      return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    }
    time = 1_700_000_000_000 + Int64(random.number(-100_000..<100_000))
    key = random.isOne(in: 3) ? nil : bytes(&random)
    value = bytes(&random)
    header = random.isOne(in: 3) ? nil : bytes(&random)
  }
}

extension [SampleRecord] {
  fileprivate func batch(from offset: UInt64) -> [UInt8] {
    var batch = BatchWriter(baseOffset: offset)
    for record in self {
      let size = record.header.map { BatchWriter.headerSize("amqp", valueSize: $0.count) }
      func append(_ key: UnsafeRawBufferPointer?) {
        record.value.withUnsafeBytes {
          batch.append(
            time: record.time, key: key, value: $0, headerCount: size == nil ? 0 : 1,
            headerBytes: size ?? 0)
        }
      }
      if let key = record.key { key.withUnsafeBytes { append($0) } } else { append(nil) }
      if let header = record.header {
        batch.header("amqp", valueSize: header.count)
        header.withUnsafeBytes { batch.append(value: $0) }
      }
    }
    return batch.finish()
  }
}

extension [UInt8] {
  /// As far as they can be read; whether they are sound is not asked.
  fileprivate func stored<Value>(_ body: (StoredRecord) -> Value) -> [Value] {
    withUnsafeBytes { bytes in
      guard let header = BatchHeader(bytes) else { return [] }
      return BatchReader(bytes, header).map(body)
    }
  }

  fileprivate func records() -> [SampleRecord] {
    stored { record in
      SampleRecord(
        time: record.time, key: record.key.map { [UInt8]($0) },
        value: record.value.map { [UInt8]($0) } ?? [],
        header: record.firstHeader.flatMap { $0.value.map { [UInt8]($0) } })
    }
  }

  fileprivate func offsets() -> [UInt64] { stored(\.offset) }
}
