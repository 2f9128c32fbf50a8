import AMQP
import Base

/// What a binding of a headers exchange asks of a message's headers.
struct HeadersPredicate: Equatable {
  private var requiresAll = true
  private var conditions: [FieldTable.Entry] = []

  init(_ arguments: FieldTable) throws(PeerError) {
    var includesPrivate = false
    if let match = arguments["x-match"] {
      switch match.text {
      case "all": break
      case "any": requiresAll = false
      case "all-with-x": includesPrivate = true
      case "any-with-x":
        requiresAll = false
        includesPrivate = true
      default:
        throw .invalidBindingArg(
          argument: "x-match",
          reason: "expected all, any, all-with-x or any-with-x, got "
            + (match.text ?? match.typeName))
      }
    }
    // Of a name that stands twice the first value counts, as everywhere.
    var names: Set<Name> = ["x-match"]
    conditions = arguments.entries.filter { entry in
      names.insert(entry.name).inserted && (includesPrivate || !entry.name.hasPrefix("x-"))
    }
  }

  func matches(_ headers: FieldTable) -> Bool {
    requiresAll
      ? conditions.allSatisfy { Self.holds($0, in: headers) }
      : conditions.contains { Self.holds($0, in: headers) }
  }

  /// A condition without a value asks only that the header is there.
  private static func holds(_ condition: FieldTable.Entry, in headers: FieldTable) -> Bool {
    guard let value = headers[condition.name] else { return false }
    return condition.value == .void || equal(condition.value, value)
  }

  /// Numbers are compared by value, whatever their width.
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
