import Base

/// Names, literals and the lists of literals.
extension FilterCompiler {
  mutating func value() throws(FilterError) -> Kind {
    let start = token.range.lowerBound
    switch token.kind {
    case .exact(let magnitude):
      try emit(.exact(try exact(magnitude, isNegated: false, at: start)), takes: 0)
    case .approximate(let value): try emit(.approximate(value), takes: 0)
    case .string(let bytes):
      try emit(.text(TextPlace(.pool, addToPool(bytes))), takes: 0)
      try advance()
      return .string
    case .keyword(.true), .keyword(.false):
      try emit(.boolean(token.kind == .keyword(.true)), takes: 0)
      try advance()
      return .condition
    case .quotedName(let name):
      try header(name, at: start)
      try advance()
      return .unknown
    case .name(let name):
      try advance()
      return try named(name, at: start)
    case .open:
      try advance()
      let kind = try nested { (compiler) throws(FilterError) in try compiler.disjunction() }
      try require(.close, "an operator or ')'")
      return kind
    default: throw expected("a value")
    }
    try advance()
    return .number
  }

  /// What is behind the name is the next word.
  private mutating func named(_ name: [UInt8], at start: Int) throws(FilterError) -> Kind {
    let text = String(decoding: name, as: UTF8.self)
    guard try take(.dot) else {
      switch text {
      case "exchange": try emit(.exchange, takes: 0)
      case "routing_key": try emit(.routingKey, takes: 0)
      case "body": try emit(.body, takes: 0)
      default:
        try header(name, at: start)
        return .unknown
      }
      return .string
    }
    guard text == "p" || text == "properties" else {
      throw error(
        "only p. and properties. stand before a name; a header with dots goes in double quotes",
        at: start)
    }
    guard let word = propertyWord, let property = FilterProperty(rawValue: word) else {
      let all = FilterProperty.allCases.map(\.rawValue).joined(separator: ", ")
      throw error("expected a property: \(all)")
    }
    try advance()
    try emit(.property(property), takes: 0)
    return property.isNumber ? .number : .string
  }

  private var propertyWord: String? {
    if case .name(let bytes) = token.kind { String(decoding: bytes, as: UTF8.self) } else { nil }
  }

  // MARK: Lists and patterns

  /// IN and its literals.
  mutating func membership(isNegated: Bool) throws(FilterError) {
    try advance()
    try require(.open, "'('")
    let first = literals.count
    repeat {
      try checkSize()
      literals.append(try literal())
    } while try take(.comma)
    try require(.close, "',' or ')'")
    try emit(
      .isIn(
        first: UInt16(first), count: UInt16(literals.count - first), isNegated: isNegated),
      takes: 1)
  }

  private mutating func literal() throws(FilterError) -> FilterValue {
    let start = token.range.lowerBound
    let isNegated = token.kind == .minus
    let isSigned = isNegated || token.kind == .plus
    if isSigned { try advance() }
    let value: FilterValue
    switch token.kind {
    case .exact(let magnitude):
      value = .exact(try exact(magnitude, isNegated: isNegated, at: start))
    case .approximate(let real): value = .approximate(isNegated ? -real : real)
    case .string(let bytes) where !isSigned: value = .text(TextPlace(.pool, addToPool(bytes)))
    case .keyword(.true) where !isSigned: value = .boolean(true)
    case .keyword(.false) where !isSigned: value = .boolean(false)
    default: throw expected("a literal")
    }
    try advance()
    return value
  }

  /// LIKE, its pattern and its escape character. `start` is where what is compared begins.
  mutating func like(_ left: Kind, from start: Int, isNegated: Bool) throws(FilterError) {
    guard left == .string || left == .unknown else {
      throw error("expected a string, got \(left.rawValue)", at: start)
    }
    try advance()
    let place = token.range.lowerBound
    guard case .string(let bytes) = token.kind else { throw expected("a pattern, as a string") }
    try advance()
    var escape: [UInt8]?
    if try take(.keyword(.escape)) {
      guard case .string(let character) = token.kind, isOneCharacter(character) else {
        throw expected("one character, not % nor _, as a string")
      }
      escape = character
      try advance()
    }
    do throws(LikePattern.Problem) {
      patterns.append(try LikePattern(bytes, escape: escape, pool: &pool))
    } catch {
      switch error {
      case .escape:
        throw self.error(
          "in the pattern, %, _ or the escape character must follow the escape character",
          at: place)
      case .longStretch:
        throw self.error(
          "the pattern has more than \(FilterLimits.stretchBytesMax) bytes with a _ between two %",
          at: place)
      }
    }
    try emit(.like(pattern: UInt16(patterns.count - 1), isNegated: isNegated), takes: 1)
  }

  private func isOneCharacter(_ bytes: [UInt8]) -> Bool {
    bytes != [UInt8(ascii: "%")] && bytes != [UInt8(ascii: "_")]
      && bytes.count { $0 & 0b1100_0000 != 0b1000_0000 } == 1
  }
}
