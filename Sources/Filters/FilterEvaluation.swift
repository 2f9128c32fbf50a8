import AMQP
import Base

/// One run of a filter over a message. Nothing is allocated and nothing is decoded that is not asked for.
struct FilterEvaluation: ~Escapable {
  private let message: FilteredMessage
  private let pool: RawSpan
  private var stack = InlineArray<32, FilterValue>(repeating: .null)
  private var count = 0
  /// Where the properties have the value of each header of the filter, with its type; 0 if they do not.
  private var places = InlineArray<32, UInt32>(repeating: 0)
  private var hasPlaces = false
  private var bytesPassed = 0
  private var headersPassed = 0
  private var operationsDone = 0

  @_lifetime(copy message, copy pool)
  init(_ message: FilteredMessage, pool: RawSpan) {
    self.message = message
    self.pool = pool
  }

  var steps: Int {
    1 + operationsDone / FilterLimits.operationsPerStep
      + headersPassed / FilterLimits.headersPerStep + bytesPassed / FilterLimits.bytesPerStep
  }

  @_lifetime(self: copy self)
  mutating func run(_ filter: Filter) -> Bool? {
    let operations = filter.operations
    var index = 0
    while index < operations.count {
      let operation = operations[index]
      index += 1
      operationsDone &+= 1
      switch operation {
      case .exact(let value): push(.exact(value))
      case .approximate(let value): push(.approximate(value))
      case .text(let place): push(.text(place))
      case .boolean(let value): push(.boolean(value))
      case .header(let number): push(header(Int(number), filter))
      case .property(let property): push(value(of: property))
      case .exchange: push(name(isKey: false))
      case .routingKey: push(name(isKey: true))
      case .body:
        push(.text(TextPlace(.body, 0..<min(message.body.byteCount, FilterLimits.bodyBytesMax))))
      case .negate: push(Arithmetic.subtract.apply(.exact(0), pop()))
      case .mustBeNumber: push(Arithmetic.add.apply(.exact(0), pop()))
      case .not: push(FilterValue(pop().truth.map { !$0 }))
      case .isNull(let isNegated):
        let isNull = if case .null = pop() { true } else { false }
        push(.boolean(isNull != isNegated))
      case .isIn(let first, let count, let isNegated):
        let value = pop()
        let range = Int(first)..<Int(first) + Int(count)
        push(FilterValue(isIn(value, filter.literals[range]).map { $0 != isNegated }))
      case .like(let pattern, let isNegated):
        push(FilterValue(like(pop(), filter.patterns[Int(pattern)]).map { $0 != isNegated }))
      case .arithmetic(let arithmetic):
        let right = pop()
        push(arithmetic.apply(pop(), right))
      case .compare(let comparison):
        let right = pop()
        push(FilterValue(compare(pop(), comparison, right)))
      case .between(let isNegated): between(isNegated: isNegated)
      case .and:
        let right = pop().truth
        push(FilterValue(Self.and(pop().truth, right)))
      case .or:
        let right = pop().truth.map { !$0 }
        push(FilterValue(Self.and(pop().truth.map { !$0 }, right).map { !$0 }))
      case .skipIfFalse(let end): if top.truth == false { index = Int(end) }
      case .skipIfTrue(let end): if top.truth == true { index = Int(end) }
      }
    }
    return top.truth
  }

  // MARK: The stack

  private var top: FilterValue { stack[count - 1] }

  @_lifetime(self: copy self)
  @inline(__always)
  private mutating func push(_ value: FilterValue) {
    stack[count] = value
    count &+= 1
  }

  @_lifetime(self: copy self)
  @inline(__always)
  private mutating func pop() -> FilterValue {
    count &-= 1
    return stack[count]
  }

  // MARK: Values of the message

