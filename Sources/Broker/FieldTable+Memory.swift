import AMQP

extension FieldTable {
  /// About what it takes of memory.
  var memoryBytes: Int { entries.reduce(0) { $0 + 96 + $1.value.memoryBytes } }
}

extension FieldValue {
  /// What an array takes besides its elements.
  private static let arrayBytes = 32

  var memoryBytes: Int {
    switch self {
    case .string(let bytes), .bytes(let bytes): Self.arrayBytes + bytes.count
    case .array(let values): values.reduce(Self.arrayBytes) { $0 + 48 + $1.memoryBytes }
    case .table(let table): Self.arrayBytes + table.memoryBytes
    case .void, .bool, .int8, .uint8, .int16, .uint16, .int32, .uint32, .int64, .float, .double,
      .decimal, .timestamp:
      0
    }
  }
}
