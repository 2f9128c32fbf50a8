import AMQP
import Arbitrary
import Base
import Testbed
import Testing

@testable import Batches
@testable import Broker
@testable import Journal

/// Messages become Kafka's records and come back as they were.
@Suite struct StreamFormTests {
  private static let form = StreamForm(key: .property(.messageID))

  private static func messages(_ random: inout SeededGenerator, _ count: Int) -> [SampleMessage] {
    (0..<count).map { _ in SampleMessage(&random) }
  }

  @Test(arguments: Seeds.all)
  func messagesComeBackByteByByte(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<40 {
      let messages = Self.messages(&random, random.number(1...40))
      let offset = UInt64(random.number(0...1 << 40))
      let (batch, timeMax) = Self.form.batch(of: messages, from: offset)
      #expect(timeMax == messages.map(\.storedAt).max())
      let page = SamplePage()
      #expect(page.fill(batch, Self.form) == .filled)
      #expect(page.records == messages.map(\.comparable))
      #expect(page.offsets == (0..<messages.count).map { offset + UInt64($0) })
    }
  }

  @Test func everyCombinationOfPropertiesComesBack() throws {
    var random = SeededGenerator(seed: 7)
    let messages = (UInt16(0)..<1 << 14).map { flags in
      SampleMessage(
        exchange: "e", key: "k", properties: random.properties(PropertyFlags(rawValue: flags << 2)),
        body: [1, 2, 3], storedAt: 1_700_000_000_000)
    }
    for start in stride(from: 0, to: messages.count, by: 64) {
      let some = Array(messages[start..<start + 64])
      let page = SamplePage()
      #expect(page.fill(Self.form.batch(of: some, from: 9).bytes, Self.form) == .filled)
      #expect(page.records == some.map(\.comparable))
    }
  }

