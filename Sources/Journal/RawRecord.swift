/// A record as bytes, not in the log: with its header, without checksum.
public struct RawRecord: Hashable {
  public let kind: UInt8
  public let flags: UInt8
  public let word: UInt32
  public let payload: [UInt8]

  public init(_ record: RecordView) {
    self.init(
      kind: record.kind, flags: record.flags, word: record.word, payload: Array(record.payload))
  }

  public init(kind: UInt8, flags: UInt8 = 0, word: UInt32 = 0, payload: [UInt8]) {
    self.kind = kind
    self.flags = flags
    self.word = word
    self.payload = payload
  }

  public func ofKind(_ kind: UInt8) -> RawRecord {
    RawRecord(kind: kind, flags: flags, word: word, payload: payload)
  }

  /// Appends the record as checkpoints have it: its checksum zero, and padding.
  public func append(to bytes: inout [UInt8]) {
    let size = Record.headerSize + payload.count
    bytes.append(littleEndian: UInt64(UInt32(size)))
    bytes.append(littleEndian: UInt32(kind) | UInt32(flags) << 8)
    bytes.append(littleEndian: word)
    bytes += payload
    bytes += [UInt8](repeating: 0, count: Record.padded(size) - size)
  }

  /// Appends the record to the log.
  public func append(to journal: Journal) {
    let (_, place) = journal.append(
      kind: kind, flags: flags, word: word, payloadSize: payload.count)
    payload.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { place.copyMemory(from: base, byteCount: bytes.count) }
    }
  }
}

extension [UInt8] {
  public mutating func append<Value: FixedWidthInteger>(littleEndian value: Value) {
    Swift.withUnsafeBytes(of: value.littleEndian) { self += $0 }
  }
}
