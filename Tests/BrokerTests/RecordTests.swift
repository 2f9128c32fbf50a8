import AMQP
import Base
import Testing

@testable import Broker
@testable import Journal

/// What `Specs/Tables/records.txt` generates: reading is the inverse of writing, and whatever is cut short
/// is refused.
@Suite struct RecordTests {
  /// Records with random contents, each with what reading must find in it.
  private struct Samples {
    private var random: SystemRandom

    init(seed: UInt64) { random = SystemRandom(state: seed) }

    mutating func number() -> UInt64 {
      let shift = random.next() % 60
      return random.next() >> shift
    }
    mutating func short() -> UInt32 { UInt32(truncatingIfNeeded: random.next()) }
    mutating func bytes(_ countMax: UInt64) -> [UInt8] {
      (0..<random.next() % (countMax + 1)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }
    mutating func name() -> Name { Name(bytes(255)) }
    mutating func flag() -> Bool { random.next() % 2 == 0 }
    mutating func table() -> FieldTable {
      flag() ? FieldTable() : [Name("x-\(short())"): .int32(7)]
    }
    mutating func counts() -> [DeliveryCount] {
      (0..<random.next() % 5).map { _ in DeliveryCount(sequence: number(), count: short()) }
    }
    mutating func ranges() -> [SequenceRange] {
      (0..<random.next() % 5).map { _ in SequenceRange(first: number(), count: number()) }
    }
  }

  /// Splitmix64.
  private struct SystemRandom {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
      mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
      return mixed ^ mixed >> 31
    }
  }

  private static func bytes<Item: RecordItem>(
    _ items: [Item], _ write: (Item, inout [UInt8]) -> Void
  )
    -> [UInt8]
  {
    var bytes: [UInt8] = []
    for item in items { write(item, &bytes) }
    return bytes
  }

  /// Hands over the record as a reader sees it; `size` bytes of it.
  private static func view<Result>(
    _ raw: RawRecord, count: UInt16 = 0, size: Int? = nil, _ body: (RecordView) throws -> Result
  ) rethrows -> Result {
    var bytes: [UInt8] = []
    raw.append(to: &bytes)
    bytes[Record.countOffset] = UInt8(truncatingIfNeeded: count)
    let wanted = size ?? Record.headerSize + raw.payload.count
    // Not one byte more than the record has, for the sanitizer.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(16, wanted), alignment: 8)
    defer { memory.deallocate() }
    memory.copyBytes(from: bytes.prefix(max(16, wanted)))
    return try body(
      RecordView(position: 0, base: UnsafeRawPointer(memory.baseAddress!), size: wanted))
  }

  private static func message(_ samples: inout Samples) -> RawRecord {
    let (properties, body) = (samples.bytes(40), samples.bytes(300))
    let places = (0..<samples.short() % 4).map { _ in
      MessagePlace(lane: samples.short(), sequence: samples.number())
    }
    var payload = [UInt8](repeating: 0, count: MessageRecord.fixedBytes)
    payload.withUnsafeMutableBytes {
      MessageRecord.write(
        at: $0.baseAddress!, propertiesSize: UInt32(properties.count),
        destinationCount: UInt32(places.count), storedAt: 9)
    }
    for name in [samples.name(), samples.name()] {
      payload += [UInt8(name.bytes.count)] + name.bytes
    }
    payload += properties + body
    for place in places { place.append(to: &payload) }
    return RawRecord(kind: 16, word: UInt32(body.count), payload: payload)
  }

  private static func kept(_ samples: inout Samples) -> RawRecord {
    let (properties, body) = (samples.bytes(40), samples.bytes(300))
    return kept(
      samples.short(), samples.number(), [samples.name(), samples.name()], properties, body)
  }

  private static func kept(
    _ exchange: UInt32, _ number: UInt64, _ names: [Name], _ properties: [UInt8], _ body: [UInt8]
  ) -> RawRecord {
    var payload = bytes([UInt64(properties.count) | UInt64(body.count) << 32, number])
    for name in names { payload += [UInt8(name.bytes.count)] + name.bytes }
    return RawRecord(kind: 40, word: exchange, payload: payload + properties + body)
  }