  /// What Kafka's clients see of it.
  @Test func theBodyIsTheValueAndWhatChoseThePartitionTheKey() throws {
    var properties = BasicProperties()
    properties.messageID = "m-1"
    properties.headers = ["tenant": .string("acme"), "number": .int32(7)]
    let message = SampleMessage(
      exchange: "e", key: "orders", properties: properties, body: Array("body".utf8),
      storedAt: 1_700_000_000_123)
    let keys: [(StreamSettings.Key, [UInt8]?)] = [
      (.routingKey, Array("orders".utf8)), (.property(.messageID), Array("m-1".utf8)),
      (.header("tenant"), Array("acme".utf8)), (.header("number"), [0, 0, 0, 7]),
      (.header("none"), nil), (.property(.type), nil),
    ]
    for (key, bytes) in keys {
      let batch = StreamForm(key: key).batch(of: [message], from: 4).bytes
      try batch.withUnsafeBytes { batch in
        let header = try #require(BatchHeader(batch))
        #expect(BatchHeader.isSound(batch))
        let records = Array(BatchReader(batch, header))
        #expect(records.count == 1 && records[0].offset == 4)
        #expect(records[0].time == 1_700_000_000_123)
        #expect(records[0].key.map { [UInt8]($0) } == bytes, "\(key)")
        #expect(records[0].value.map { [UInt8]($0) } == Array("body".utf8))
        let envelope = try #require(records[0].firstHeader)
        #expect(String(decoding: envelope.key, as: UTF8.self) == "amqp")
        #expect(
          envelope.value.map { [UInt8]($0) } == [1, 1] + Array("e".utf8) + [6]
            + Array("orders".utf8) + message.properties)
      }
    }
  }

  // MARK: Pages

  @Test func aPageHasAsManyBatchesAsFit() throws {
    var random = SeededGenerator(seed: 11)
    let all = (0..<20).map { _ in Self.messages(&random, 3) }
    var input: [UInt8] = []
    var ends: [Int] = []
    for (index, messages) in all.enumerated() {
      input += Self.form.batch(of: messages, from: UInt64(3 * index)).bytes
      ends.append(input.count)
    }
    var counts: Set<Int> = []
    for size in stride(from: 64, to: 400_000, by: 4099) {
      let page = SamplePage(size)
      switch page.fill(input, Self.form) {
      case .filled:
        let batches = page.records.count / 3
        #expect(page.records == all[..<batches].joined().map(\.comparable))
        #expect(page.end == SamplePage.begin + ends[batches - 1])
        counts.insert(batches)
      case .needsRoom(let bytes):
        #expect(bytes > size)
        let larger = SamplePage(bytes)
        #expect(larger.fill(input, Self.form) == .filled)
        #expect(larger.records.count >= 3)
      case .needsInput, .damaged: Issue.record("\(size)")
      }
    }
    #expect(counts.contains(20) && counts.count > 3)
  }

  @Test func whatIsCutAsksForMore() throws {
    var random = SeededGenerator(seed: 3)
    let messages = Self.messages(&random, 4)
    let first = Self.form.batch(of: messages, from: 0).bytes
    let input = first + Self.form.batch(of: messages, from: 4).bytes
    for count in 1..<input.count {
      let page = SamplePage()
      let result = page.fill(Array(input[..<count]), Self.form)
      switch count {
      case ..<BatchHeader.size: #expect(result == .needsInput(BatchHeader.size))
      case ..<first.count: #expect(result == .needsInput(first.count))
      default:
        #expect(result == .filled)
        #expect(page.records.count == 4 && page.end == SamplePage.begin + first.count)
      }
    }
  }

  @Test(arguments: Seeds.all)
  func whatIsChangedNeverComesAsARecord(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let messages = Self.messages(&random, 6)
    let first = Self.form.batch(of: messages, from: 0).bytes
    let input = first + Self.form.batch(of: messages, from: 6).bytes
    let page = SamplePage(1 << 20)
    for _ in 0..<300 {
      let place = random.number(0...input.count - 1)
      var changed = input
      changed[place] ^= UInt8(1 << random.number(0...7))
      // The base offset is outside the checksum, and the leader's epoch means nothing.
      let isOutside = place % first.count < 17
      switch page.fill(changed, Self.form) {
      case .filled where isOutside: continue
      case .filled:
        #expect(place >= first.count, "\(place)")
        #expect(page.records == messages.map(\.comparable))
      case .needsRoom: Issue.record("believed what no checksum vouched for, at \(place)")
      case .needsInput, .damaged: #expect(place < first.count)
      }
    }
  }

  /// A right checksum vouches for no count and no length.
  @Test(arguments: Seeds.all)
  func nothingInABatchIsBelieved(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let page = SamplePage(1 << 20)
    for _ in 0..<300 {
      var batch = Self.form.batch(of: Self.messages(&random, 3), from: 5).bytes
      for _ in 0..<random.number(1...6) {
        batch[random.number(21...batch.count - 1)] = UInt8(random.number(0...255))
      }
      batch.sign()
      if page.fill(batch, Self.form) == .filled { _ = page.records }
    }
  }

  // MARK: What no AMQP client published

  @Test func recordsWithoutAnEnvelopeHaveABody() throws {
    var batch = BatchWriter(baseOffset: 3)
    let values: [[UInt8]] = [[], Array("value".utf8), [UInt8](repeating: 9, count: 70_000)]
    for (index, value) in values.enumerated() {
      value.withUnsafeBytes {
        batch.append(
          time: 1000 + Int64(index), key: nil, value: $0, headerCount: 0, headerBytes: 0)
      }
    }
    let page = SamplePage()
    #expect(page.fill(batch.finish(), Self.form) == .filled)
    #expect(page.offsets == [3, 4, 5])
    let expected = values.enumerated().map { index, value in
      SampleMessage(
        exchange: "", key: "", properties: BasicProperties(), body: value,
        storedAt: 1000 + Int64(index)
      ).comparable
    }
    #expect(page.records == expected)
  }

  /// A client of Kafka may give a header this name.
  @Test func envelopesThatAreNoneAreNone() throws {
    let envelopes: [[UInt8]] = [
      [], [1], [1, 0, 0], [2, 0, 0, 0, 0], [1, 200, 0, 0, 0], [1, 0, 200, 0, 0], [1, 0, 0, 0],
      // Properties that say they have what they do not have.
      [1, 0, 0, 0x20, 0], [1, 0, 0, 0x80, 0, 9], [1, 0, 0, 0, 0, 7], [1, 0, 0, 0, 1],
    ]
    for envelope in envelopes {
      var batch = BatchWriter(baseOffset: 0)
      Array("v".utf8).withUnsafeBytes {
        batch.append(
          time: 1, key: nil, value: $0, headerCount: 1,
          headerBytes: BatchWriter.headerSize("amqp", valueSize: envelope.count))
      }
      batch.header("amqp", valueSize: envelope.count)
      envelope.withUnsafeBytes { batch.append(value: $0) }
      let page = SamplePage()
      #expect(page.fill(batch.finish(), Self.form) == .filled)
      let plain = SampleMessage(
        exchange: "", key: "", properties: BasicProperties(), body: Array("v".utf8), storedAt: 1)
      #expect(page.records == [plain.comparable], "\(envelope)")
    }
  }
}

