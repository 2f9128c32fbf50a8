import AMQP
import Base
import Batches
import Journal

/// How messages are kept in a stream's segments: as Kafka's records, and with all that they came with.
///
/// The body is the record's value, what chose the partition is its key, and the time at which the broker got it
/// its timestamp. The first header, `amqp`, has the envelope: a byte 1, exchange and routing key with their
/// lengths in front, and the properties, byte by byte as in AMQP's content header.
struct StreamForm: PartitionForm {
  let key: StreamSettings.Key

  private static let envelopeVersion: UInt8 = 1
  private static let envelope: StaticString = "amqp"

  // MARK: To batches

  func batch(of records: [RecordView], from offset: UInt64) -> (bytes: [UInt8], timeMax: Int64) {
    var batch = BatchWriter(baseOffset: offset)
    for record in records { append(MessageView(record.base), to: &batch) }
    return (batch.finish(), batch.timeMax)
  }

  private func append(_ message: MessageView, to batch: inout BatchWriter) {
    let names = message.names
    let properties = message.properties(behind: names)
    let body = message.body(behind: properties)
    let size = 1 + names.count + properties.count
    let place: UnsafeRawBufferPointer? = key.withBytes(
      names: names.bytes, properties: properties.bytes
    ) { bytes in bytes.withUnsafeBytes { $0 } }
    batch.append(
      time: message.storedAt, key: place, value: body, headerCount: 1,
      headerBytes: BatchWriter.headerSize(Self.envelope, valueSize: size))
    batch.header(Self.envelope, valueSize: size)
    batch.append(value: Self.envelopeVersion)
    batch.append(value: names)
    batch.append(value: properties)
  }

  // MARK: From batches

  /// Bytes of a message's record beside what its batch has of it, at most: the header, the fields before the
  /// names, what a record without an envelope lacks, and what pads it.
  private static let growthMax = Record.headerSize + MessageRecord.fixedBytes + 16 + 8

  func fill(_ page: inout PartitionPage, from input: UnsafeRawBufferPointer) -> PageResult {
    var batches: [(bytes: UnsafeRawBufferPointer, header: BatchHeader)] = []
    var (place, count, room) = (0, 0, 0)
    while place < input.count {
      let rest = UnsafeRawBufferPointer(rebasing: input[place...])
      guard rest.count >= BatchHeader.size else {
        if batches.isEmpty { return .needsInput(BatchHeader.size) }
        break
      }
      guard let header = BatchHeader(rest) else {
        if batches.isEmpty { return .damaged("is none") }
        break
      }
      guard header.byteCount <= rest.count else {
        if batches.isEmpty { return .needsInput(header.byteCount) }
        break
      }
      let bytes = UnsafeRawBufferPointer(rebasing: rest[..<header.byteCount])
      // Before its counts are believed.
      guard header.codec == 0, BatchHeader.isSound(bytes) else {
        if batches.isEmpty { return .damaged("is not what was written") }
        break
      }
      guard header.isPlausible else {
        if batches.isEmpty { return .damaged("has malformed records") }
        break
      }
      let growth = header.byteCount + header.recordCount * Self.growthMax
      let needed = PartitionPage.size(
        count: count + header.recordCount, recordBytes: room + growth)
      guard needed <= page.memory.count else {
        if batches.isEmpty { return .needsRoom(needed) }
        break
      }
      batches.append((bytes, header))
      place += header.byteCount
      count += header.recordCount
      room += growth
    }
    return fill(&page, batches, count: count, inputBytes: place)
  }

  private func fill(
    _ page: inout PartitionPage, _ batches: [(bytes: UnsafeRawBufferPointer, header: BatchHeader)],
    count: Int, inputBytes: Int
  ) -> PageResult {
    var index = 0
    var offset = Record.padded(PartitionPage.recordsStart(count: count))
    for (bytes, header) in batches {
      for record in BatchReader(bytes, header) {
        guard index < count, let base = page.memory.baseAddress else { break }
        page.setEntry(index, packed: (record.offset + 1) << 8, offset: offset)
        offset += Self.write(record, at: base + offset)
        index += 1
      }
    }
    guard index == count else { return .damaged("has malformed records") }
    page.finish(count: count, inputBytes: inputBytes)
    return .filled
  }

  /// Writes the record that the message was in the log; returns its bytes, padded.
  private static func write(_ record: StoredRecord, at base: UnsafeMutableRawPointer) -> Int {
    let value = record.value ?? UnsafeRawBufferPointer(start: nil, count: 0)
    let envelope = envelope(of: record)
    // What no AMQP client published has no name, no key and no properties.
    let head = envelope ?? UnsafeRawBufferPointer(start: nil, count: 0)
    let namesSize =
      envelope.map { 2 + Int($0[0]) + Int($0[1 + Int($0[0])]) } ?? 2
    let propertiesSize = envelope.map { $0.count - namesSize } ?? 2
    let payload = base + Record.headerSize
    MessageRecord.write(
      at: payload, propertiesSize: UInt32(propertiesSize), destinationCount: 0,
      storedAt: UInt64(bitPattern: record.time))
    var place = payload + MessageRecord.fixedBytes
    if envelope == nil {
      place.storeBytes(of: 0, as: UInt32.self)
      place += 4
    } else {
      place.copyMemory(from: head.baseAddress.unsafelyUnwrapped, byteCount: head.count)
      place += head.count
    }
    if let start = value.baseAddress, value.count > 0 {
      place.copyMemory(from: start, byteCount: value.count)
    }
    let size = place + value.count - base
    Record.writeHeader(
      base, size: size, kind: BrokerRecord.Kind.message.rawValue, flags: 0, count: 0,
      word: UInt32(value.count))
    return Record.padded(size)
  }

  /// What is behind the envelope's version; nil for a record that has none.
  private static func envelope(of record: StoredRecord) -> UnsafeRawBufferPointer? {
    guard let (key, value) = record.firstHeader, let value, value.count >= 5,
      key.elementsEqual(
        UnsafeBufferPointer(start: envelope.utf8Start, count: envelope.utf8CodeUnitCount)),
      value[0] == envelopeVersion
    else { return nil }
    let rest = UnsafeRawBufferPointer(rebasing: value[1...])
    let exchange = Int(rest[0])
    guard exchange + 2 <= rest.count else { return nil }
    let routingKey = Int(rest[exchange + 1])
    guard exchange + routingKey + 4 <= rest.count,
      isWellFormed(properties: rest[(exchange + routingKey + 2)...])
    else { return nil }
    return rest
  }

  /// Others than AMQP's clients may have written it.
  private static func isWellFormed(
    properties: Slice<UnsafeRawBufferPointer>
  ) -> Bool {
    do throws(MalformedInput) {
      _ = try PropertyBlock(UnsafeRawBufferPointer(rebasing: properties).bytes)
      return true
    } catch {
      return false
    }
  }
}
