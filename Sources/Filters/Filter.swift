import Base

/// A condition on messages, compiled (Specs/Filters.md).
public final class Filter: Sendable {
  let operations: [FilterOperation]
  /// Bytes of names, literals and patterns.
  let pool: [UInt8]
  /// Headers that are asked for, in the pool.
  let headers: [Range<Int>]
  /// Of IN.
  let literals: [FilterValue]
  let patterns: [LikePattern]

  /// Compiles a text.
  public init(_ text: [UInt8]) throws(FilterError) {
    var compiler = try FilterCompiler(text)
    try compiler.compile()
    operations = compiler.operations
    pool = compiler.pool
    headers = compiler.headers
    literals = compiler.literals
    patterns = compiler.patterns
  }

  /// About how much memory it takes.
  public var bytes: Int {
    256 + operations.count * MemoryLayout<FilterOperation>.stride + pool.count
      + headers.count * MemoryLayout<Range<Int>>.stride
      + literals.count * MemoryLayout<FilterValue>.stride + patterns.reduce(0) { $0 + $1.bytes }
  }

  /// Whether it is true of a message, not false nor unknown. Adds to `steps` about how many look-ups
  /// elsewhere in routing that costs. Properties may be damaged: what cannot be read is not there.
  public func matches(_ message: FilteredMessage, steps: inout Int) -> Bool {
    truth(of: message, steps: &steps) == true
  }

  /// The same, and whether it is false or, if nil, unknown.
  public func truth(of message: FilteredMessage, steps: inout Int) -> Bool? {
    let pool = pool
    var evaluation = FilterEvaluation(message, pool: pool.span.bytes)
    let result = evaluation.run(self)
    steps += evaluation.steps
    return result
  }
}