/// A message as the log has it, without destinations.
private struct SampleMessage {
  let bytes: [UInt8]
  let properties: [UInt8]
  let storedAt: Int64

  init(
    exchange: Name, key: Name, properties: BasicProperties, body: [UInt8], storedAt: Int64
  ) {
    var names = ByteBuffer()
    names.append(exchange)
    names.append(key)
    var block = ByteBuffer()
    properties.encode(into: &block)
    self.properties = Array(block.readable)
    self.storedAt = storedAt
    let size = Record.headerSize + MessageRecord.fixedBytes + names.count + block.count + body.count
    var bytes = [UInt8](repeating: 0, count: Record.headerSize + MessageRecord.fixedBytes)
    bytes.withUnsafeMutableBytes { bytes in
      let base = bytes.baseAddress!
      Record.writeHeader(
        base, size: size, kind: BrokerRecord.Kind.message.rawValue, flags: 0, count: 0,
        word: UInt32(body.count))
      MessageRecord.write(
        at: base + Record.headerSize, propertiesSize: UInt32(block.count), destinationCount: 0,
        storedAt: UInt64(storedAt))
    }
    self.bytes = bytes + Array(names.readable) + self.properties + body
  }

  init(_ random: inout SeededGenerator) {
    self.init(
      exchange: random.name(), key: random.name(), properties: random.properties(),
      body: random.bytes(upTo: 3000),
      storedAt: 1_700_000_000_000 + Int64(random.number(0...1_000_000)))
  }

  var comparable: [UInt8] { bytes }
}

extension StreamForm {
  fileprivate func batch(
    of messages: [SampleMessage], from offset: UInt64
  ) -> (bytes: [UInt8], timeMax: Int64) {
    let copies = messages.map { message in
      let copy = UnsafeMutableRawBufferPointer.allocate(
        byteCount: message.bytes.count, alignment: 8)
      copy.copyBytes(from: message.bytes)
      return copy
    }
    defer { for copy in copies { copy.deallocate() } }
    return batch(
      of: copies.map {
        RecordView(position: 0, base: UnsafeRawPointer($0.baseAddress!), size: $0.count)
      }, from: offset)
  }
}

/// The memory of a page; writing behind it is noticed.
private final class SamplePage {
  static let begin = 4096
  private let memory: UnsafeMutableRawBufferPointer
  private let size: Int
  private static let guardBytes = 4096

  init(_ size: Int = 256 << 10) {
    self.size = size
    memory = .allocate(byteCount: size + Self.guardBytes, alignment: 16)
    memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
  }

  deinit { memory.deallocate() }

  func fill(_ input: [UInt8], _ form: StreamForm) -> PageResult {
    var page = PartitionPage(
      UnsafeMutableRawBufferPointer(rebasing: memory[..<size]), begin: Self.begin)
    let result = input.withUnsafeBytes { form.fill(&page, from: $0) }
    #expect(memory[size...].allSatisfy { $0 == 0xA5 }, "nothing is written behind the page")
    return result
  }

  private var base: UnsafeRawPointer { UnsafeRawPointer(memory.baseAddress!) }
  var count: Int { PartitionPage.count(base) }
  var end: Int { PartitionPage.end(base) }
  var offsets: [UInt64] { (0..<count).map { (PartitionPage.entry(base, $0).packed >> 8) - 1 } }

  /// Each record's bytes; its checksum is not defined.
  var records: [[UInt8]] {
    (0..<count).map { index in
      let place = base + Int(PartitionPage.entry(base, index).offset)
      #expect(Int(bitPattern: place) % 8 == 0)
      let size = Int(place.load(as: UInt32.self))
      var bytes = [UInt8](UnsafeRawBufferPointer(start: place, count: size))
      bytes.replaceSubrange(4..<8, with: [0, 0, 0, 0])
      return bytes
    }
  }
}

extension [UInt8] {
  /// Makes the checksum of a batch right.
  fileprivate mutating func sign() {
    let sum = withUnsafeBytes {
      CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[21...]))
    }
    withUnsafeMutableBytes { $0.storeBytes(of: sum.bigEndian, toByteOffset: 17, as: UInt32.self) }
  }
}
