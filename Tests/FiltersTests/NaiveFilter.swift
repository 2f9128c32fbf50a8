import AMQP
import Arbitrary
import Base

/// A condition as a tree, with its text, and what it is by definition.
indirect enum NaiveFilter {
  case or(NaiveFilter, NaiveFilter)
  case and(NaiveFilter, NaiveFilter)
  case not(NaiveFilter)
  case compare(NaiveValue, String, NaiveValue)
  case between(NaiveValue, Bool, NaiveValue, NaiveValue)
  case isIn(NaiveValue, Bool, [NaiveValue])
  case isNull(NaiveValue, Bool)
  case header(String)

  static let names = ["a", "b", "c"]

  var text: String {
    switch self {
    case .or(let left, let right): "(\(left.text)) OR (\(right.text))"
    case .and(let left, let right): "(\(left.text)) AND (\(right.text))"
    case .not(let inner): "NOT (\(inner.text))"
    case .compare(let left, let sign, let right): "\(left.text) \(sign) \(right.text)"
    case .between(let value, let isNegated, let low, let high):
      "\(value.text)\(isNegated ? " NOT" : "") BETWEEN \(low.text) AND \(high.text)"
    case .isIn(let value, let isNegated, let list):
      "\(value.text)\(isNegated ? " NOT" : "") IN (\(list.map(\.text).joined(separator: ", ")))"
    case .isNull(let value, let isNegated): "\(value.text) IS \(isNegated ? "NOT " : "")NULL"
    case .header(let name): name
    }
  }

  func truth(_ headers: FieldTable) -> Bool? {
    switch self {
    case .or(let left, let right):
      let sides = [left.truth(headers), right.truth(headers)]
      return sides.contains(true) ? true : sides.contains(nil) ? nil : false
    case .and(let left, let right):
      let sides = [left.truth(headers), right.truth(headers)]
      return sides.contains(false) ? false : sides.contains(nil) ? nil : true
    case .not(let inner): return inner.truth(headers).map { !$0 }
    case .compare(let left, let sign, let right):
      return Self.compare(left.value(headers), sign, right.value(headers))
    case .between(let value, false, let low, let high):
      return NaiveFilter.and(.compare(value, ">=", low), .compare(value, "<=", high)).truth(headers)
    case .between(let value, true, let low, let high):
      return NaiveFilter.or(.compare(value, "<", low), .compare(value, ">", high)).truth(headers)
    case .isIn(let value, let isNegated, let list):
      guard let value = value.value(headers) else { return nil }
      let found = list.contains { Self.compare(value, "=", $0.value(headers)) == true }
      return found != isNegated
    case .isNull(let value, let isNegated): return (value.value(headers) == nil) != isNegated
    case .header(let name):
      if case .bool(let value) = NaiveValue.header(name).value(headers) { return value }
      return nil
    }
  }

  private static func compare(_ left: FieldValue?, _ sign: String, _ right: FieldValue?) -> Bool? {
    guard let left, let right else { return nil }
    if case .bool(let left) = left, case .bool(let right) = right {
      return sign == "=" ? left == right : sign == "<>" ? left != right : false
    }
    let order: (isLess: Bool, isSame: Bool)
    switch (left, right) {
    case (.int64(let left), .int64(let right)): order = (left < right, left == right)
    case (.double(let left), .double(let right)): order = (left < right, left == right)
    // Swift compares numbers of different types by value.
    case (.int64(let left), .double(let right)):
      order = (isLess(left, right), Int64(exactly: right) == left)
    case (.double(let left), .int64(let right)):
      let isSame = Int64(exactly: left) == right
      order = (!isSame && !isLess(right, left), isSame)
    case (.string(let left), .string(let right)):
      order = (left.lexicographicallyPrecedes(right), left == right)
    default: return false
    }
    switch sign {
    case "=": return order.isSame
    case "<>": return !order.isSame
    case "<": return order.isLess
    case "<=": return order.isLess || order.isSame
    case ">": return !order.isLess && !order.isSame
    default: return !order.isLess
    }
  }

  private static func isLess(_ left: Int64, _ right: Double) -> Bool {
    guard let bound = Int64(exactly: right.rounded(.up)) else { return right > 0 }
    return left < bound
  }
}