  /// One of every kind; of a settlement also the count.
  private static func all(_ samples: inout Samples) -> [(record: RawRecord, count: UInt16)] {
    let ranges = samples.ranges()
    let table = samples.table().encoded
    let binding = BindingRecord.raw(
      source: samples.short(), isToExchange: samples.flag(), destination: samples.short(),
      key: samples.name(), arguments: table)
    let plain = [
      message(&samples),
      RawRecord(kind: 18, word: 3, payload: bytes([samples.number()])),
      QueueRecord.raw(
        id: samples.short(), isAutoDelete: samples.flag(), vhost: samples.name(),
        name: samples.name(), arguments: table),
      RawRecord(kind: 33, word: samples.short(), payload: []),
      ExchangeRecord.raw(
        id: samples.short(), isAutoDelete: samples.flag(), isInternal: samples.flag(),
        vhost: samples.name(), name: samples.name(), type: samples.name(), arguments: table),
      RawRecord(kind: 35, word: samples.short(), payload: []),
      binding, binding.ofKind(37),
      LaneRecord.raw(
        id: samples.short(), queue: samples.short(), role: samples.short(),
        priority: samples.short()),
      LaneStateRecord.raw(
        lane: 1, nextSequence: samples.number(), deliveredUpTo: samples.number(),
        movedUpTo: samples.number()),
      IdsRecord.raw(
        nextQueue: samples.short(), nextExchange: samples.short(), nextLane: samples.short()),
      LaneAliveRecord.raw(lane: samples.short(), ranges: ranges),
      DeliveryCountsRecord.raw(lane: samples.short(), counts: samples.counts()),
      RememberedRecord.raw(
        id: samples.short(), isOfQueue: samples.flag(), until: samples.number(),
        value: samples.name()),
      kept(&samples),
      RawRecord(kind: 41, word: samples.short(), payload: bytes([samples.number()])),
      GroupOffsetRecord.raw(
        lane: samples.short(), offset: samples.number(), group: samples.name()),
      GroupDeletedRecord.raw(queue: samples.short(), group: samples.name()),
      ProducerSequenceRecord.raw(
        stream: samples.short(), sequence: samples.number(), producer: samples.name()),
      PartitionStateRecord.raw(
        lane: samples.short(), start: samples.number(),
        segments: ranges.map {
          SegmentState(base: $0.first, end: $0.count, length: 7, batches: 2, latest: $0.first)
        }),
    ]
    let settle = RawRecord(
      kind: 17, word: 4, payload: bytes(ranges) { $0.append(to: &$1) })
    return plain.map { ($0, 0) } + [(settle, UInt16(ranges.count))]
  }

  private static func bytes(_ numbers: [UInt64]) -> [UInt8] {
    var bytes: [UInt8] = []
    for number in numbers { bytes.append(littleEndian: number) }
    return bytes
  }

  @Test func aRecordThatIsReadAndWrittenAgainHasTheSameBytes() throws {
    for seed in UInt64(1)...200 {
      var samples = Samples(seed: seed)
      var kinds: Set<UInt8> = []
      for (raw, count) in Self.all(&samples) {
        kinds.insert(raw.kind)
        let again = try Self.view(raw, count: count) { try Self.written(try BrokerRecord($0), raw) }
        #expect(again == raw, "seed \(seed), kind \(raw.kind)")
      }
      #expect(kinds == Set(BrokerRecord.Kind.allCases.map(\.rawValue)))
    }
  }

