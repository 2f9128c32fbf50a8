import AMQP
import Base
import Filters

/// What of a stream's records a reader wants; the others are passed over.
struct StreamSelection {
  /// What must be true of a record.
  private let filter: Filter?
  /// Which values it is to have.
  private let values: StreamFilterValues?

  /// nil if all are wanted.
  init?(
    _ arguments: FieldTable, of holder: BrokerError.ArgumentHolder
  ) throws(BrokerError) {
    filter = try Filter.wanted(by: arguments, of: holder)
    values = try StreamFilterValues(arguments, of: holder)
    if filter == nil, values == nil { return nil }
  }

  /// About what it takes of memory.
  var memoryBytes: Int { (filter?.bytes ?? 0) + (values?.memoryBytes ?? 0) }

  /// Whether both hold. What is damaged of the properties is not there.
  func wants(_ message: MessageView, _ budget: inout DeliveryBudget) -> Bool {
    let names = message.names
    let properties = message.properties(behind: names)
    let headers = PropertyFlags.headers.place(in: properties.bytes) ?? 0..<0
    var steps = 0
    defer { budget.spend(steps: steps) }
    if let values, !values.contain(properties.bytes.extracting(headers), &steps) { return false }
    guard let filter else { return true }
    let content = FilteredMessage(
      names: names.bytes, properties: properties.bytes, headers: headers,
      body: message.body(behind: properties).bytes)
    return filter.matches(content, steps: &steps)
  }
}

/// The values of the header `x-stream-filter-value` that a reader asks for.
struct StreamFilterValues {
  private static let argument: Name = "x-stream-filter"
  private static let unfilteredArgument: Name = "x-stream-match-unfiltered"
  private static let header: StaticString = "x-stream-filter-value"
  /// What is looked at in a step.
  private static let headersPerStep = 4
  private static let bytesPerStep = 256

  /// By their hashes.
  private let values: [UInt64: [[UInt8]]]
  /// Messages without a value are wanted as well.
  private let takesUnfiltered: Bool
  /// About what they take of memory.
  let memoryBytes: Int

  /// nil if none are asked for.
  init?(_ arguments: FieldTable, of holder: BrokerError.ArgumentHolder) throws(BrokerError) {
    takesUnfiltered = try Self.takesUnfiltered(arguments, of: holder)
    guard let wanted = arguments[Self.argument] else { return nil }
    let list = try Self.list(wanted, of: holder)
    values = Dictionary(grouping: list) { $0.withUnsafeBytes { SeededHash.hash($0) } }
    memoryBytes = list.reduce(256) { $0 + 128 + $1.count }
  }

  private static func takesUnfiltered(
    _ arguments: FieldTable, of holder: BrokerError.ArgumentHolder
  ) throws(BrokerError) -> Bool {
    guard let value = arguments[unfilteredArgument] else { return false }
    guard case .bool(let isTaken) = value else {
      throw .refusedArgument(
        unfilteredArgument, of: holder, reason: "{unacceptable_type,\(value.typeName)}")
    }
    return isTaken
  }

  private static func list(
    _ value: FieldValue, of holder: BrokerError.ArgumentHolder
  ) throws(BrokerError) -> [[UInt8]] {
    func refused(_ reason: String) -> BrokerError {
      .refusedArgument(argument, of: holder, reason: reason)
    }
    if case .string(let text) = value { return [text] }
    guard case .array(let elements) = value else {
      throw refused("{unacceptable_type,\(value.typeName)}")
    }
    let max = BrokerLimits.streamFilterValuesMax
    guard (1...max).contains(elements.count) else {
      throw refused("\"expected 1 to \(max) strings, got \(elements.count)\"")
    }
    var list: [[UInt8]] = []
    for element in elements {
      guard case .string(let text) = element else {
        throw refused("\"expected strings in the array, got \(element.typeName)\"")
      }
      list.append(text)
    }
    return list
  }

  /// Whether the value among a message's headers is one of them. Only a string is a value.
  func contain(_ headers: RawSpan, _ steps: inout Int) -> Bool {
    steps += 1
    guard let place = Self.place(in: headers, &steps),
      headers.unsafeLoad(fromByteOffset: place.lowerBound, as: UInt8.self) == UInt8(ascii: "S")
    else { return takesUnfiltered }
    let text = headers.extracting(place.dropFirst(5))
    steps += text.byteCount / Self.bytesPerStep
    return text.withUnsafeBytes { text in
      values[SeededHash.hash(text)]?.contains { $0.elementsEqual(text) } ?? false
    }
  }

  /// Where the header's value is, with its type letter. Of two the first counts.
  private static func place(in headers: RawSpan, _ steps: inout Int) -> Range<Int>? {
    guard !headers.isEmpty else { return nil }
    var passed = 0
    defer { steps += passed / headersPerStep }
    do throws(MalformedInput) {
      var cursor = try FieldTableCursor(headers)
      while try cursor.next() {
        passed += 1
        guard cursor.name.count == header.utf8CodeUnitCount,
          HeaderLookup.equals(headers.extracting(cursor.name), header)
        else { continue }
        return cursor.value
      }
    } catch {
      // What is behind it cannot be read, and is not there.
    }
    return nil
  }
}
