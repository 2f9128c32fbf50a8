import Base

/// A value while a filter is evaluated. A condition's is a boolean, or null where it is unknown.
enum FilterValue: BitwiseCopyable {
  case null
  case exact(Int64)
  /// Never NaN.
  case approximate(Double)
  case text(TextPlace)
  case boolean(Bool)
  /// An array or a table: of a type that is like no other.
  case opaque

  /// NaN is null.
  init(_ real: Double) { self = real.isNaN ? .null : .approximate(real) }

  init(_ truth: Bool?) { self = truth.map { .boolean($0) } ?? .null }

  /// nil is unknown.
  var truth: Bool? { if case .boolean(let value) = self { value } else { nil } }
}

/// Where the bytes of a string are.
struct TextPlace: BitwiseCopyable {
  enum Space: UInt8 {
    /// The filter's own literals.
    case pool
    case names, properties, body
  }

  var space: Space
  var start: UInt32
  var count: UInt32

  init(_ space: Space, _ range: Range<Int>) {
    self.space = space
    start = UInt32(range.lowerBound)
    count = UInt32(range.count)
  }

  var range: Range<Int> { Int(start)..<Int(start) + Int(count) }
}

enum Comparison: UInt8, BitwiseCopyable {
  case equal, different, less, lessOrEqual, greater, greaterOrEqual

  /// Both that only ask whether values are the same.
  var isEquality: Bool { self == .equal || self == .different }

  /// What it says of two values of which the left is less (-1), the same (0) or greater (1).
  @inline(__always)
  func holds(_ order: Int) -> Bool {
    switch self {
    case .equal: order == 0
    case .different: order != 0
    case .less: order < 0
    case .lessOrEqual: order <= 0
    case .greater: order > 0
    case .greaterOrEqual: order >= 0
    }
  }
}

enum Arithmetic: UInt8, BitwiseCopyable {
  case add, subtract, multiply, divide

  func apply(_ left: FilterValue, _ right: FilterValue) -> FilterValue {
    switch (left, right) {
    case (.exact(let left), .exact(let right)): exact(left, right)
    case (.exact(let left), .approximate(let right)): approximate(Double(left), right)
    case (.approximate(let left), .exact(let right)): approximate(left, Double(right))
    case (.approximate(let left), .approximate(let right)): approximate(left, right)
    default: .null
    }
  }

  /// Approximate when 64 bits are not enough.
  private func exact(_ left: Int64, _ right: Int64) -> FilterValue {
    let (value, isOverflow) =
      switch self {
      case .add: left.addingReportingOverflow(right)
      case .subtract: left.subtractingReportingOverflow(right)
      case .multiply: left.multipliedReportingOverflow(by: right)
      case .divide: left.dividedReportingOverflow(by: right)
      }
    return isOverflow ? approximate(Double(left), Double(right)) : .exact(value)
  }

  private func approximate(_ left: Double, _ right: Double) -> FilterValue {
    switch self {
    case .add: FilterValue(left + right)
    case .subtract: FilterValue(left - right)
    case .multiply: FilterValue(left * right)
    case .divide: right == 0 ? .null : FilterValue(left / right)
    }
  }
}

extension FilterValue {
  /// The order of two numbers, by value, which neither conversion would keep.
  static func order(_ left: Int64, _ right: Double) -> Int {
    // Beyond what 64 bits have, all are on one side.
    if right >= 0x1p63 { return -1 }
    if right < -0x1p63 { return 1 }
    let whole = Int64(right)
    if left != whole { return left < whole ? -1 : 1 }
    let fraction = right - Double(whole)
    return fraction > 0 ? -1 : fraction < 0 ? 1 : 0
  }

  @inline(__always)
  static func order<Number: Comparable>(_ left: Number, _ right: Number) -> Int {
    left < right ? -1 : left == right ? 0 : 1
  }
}
