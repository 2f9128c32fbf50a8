/// Why a text is no filter, and where.
public struct FilterError: Error, Equatable, Sendable {
  /// The character at which it was noticed, counted from 1.
  public let column: Int
  /// Such as "expected a value, got ')'".
  public let problem: String

  public var reason: String { "column \(column): \(problem)" }
}
