import AMQP
import Base

/// The values of headers as JSON. What people look at is the plain value; where reading it back would
/// give another type, the type's name stands in a second tree of the same shape, so that nothing is
/// lost: `{"n":1,"at":1700000000}` with `{"at":"timestamp"}`.
package enum FieldJSON {
  /// The types that need a name, in both directions.
  private enum TypeName: String {
    case int8, uint8, int16, uint16, int32, uint32, int64, float, double, decimal, timestamp, bytes
    case stringBase64 = "string_base64"
    case bytesBase64 = "bytes_base64"
  }

  // MARK: Writing

  package static func write(_ table: FieldTable, into json: inout JSONWriter) {
    json.object { json in
      for entry in table.entries {
        json.key(entry.name.description)
        write(entry.value, into: &json)
      }
    }
  }

  private static func write(_ value: FieldValue, into json: inout JSONWriter) {
    switch value {
    case .void: json.null()
    case .bool(let flag): json.value(flag)
    case .int8, .uint8, .int16, .uint16, .int32, .uint32, .int64: json.value(value.integer ?? 0)
    case .float(let number): json.value(Double(number))
    case .double(let number): json.value(number)
    case .decimal(let scale, let number): json.literal("\(number)e-\(scale)")
    case .string(let bytes), .bytes(let bytes):
      json.value(String(validating: bytes, as: UTF8.self) ?? Base64.encode(bytes))
    case .timestamp(let seconds): json.value(seconds)
    case .array(let values):
      json.array { json in
        for value in values { write(value, into: &json) }
      }
    case .table(let table): write(table, into: &json)
    }
  }

  /// The types that the plain values do not show; nil if they show all.
  package static func types(of table: FieldTable) -> JSONValue? {
    let members = table.entries.compactMap { entry in
      types(of: entry.value).map { JSONValue.Member(name: entry.name.description, value: $0) }
    }
    return members.isEmpty ? nil : .object(members)
  }

  private static func types(of value: FieldValue) -> JSONValue? {
    if case .table(let table) = value { return types(of: table) }
    if case .array(let values) = value {
      let all = values.map { types(of: $0) }
      return all.contains { $0 != nil } ? .array(all.map { $0 ?? .null }) : nil
    }
    return typeName(of: value).map { .string($0.rawValue) }
  }

  private static func typeName(of value: FieldValue) -> TypeName? {
    switch value {
    case .void, .bool, .int32, .array, .table: nil
    case .int8: .int8
    case .uint8: .uint8
    case .int16: .int16
    case .uint16: .uint16
    case .uint32: .uint32
    case .int64(let number): Int32(exactly: number) == nil ? nil : .int64
    case .float: .float
    case .double(let number): number.isFinite ? nil : .double
    case .decimal: .decimal
    case .timestamp: .timestamp
    case .string(let bytes): String(validating: bytes, as: UTF8.self) == nil ? .stringBase64 : nil
    case .bytes(let bytes):
      String(validating: bytes, as: UTF8.self) == nil ? .bytesBase64 : .bytes
    }
  }

  /// Whether the two trees say all: names that are not UTF-8, or stand twice, they cannot.
  package static func isFaithful(_ table: FieldTable) -> Bool {
    var names: Set<[UInt8]> = []
    return table.entries.allSatisfy { entry in
      names.insert(entry.name.bytes).inserted
        && String(validating: entry.name.bytes, as: UTF8.self) != nil && isFaithful(entry.value)
    }
  }

  private static func isFaithful(_ value: FieldValue) -> Bool {
    switch value {
    case .table(let table): isFaithful(table)
    case .array(let values): values.allSatisfy { isFaithful($0) }
    default: true
    }
  }

  // MARK: Reading

  /// The table that was written as `json`, with its `types`.
  package static func table(
    _ json: JSONValue, types: JSONValue?
  ) throws(JSONValue.Problem) -> FieldTable {
    guard case .object(let members) = json else {
      throw JSONValue.Problem(text: "headers are an object, not \(json.kind)")
    }
    var table = FieldTable()
    for member in members {
      guard member.name.utf8.count <= Name.sizeMax else {
        throw JSONValue.Problem(text: "a header's name is longer than \(Name.sizeMax) bytes")
      }
      let type = try Self.member(member.name, of: types)
      let value = try value(member.value, type, of: member.name)
      table.entries.append(.init(name: Name(member.name), value: value))
    }
    return table
  }

  private static func member(
    _ name: String, of types: JSONValue?
  ) throws(JSONValue.Problem) -> JSONValue? {
    switch types {
    case nil, .null?: return nil
    case .object(let members)?: return members.first { $0.name == name }?.value
    default: throw JSONValue.Problem(text: #"header_types does not fit the shape at "\#(name)""#)
    }
  }

  private static func value(
    _ json: JSONValue, _ type: JSONValue?, of name: String
  ) throws(JSONValue.Problem) -> FieldValue {
    switch (json, type) {
    case (.object, _): return .table(try table(json, types: type))
    case (.array(let elements), nil), (.array(let elements), .null?):
      return .array(
        try elements.map { (element) throws(JSONValue.Problem) in
          try value(element, nil, of: name)
        })
    case (.array(let elements), .array(let types)?) where types.count == elements.count:
      return .array(
        try zip(elements, types).map { (pair) throws(JSONValue.Problem) in
          try value(pair.0, pair.1, of: name)
        })
    case (.null, nil), (.null, .null?): return .void
    case (.bool(let flag), nil), (.bool(let flag), .null?): return .bool(flag)
    case (.string(let text), nil), (.string(let text), .null?): return .string(text)
    case (.number(let word), nil), (.number(let word), .null?):
      guard let number = plain(word) else { break }
      return number
    case (_, .string(let type)?):
      guard let value = TypeName(rawValue: type).flatMap({ typed(json, $0) }) else { break }
      return value
    default: break
    }
    throw JSONValue.Problem(text: #"header "\#(name)" is not what header_types says"#)
  }

  /// A number whose type is not said.
  private static func plain(_ word: String) -> FieldValue? {
    if let number = Int32(word) { return .int32(number) }
    if let number = Int64(word) { return .int64(number) }
    return Double(word).map { .double($0) }
  }

  private static func typed(_ json: JSONValue, _ type: TypeName) -> FieldValue? {
    let word: String
    switch json {
    case .number(let number): word = number
    case .string(let text): word = text
    default: return nil
    }
    return switch type {
    case .int8: Int8(word).map { .int8($0) }
    case .uint8: UInt8(word).map { .uint8($0) }
    case .int16: Int16(word).map { .int16($0) }
    case .uint16: UInt16(word).map { .uint16($0) }
    case .int32: Int32(word).map { .int32($0) }
    case .uint32: UInt32(word).map { .uint32($0) }
    case .int64: Int64(word).map { .int64($0) }
    case .float: Double(word).map { .float(Float($0)) }
    case .double: Double(word).map { .double($0) }
    case .decimal: decimal(word)
    case .timestamp: UInt64(word).map { .timestamp($0) }
    case .bytes: .bytes(Array(word.utf8))
    case .stringBase64: Base64.decode(word).map { .string($0) }
    case .bytesBase64: Base64.decode(word).map { .bytes($0) }
    }
  }

  /// `1234e-2`, which other programs may have made `12.34`.
  private static func decimal(_ word: String) -> FieldValue? {
    let parts = word.lowercased().split(separator: "e", maxSplits: 1)
    let halves = (parts.first ?? "").split(
      separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    guard let whole = halves.first, let exponent = parts.count == 2 ? Int(parts[1]) : 0 else {
      return nil
    }
    let fraction = halves.count == 2 ? halves[1] : ""
    guard let scale = UInt8(exactly: fraction.utf8.count - exponent),
      let number = UInt32(whole + fraction)
    else { return nil }
    return .decimal(scale: scale, value: number)
  }
}
