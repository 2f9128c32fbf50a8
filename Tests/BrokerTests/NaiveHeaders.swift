import AMQP

@testable import Broker

/// Whether headers fulfil what a binding asks for, by definition.
extension HeadersPredicate {
  func holds(_ headers: FieldTable) -> Bool {
    requiresAll
      ? conditions.allSatisfy { Self.holds($0, in: headers) }
      : conditions.contains { Self.holds($0, in: headers) }
  }

  private static func holds(_ condition: FieldTable.Entry, in headers: FieldTable) -> Bool {
    guard let value = headers[condition.name] else { return false }
    return condition.value == .void || equal(condition.value, value)
  }

  private static func equal(_ left: FieldValue, _ right: FieldValue) -> Bool {
    switch (left.integer, right.integer) {
    case (let left?, let right?): left == right
    case (let integer?, nil): Int64(exactly: real(right) ?? .nan) == integer
    case (nil, let integer?): Int64(exactly: real(left) ?? .nan) == integer
    case (nil, nil): left == right || (real(left) != nil && real(left) == real(right))
    }
  }

  private static func real(_ value: FieldValue) -> Double? {
    switch value {
    case .float(let number): Double(number)
    case .double(let number): number
    default: nil
    }
  }
}