/// A value as a tree.
indirect enum NaiveValue {
  /// Integers as `int64`, reals as `double`.
  case literal(FieldValue)
  case header(String)
  case arithmetic(NaiveValue, String, NaiveValue)

  var text: String {
    switch self {
    case .literal(.int64(let value)): "\(value)"
    case .literal(.double(let value)): "\(value)"
    case .literal(.bool(let value)): value ? "TRUE" : "FALSE"
    case .literal(let value): "'\(value.text ?? "")'"
    case .header(let name): name
    case .arithmetic(let left, let sign, let right): "(\(left.text) \(sign) \(right.text))"
    }
  }

  /// nil is NULL.
  func value(_ headers: FieldTable) -> FieldValue? {
    switch self {
    case .literal(let value): return value
    case .header(let name):
      guard let value = headers[Name(name)], value != .void else { return nil }
      if let integer = value.integer { return .int64(integer) }
      if case .double(let real) = value { return real.isNaN ? nil : value }
      if case .bytes(let bytes) = value { return .string(bytes) }
      return value
    case .arithmetic(let left, let sign, let right):
      return Self.apply(left.value(headers), sign, right.value(headers))
    }
  }

  private static func apply(
    _ left: FieldValue?, _ sign: String, _ right: FieldValue?
  ) -> FieldValue? {
    if case .int64(let left) = left, case .int64(let right) = right {
      if sign == "/", right == 0 { return nil }
      let (value, isOverflow) =
        switch sign {
        case "+": left.addingReportingOverflow(right)
        case "-": left.subtractingReportingOverflow(right)
        case "*": left.multipliedReportingOverflow(by: right)
        default: left.dividedReportingOverflow(by: right)
        }
      if !isOverflow { return .int64(value) }
    }
    guard let left = real(left), let right = real(right) else { return nil }
    if sign == "/", right == 0 { return nil }
    let value =
      switch sign {
      case "+": left + right
      case "-": left - right
      case "*": left * right
      default: left / right
      }
    return value.isNaN ? nil : .double(value)
  }

  private static func real(_ value: FieldValue?) -> Double? {
    switch value {
    case .int64(let value): Double(value)
    case .double(let value): value
    default: nil
    }
  }
}

// MARK: At random

extension NaiveFilter {
  static func condition(_ random: inout SeededGenerator, depth: Int) -> NaiveFilter {
    if depth > 0 {
      switch random.number(0...4) {
      case 0: return .or(condition(&random, depth: depth - 1), condition(&random, depth: depth - 1))
      case 1:
        return .and(condition(&random, depth: depth - 1), condition(&random, depth: depth - 1))
      case 2: return .not(condition(&random, depth: depth - 1))
      default: break
      }
    }
    let type = random.choose(NaiveValue.Kind.allCases)
    let value = NaiveValue.some(&random, type, depth: depth)
    let other = NaiveValue.some(&random, type, depth: depth)
    let signs = type == .truth ? ["=", "<>"] : ["=", "<>", "<", "<=", ">", ">="]
    switch random.number(0...5) {
    case 0 where type != .truth:
      return .between(value, random.flag(), other, .some(&random, type, depth: depth))
    case 1:
      let list = (0...random.number(0...3)).map { _ in
        NaiveValue.literal(&random, random.choose(NaiveValue.Kind.allCases))
      }
      return .isIn(value, random.flag(), list)
    case 2: return .isNull(value, random.flag())
    case 3: return .header(random.choose(names))
    default: return .compare(value, random.choose(signs), other)
    }
  }
}

extension NaiveValue {
  enum Kind: CaseIterable {
    case number, string, truth
  }

  static func literal(_ random: inout SeededGenerator, _ kind: Kind) -> NaiveValue {
    switch kind {
    case .number:
      random.flag()
        ? .literal(.int64(Int64(random.number(-3...3))))
        : .literal(.double(random.choose([0.5, 1, -2, 0, 0x1p63, 9_223_372_036_854_774_784])))
    case .string: .literal(.string(random.choose(["", "a", "ab", "b", "ä"])))
    case .truth: .literal(.bool(random.flag()))
    }
  }

  /// Of a type, or a header, which may be of any.
  static func some(_ random: inout SeededGenerator, _ kind: Kind, depth: Int) -> NaiveValue {
    if kind == .number, depth > 0, random.oneIn(3) {
      return .arithmetic(
        some(&random, .number, depth: depth - 1), random.choose(["+", "-", "*", "/"]),
        some(&random, .number, depth: depth - 1))
    }
    return random.flag() ? .header(random.choose(NaiveFilter.names)) : literal(&random, kind)
  }
}