  private func name(isKey: Bool) -> FilterValue {
    let names = message.names
    guard names.byteCount > 0 else { return .null }
    let size = Int(names.unsafeLoad(fromByteOffset: 0, as: UInt8.self))
    let range = isKey ? 2 + size..<max(2 + size, names.byteCount) : 1..<1 + size
    guard range.upperBound <= names.byteCount else { return .null }
    return .text(TextPlace(.names, range))
  }

  private func value(of property: FilterProperty) -> FilterValue {
    guard let place = property.flag.place(in: message.properties) else { return .null }
    guard property.isNumber else { return .text(TextPlace(.properties, place)) }
    var reader = ByteReader(message.properties.extracting(place))
    do throws(MalformedInput) {
      switch property {
      case .expiration: return try Self.digits(&reader)
      case .timestamp: return Self.number(try reader.u64())
      default: return .exact(Int64(try reader.u8()))
      }
    } catch {
      return .null
    }
  }

  /// A number in decimal digits; null if there is another character, or it is too large.
  private static func digits(_ reader: inout ByteReader) throws(MalformedInput) -> FilterValue {
    guard !reader.isAtEnd else { return .null }
    var value: Int64 = 0
    while !reader.isAtEnd {
      let digit = Int64(try reader.u8()) - 0x30
      guard 0...9 ~= digit else { return .null }
      let (tenfold, isTooLarge) = value.multipliedReportingOverflow(by: 10)
      let (next, isLarger) = tenfold.addingReportingOverflow(digit)
      guard !isTooLarge, !isLarger else { return .null }
      value = next
    }
    return .exact(value)
  }

  private static func number(_ value: UInt64) -> FilterValue {
    Int64(exactly: value).map { .exact($0) } ?? .approximate(Double(value))
  }

  @_lifetime(self: copy self)
  private mutating func header(_ number: Int, _ filter: Filter) -> FilterValue {
    if !hasPlaces {
      hasPlaces = true
      findHeaders(filter)
    }
    let place = Int(places[number])
    guard place > 0 else { return .null }
    return Self.value(at: place, message.properties)
  }

  /// Goes over the headers once. Those behind a damaged one are not there.
  @_lifetime(self: copy self)
  private mutating func findHeaders(_ filter: Filter) {
    guard message.headers.count > 4, message.headers.upperBound <= message.properties.byteCount
    else { return }
    let base = message.headers.lowerBound
    let wanted = filter.headers
    var missing = wanted.count
    do throws(MalformedInput) {
      let table = message.properties.extracting(message.headers)
      var cursor = try FieldTableCursor(table)
      while try cursor.next() {
        headersPassed &+= 1
        for index in wanted.indices where wanted[index].count == cursor.name.count {
          guard places[index] == 0,
            Self.equal(table.extracting(cursor.name), pool.extracting(wanted[index]))
          else { continue }
          places[index] = UInt32(base + cursor.value.lowerBound)
          missing -= 1
          guard missing > 0 else { return }
        }
      }
    } catch {
      return
    }
  }

  /// A value with its type letter, which a cursor has found whole.
  private static func value(at place: Int, _ properties: RawSpan) -> FilterValue {
    var reader = ByteReader(properties.extracting(place..<properties.byteCount))
    do throws(MalformedInput) {
      switch try reader.u8() {
      case UInt8(ascii: "t"): return .boolean(try reader.u8() != 0)
      case UInt8(ascii: "b"): return .exact(Int64(Int8(bitPattern: try reader.u8())))
      case UInt8(ascii: "B"): return .exact(Int64(try reader.u8()))
      case UInt8(ascii: "s"), UInt8(ascii: "U"):
        return .exact(Int64(Int16(bitPattern: try reader.u16())))
      case UInt8(ascii: "u"): return .exact(Int64(try reader.u16()))
      case UInt8(ascii: "I"): return .exact(Int64(Int32(bitPattern: try reader.u32())))
      case UInt8(ascii: "i"): return .exact(Int64(try reader.u32()))
      case UInt8(ascii: "l"), UInt8(ascii: "L"):
        return .exact(Int64(bitPattern: try reader.u64()))
      case UInt8(ascii: "T"): return number(try reader.u64())
      case UInt8(ascii: "f"): return FilterValue(Double(Float(bitPattern: try reader.u32())))
      case UInt8(ascii: "d"): return FilterValue(Double(bitPattern: try reader.u64()))
      case UInt8(ascii: "D"):
        let scale = try reader.u8()
        return FilterValue(decimal(try reader.u32(), scale: scale))
      case UInt8(ascii: "S"), UInt8(ascii: "x"):
        let size = Int(try reader.u32())
        let start = place + (try reader.take(size))
        return .text(TextPlace(.properties, start..<start + size))
      case UInt8(ascii: "V"): return .null
      default: return .opaque
      }
    } catch {
      return .null
    }
  }

