import Base

/// Makes operations of a text, in one pass over its words. What comes of each part is known as far as the text
/// alone shows it, so that what can never be right is told at once.
struct FilterCompiler {
  /// What a part of the text has for a value.
  enum Kind: String {
    case unknown
    case condition = "a condition"
    case number = "a number"
    case string = "a string"
  }

  private(set) var operations: [FilterOperation] = []
  var pool: [UInt8] = []
  private(set) var headers: [Range<Int>] = []
  var literals: [FilterValue] = []
  var patterns: [LikePattern] = []
  private var lexer: FilterLexer
  var token: FilterToken
  /// Values on the stack where the next operation begins.
  private var stackDepth = 0
  private var nesting = 0

  init(_ text: [UInt8]) throws(FilterError) {
    lexer = try FilterLexer(text)
    token = try lexer.next()
  }

  mutating func compile() throws(FilterError) {
    try condition { (compiler) throws(FilterError) in try compiler.disjunction() }
    guard token.kind == .end else { throw expected("an operator or the end") }
  }

  // MARK: Words

  mutating func advance() throws(FilterError) { token = try lexer.next() }

  mutating func take(_ kind: FilterToken.Kind) throws(FilterError) -> Bool {
    guard token.kind == kind else { return false }
    try advance()
    return true
  }

  mutating func require(_ kind: FilterToken.Kind, _ words: String) throws(FilterError) {
    guard try take(kind) else { throw expected(words) }
  }

  func expected(_ words: String) -> FilterError {
    let got = lexer.words(token)
    return error("expected \(words), got \(token.kind == .end ? got : "'\(got)'")")
  }

  func error(_ problem: String, at offset: Int? = nil) -> FilterError {
    lexer.error(at: offset ?? token.range.lowerBound, problem)
  }

  /// Goes one level deeper for what `body` reads.
  mutating func nested(
    _ body: (inout FilterCompiler) throws(FilterError) -> Kind
  ) throws(FilterError) -> Kind {
    nesting += 1
    guard nesting <= FilterLimits.depthMax else { throw tooDeep }
    let kind = try body(&self)
    nesting -= 1
    return kind
  }

  private var tooDeep: FilterError {
    error("the filter is nested deeper than \(FilterLimits.depthMax)")
  }

  // MARK: Operations

  /// Appends an operation that takes so many values and leaves one.
  mutating func emit(_ operation: FilterOperation, takes count: Int) throws(FilterError) {
    stackDepth += 1 - count
    guard stackDepth <= FilterLimits.depthMax else { throw tooDeep }
    try checkSize()
    operations.append(operation)
  }

  /// Literals of IN count as well.
  func checkSize() throws(FilterError) {
    guard operations.count + literals.count < FilterLimits.operationsMax else {
      throw error("the filter has more than \(FilterLimits.operationsMax) operations")
    }
  }

  mutating func addToPool(_ bytes: [UInt8]) -> Range<Int> {
    pool += bytes
    return pool.count - bytes.count..<pool.count
  }

  mutating func header(_ name: [UInt8], at start: Int) throws(FilterError) {
    guard name.count <= Name.sizeMax else {
      throw error("a header's name has at most \(Name.sizeMax) bytes", at: start)
    }
    var index = headers.firstIndex { pool[$0].elementsEqual(name) }
    if index == nil {
      guard headers.count < FilterLimits.headersMax else {
        throw error("the filter names more than \(FilterLimits.headersMax) headers", at: start)
      }
      index = headers.count
      headers.append(addToPool(name))
    }
    try emit(.header(UInt8(index ?? 0)), takes: 0)
  }

  // MARK: Conditions

  /// Reads a part that must be a condition.
  private mutating func condition(
    _ body: (inout FilterCompiler) throws(FilterError) -> Kind
  ) throws(FilterError) {
    let start = token.range.lowerBound
    let kind = try body(&self)
    guard kind == .condition || kind == .unknown else {
      throw error("expected a condition, got \(kind.rawValue)", at: start)
    }
  }

  /// Parts with OR between them.
  mutating func disjunction() throws(FilterError) -> Kind {
    try chain(.or) { (compiler) throws(FilterError) in try compiler.conjunction() }
  }

  private mutating func conjunction() throws(FilterError) -> Kind {
    try chain(.and) { (compiler) throws(FilterError) in try compiler.negation() }
  }

  private mutating func chain(
    _ keyword: FilterToken.Keyword, _ part: (inout FilterCompiler) throws(FilterError) -> Kind
  ) throws(FilterError) -> Kind {
    let start = token.range.lowerBound
    let kind = try part(&self)
    guard token.kind == .keyword(keyword) else { return kind }
    guard kind == .condition || kind == .unknown else {
      throw error("expected a condition, got \(kind.rawValue)", at: start)
    }
    while try take(.keyword(keyword)) {
      let skip = operations.count
      try emit(.skipIfTrue(to: 0), takes: 1)
      try condition(part)
      try emit(keyword == .or ? .or : .and, takes: 2)
      let end = UInt16(operations.count)
      operations[skip] = keyword == .or ? .skipIfTrue(to: end) : .skipIfFalse(to: end)
    }
    return .condition
  }