  /// The record made anew of its fields alone.
  private static func written(_ record: BrokerRecord, _ raw: RawRecord) throws -> RawRecord {
    switch record {
    case .message(let fields):
      var payload = bytes([
        UInt64(fields.propertiesSize) | UInt64(fields.destinationCount) << 32, fields.storedAt,
      ])
      for name in [fields.exchange, fields.routingKey] {
        payload += [UInt8(name.bytes.count)] + name.bytes
      }
      payload += Array(fields.properties) + Array(fields.body)
      for place in fields.destinations { place.append(to: &payload) }
      return RawRecord(kind: 16, word: fields.bodySize, payload: payload)
    case .settle(let fields):
      return RawRecord(
        kind: 17, word: fields.lane, payload: bytes(Array(fields.ranges)) { $0.append(to: &$1) })
    case .delivered(let fields):
      return RawRecord(kind: 18, word: fields.lane, payload: bytes([fields.sequence]))
    case .deliveryCounts(let fields):
      return DeliveryCountsRecord.raw(lane: fields.lane, counts: Array(fields.counts))
    case .queue(let fields):
      return QueueRecord.raw(
        id: fields.id, isAutoDelete: fields.isAutoDelete, vhost: fields.vhost, name: fields.name,
        arguments: fields.arguments.encoded)
    case .queueDeleted(let fields): return RawRecord(kind: 33, word: fields.id, payload: [])
    case .exchange(let fields):
      return ExchangeRecord.raw(
        id: fields.id, isAutoDelete: fields.isAutoDelete, isInternal: fields.isInternal,
        vhost: fields.vhost, name: fields.name, type: fields.type,
        arguments: fields.arguments.encoded)
    case .exchangeDeleted(let fields): return RawRecord(kind: 35, word: fields.id, payload: [])
    case .binding(let fields), .bindingRemoved(let fields):
      return BindingRecord.raw(
        source: fields.source, isToExchange: fields.isToExchange, destination: fields.destination,
        key: fields.key, arguments: fields.arguments.encoded
      ).ofKind(raw.kind)
    case .remembered(let fields):
      return RememberedRecord.raw(
        id: fields.id, isOfQueue: fields.isOfQueue, until: fields.until, value: fields.value)
    case .kept(let fields):
      return kept(
        fields.exchange, fields.number, [fields.publishedTo, fields.routingKey],
        Array(fields.properties), Array(fields.body))
    case .lane(let fields):
      return LaneRecord.raw(
        id: fields.id, queue: fields.queue, role: fields.role, priority: fields.priority)
    case .laneState(let fields):
      return LaneStateRecord.raw(
        lane: fields.lane, nextSequence: fields.nextSequence,
        deliveredUpTo: fields.deliveredUpTo, movedUpTo: fields.movedUpTo)
    case .ids(let fields):
      return IdsRecord.raw(
        nextQueue: fields.nextQueue, nextExchange: fields.nextExchange, nextLane: fields.nextLane)
    case .laneAlive(let fields):
      return LaneAliveRecord.raw(lane: fields.lane, ranges: Array(fields.ranges))
    case .partitionState(let fields):
      return PartitionStateRecord.raw(
        lane: fields.lane, start: fields.start, segments: Array(fields.segments))
    case .partitionTrimmed(let fields):
      return RawRecord(kind: 41, word: fields.lane, payload: bytes([fields.start]))
    case .groupOffset(let fields):
      return GroupOffsetRecord.raw(lane: fields.lane, offset: fields.offset, group: fields.group)
    case .groupDeleted(let fields):
      return GroupDeletedRecord.raw(queue: fields.queue, group: fields.group)
    case .producerSequence(let fields):
      return ProducerSequenceRecord.raw(
        stream: fields.stream, sequence: fields.sequence, producer: fields.producer)
    case .ignorable: return RawRecord(kind: raw.kind, payload: [])
    }
  }

  /// A list that goes to the record's end is a shorter one when it is cut between two items.
  private static func isShorterList(_ kind: UInt8, _ size: Int) -> Bool {
    let payload = size - Record.headerSize
    switch kind {
    case BrokerRecord.Kind.laneAlive.rawValue: return payload >= 0 && payload % 16 == 0
    case BrokerRecord.Kind.partitionState.rawValue:
      return payload >= 8 && (payload - 8) % SegmentState.size == 0
    case BrokerRecord.Kind.deliveryCounts.rawValue: return payload >= 0 && payload % 12 == 0
    default: return false
    }
  }

  @Test func aRecordThatIsCutShortIsRefusedAtEveryLength() throws {
    for seed in UInt64(1)...20 {
      var samples = Samples(seed: seed)
      for (raw, count) in Self.all(&samples) where !raw.payload.isEmpty {
        for size in 8..<Record.headerSize + raw.payload.count {
          let problem = Self.view(raw, count: count, size: size) { view -> RecordProblem? in
            do throws(RecordProblem) {
              let text = try BrokerRecord(view).text
              return text.isEmpty ? .unknownKind(0) : nil
            } catch {
              return error
            }
          }
          // Eight bytes have no kind, and are a pad, which is none of the broker's.
          let isAllowed = Self.isShorterList(raw.kind, size)
          #expect((problem == nil) == isAllowed, "seed \(seed), kind \(raw.kind), size \(size)")
        }
      }
    }
  }

  @Test func theJournalsOwnRecordsAreRefusedWhenCutShort() throws {
    for (kind, payload) in [(2, 16), (3, 16), (4, 0), (5, 8), (6, 8), (7, 0), (8, 8)] {
      let raw = RawRecord(kind: UInt8(kind), payload: [UInt8](repeating: 7, count: payload))
      for size in 9...Record.headerSize + payload {
        let isWhole = size == Record.headerSize + payload
        let isRead = Self.view(raw, size: size) { (try? OwnRecord($0)) != nil }
        #expect(isRead == isWhole, "kind \(kind), size \(size)")
      }
    }
  }
}