  private static func decimal(_ value: UInt32, scale: UInt8) -> Double {
    var result = Double(value)
    for _ in 0..<scale { result /= 10 }
    return result
  }

  // MARK: Operators

  private static func and(_ left: Bool?, _ right: Bool?) -> Bool? {
    if left == false || right == false { return false }
    return left == nil || right == nil ? nil : true
  }

  @_lifetime(self: copy self)
  private mutating func between(isNegated: Bool) {
    let high = pop()
    let low = pop()
    let value = pop()
    if isNegated {
      let below = compare(value, .less, low)
      let above = compare(value, .greater, high)
      push(FilterValue(Self.and(below.map { !$0 }, above.map { !$0 }).map { !$0 }))
    } else {
      let isAbove = compare(value, .greaterOrEqual, low)
      push(FilterValue(Self.and(isAbove, compare(value, .lessOrEqual, high))))
    }
  }

  @_lifetime(self: copy self)
  private mutating func isIn(_ value: FilterValue, _ literals: ArraySlice<FilterValue>) -> Bool? {
    if case .null = value { return nil }
    for literal in literals where compare(value, .equal, literal) == true { return true }
    return false
  }

  @_lifetime(self: copy self)
  private mutating func like(_ value: FilterValue, _ pattern: LikePattern) -> Bool? {
    guard case .text(let place) = value else { return nil }
    bytesPassed &+= Int(place.count)
    return pattern.matches(bytes(place), pool: pool)
  }

  /// nil is unknown.
  @_lifetime(self: copy self)
  private mutating func compare(
    _ left: FilterValue, _ comparison: Comparison, _ right: FilterValue
  ) -> Bool? {
    switch (left, right) {
    case (.null, _), (_, .null): return nil
    case (.exact(let left), .exact(let right)):
      return comparison.holds(FilterValue.order(left, right))
    case (.exact(let left), .approximate(let right)):
      return comparison.holds(FilterValue.order(left, right))
    case (.approximate(let left), .exact(let right)):
      return comparison.holds(-FilterValue.order(right, left))
    case (.approximate(let left), .approximate(let right)):
      return comparison.holds(FilterValue.order(left, right))
    case (.boolean(let left), .boolean(let right)):
      return comparison.isEquality && comparison.holds(left == right ? 0 : 1)
    case (.text(let left), .text(let right)):
      bytesPassed &+= Int(min(left.count, right.count))
      if comparison.isEquality {
        return comparison.holds(Self.equal(bytes(left), bytes(right)) ? 0 : 1)
      }
      return comparison.holds(Self.order(bytes(left), bytes(right)))
    default: return false
    }
  }

  @_lifetime(copy self)
  private func bytes(_ place: TextPlace) -> RawSpan {
    switch place.space {
    case .pool: pool.extracting(place.range)
    case .names: message.names.extracting(place.range)
    case .properties: message.properties.extracting(place.range)
    case .body: message.body.extracting(place.range)
    }
  }

  private static func equal(_ left: RawSpan, _ right: RawSpan) -> Bool {
    left.byteCount == right.byteCount && order(left, right) == 0
  }

  private static func order(_ left: RawSpan, _ right: RawSpan) -> Int {
    left.order(to: right)
  }
}
