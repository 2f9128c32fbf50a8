/// What a filter may be at most, so that what it costs for a message has a bound of its own
/// (Specs/Filters.md).
public enum FilterLimits {
  /// Of the text.
  public static let bytesMax = 4096
  /// Names, literals and operators.
  public static let operationsMax = 256
  /// Parentheses, NOT and signs within each other; also values that wait for their operator.
  public static let depthMax = 32
  /// Different headers that it names.
  public static let headersMax = 32
  /// Of a pattern between two `%`, when a `_` is inside: one bit of a word for each.
  public static let stretchBytesMax = 64
  /// Of a message's body, which is not looked at behind them.
  public static let bodyBytesMax = 65_536

  /// Of operations, of headers that are passed and of bytes that are compared or searched: about as
  /// many as cost what a look-up elsewhere in routing does.
  static let operationsPerStep = 8
  static let headersPerStep = 4
  static let bytesPerStep = 256
}