  private mutating func negation() throws(FilterError) -> Kind {
    guard try take(.keyword(.not)) else { return try comparison() }
    return try nested { (compiler) throws(FilterError) in
      try compiler.condition { (compiler) throws(FilterError) in try compiler.negation() }
      try compiler.emit(.not, takes: 1)
      return .condition
    }
  }

  private mutating func comparison() throws(FilterError) -> Kind {
    let start = token.range.lowerBound
    let left = try sum()
    if case .comparison(let comparison) = token.kind {
      try compare(left, comparison)
      return .condition
    }
    if try take(.keyword(.is)) {
      let isNegated = try take(.keyword(.not))
      try require(.keyword(.null), isNegated ? "NULL" : "NULL or NOT NULL")
      try emit(.isNull(isNegated: isNegated), takes: 1)
      return .condition
    }
    let isNegated = try take(.keyword(.not))
    switch token.kind {
    case .keyword(.between): try between(left, isNegated: isNegated)
    case .keyword(.in): try membership(isNegated: isNegated)
    case .keyword(.like): try like(left, from: start, isNegated: isNegated)
    default:
      guard isNegated else { return left }
      throw expected("BETWEEN, IN or LIKE behind NOT")
    }
    return .condition
  }

  private mutating func compare(
    _ left: Kind, _ comparison: Comparison
  ) throws(FilterError) {
    let place = token.range.lowerBound
    try advance()
    let right = try sum()
    try check(left, right, at: place)
    if !comparison.isEquality, left == .condition || right == .condition {
      throw error("conditions have no order", at: place)
    }
    try emit(.compare(comparison), takes: 2)
  }

  private func check(_ left: Kind, _ right: Kind, at place: Int) throws(FilterError) {
    guard left == right || left == .unknown || right == .unknown else {
      throw error("\(left.rawValue) is never like \(right.rawValue)", at: place)
    }
  }

  private mutating func between(_ left: Kind, isNegated: Bool) throws(FilterError) {
    let place = token.range.lowerBound
    try advance()
    let low = try sum()
    try require(.keyword(.and), "AND")
    let high = try sum()
    try check(left, low, at: place)
    try check(left, high, at: place)
    if left == .condition || low == .condition || high == .condition {
      throw error("conditions have no order", at: place)
    }
    try emit(.between(isNegated: isNegated), takes: 3)
  }

  // MARK: Values

  private mutating func sum() throws(FilterError) -> Kind {
    try operators([.plus: .add, .minus: .subtract]) { (compiler) throws(FilterError) in
      try compiler.product()
    }
  }

  private mutating func product() throws(FilterError) -> Kind {
    try operators([.star: .multiply, .slash: .divide]) { (compiler) throws(FilterError) in
      try compiler.signed()
    }
  }

  private mutating func operators(
    _ all: KeyValuePairs<FilterToken.Kind, Arithmetic>,
    _ part: (inout FilterCompiler) throws(FilterError) -> Kind
  ) throws(FilterError) -> Kind {
    let start = token.range.lowerBound
    var kind = try part(&self)
    while let found = all.first(where: { $0.key == token.kind }) {
      try checkNumber(kind, at: start)
      try advance()
      try number(part)
      try emit(.arithmetic(found.value), takes: 2)
      kind = .number
    }
    return kind
  }

  private func checkNumber(_ kind: Kind, at start: Int) throws(FilterError) {
    guard kind == .number || kind == .unknown else {
      throw error("expected a number, got \(kind.rawValue)", at: start)
    }
  }

  private mutating func number(
    _ body: (inout FilterCompiler) throws(FilterError) -> Kind
  ) throws(FilterError) {
    let start = token.range.lowerBound
    try checkNumber(try body(&self), at: start)
  }

  private mutating func signed() throws(FilterError) -> Kind {
    let start = token.range.lowerBound
    let isNegated = token.kind == .minus
    guard isNegated || token.kind == .plus else { return try value() }
    try advance()
    if case .exact(let magnitude) = token.kind {
      try emit(.exact(try exact(magnitude, isNegated: isNegated, at: start)), takes: 0)
      try advance()
      return .number
    }
    return try nested { (compiler) throws(FilterError) in
      try compiler.number { (compiler) throws(FilterError) in try compiler.signed() }
      try compiler.emit(isNegated ? .negate : .mustBeNumber, takes: 1)
      return .number
    }
  }

  func exact(
    _ magnitude: UInt64, isNegated: Bool, at start: Int
  ) throws(FilterError) -> Int64 {
    if isNegated { return Int64(truncatingIfNeeded: 0 &- magnitude) }
    guard let value = Int64(exactly: magnitude) else {
      throw error("the number needs more than 64 bits", at: start)
    }
    return value
  }
}
