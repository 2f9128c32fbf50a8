import Base

/// A word of a filter's text.
struct FilterToken {
  enum Kind: Equatable {
    case keyword(Keyword)
    /// A name without quotes.
    case name([UInt8])
    /// A name in double quotes, which are gone.
    case quotedName([UInt8])
    case string([UInt8])
    /// Without a sign: one more than the largest exact number can be negated.
    case exact(UInt64)
    case approximate(Double)
    case comparison(Comparison)
    case plus, minus, star, slash, open, close, comma, dot
    case end
  }

  enum Keyword: String, CaseIterable {
    case and, or, not, between, `in`, like, escape, `is`, null, `true`, `false`
  }

  let kind: Kind
  /// Its bytes in the text.
  let range: Range<Int>
}

/// Takes a filter's text apart.
struct FilterLexer {
  let text: [UInt8]
  private var offset = 0

  init(_ text: [UInt8]) throws(FilterError) {
    self.text = text
    guard text.count <= FilterLimits.bytesMax else {
      throw FilterError(
        column: 1,
        problem: "the filter has \(text.count) bytes, more than \(FilterLimits.bytesMax)")
    }
    var parser = Unicode.UTF8.ForwardParser()
    var bytes = text.makeIterator()
    var column = 1
    while true {
      switch parser.parseScalar(from: &bytes) {
      case .valid: column += 1
      case .emptyInput: return
      case .error: throw FilterError(column: column, problem: "the filter is not UTF-8 here")
      }
    }
  }

  func error(at offset: Int, _ problem: String) -> FilterError {
    let before = text[..<offset].count { $0 & 0b1100_0000 != 0b1000_0000 }
    return FilterError(column: before + 1, problem: problem)
  }

  /// The text of a token as an error shows it.
  func words(_ token: FilterToken) -> String {
    guard token.kind != .end else { return "the end" }
    let shown = String(decoding: text[token.range], as: UTF8.self)
    return shown.count <= 32 ? shown : shown.prefix(32) + "..."
  }

  mutating func next() throws(FilterError) -> FilterToken {
    while let byte = peek(), byte == 0x20 || 0x09...0x0D ~= byte { offset += 1 }
    let start = offset
    guard let first = peek() else { return FilterToken(kind: .end, range: start..<start) }
    let kind: FilterToken.Kind
    switch first {
    case UInt8(ascii: "'"): kind = .string(try quoted(by: first, "the string"))
    case UInt8(ascii: "\""): kind = .quotedName(try quoted(by: first, "the name"))
    case _ where Self.isDigit(first): kind = try number()
    case UInt8(ascii: ".") where peek(1).map(Self.isDigit) == true: kind = try number()
    case _ where Self.beginsName(first): kind = word()
    default: kind = try symbol(first)
    }
    return FilterToken(kind: kind, range: start..<offset)
  }

  private func peek(_ distance: Int = 0) -> UInt8? {
    offset + distance < text.count ? text[offset + distance] : nil
  }

  private static func isDigit(_ byte: UInt8) -> Bool { 0x30...0x39 ~= byte }

  private static func beginsName(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "_"), UInt8(ascii: "$"), 0x80...:
      true
    default: false
    }
  }

  /// What is between quotes, of which two stand for one.
  private mutating func quoted(by quote: UInt8, _ what: String) throws(FilterError) -> [UInt8] {
    let start = offset
    offset += 1
    var bytes: [UInt8] = []
    while let byte = peek() {
      offset += 1
      if byte == quote {
        guard peek() == quote else { return bytes }
        offset += 1
      }
      bytes.append(byte)
    }
    throw error(at: start, "\(what) that begins here has no end")
  }

  private mutating func word() -> FilterToken.Kind {
    let start = offset
    while let byte = peek(), Self.beginsName(byte) || Self.isDigit(byte) { offset += 1 }
    let bytes = Array(text[start..<offset])
    let keyword = FilterToken.Keyword(
      rawValue: String(decoding: bytes, as: UTF8.self).lowercased())
    return keyword.map { .keyword($0) } ?? .name(bytes)
  }

  private mutating func skipDigits() {
    while let byte = peek(), Self.isDigit(byte) { offset += 1 }
  }

  private mutating func number() throws(FilterError) -> FilterToken.Kind {
    let start = offset
    var isExact = true
    skipDigits()
    if peek() == UInt8(ascii: ".") {
      isExact = false
      offset += 1
      skipDigits()
    }
    if let byte = peek(), byte | 0x20 == UInt8(ascii: "e") {
      let sign = peek(1) == UInt8(ascii: "+") || peek(1) == UInt8(ascii: "-") ? 1 : 0
      guard peek(1 + sign).map(Self.isDigit) == true else {
        throw error(at: offset, "expected digits behind the exponent's E")
      }
      isExact = false
      offset += 1 + sign
      skipDigits()
    }
    if let byte = peek(), Self.beginsName(byte) {
      throw error(at: offset, "a name cannot begin right behind a number")
    }
    let digits = String(decoding: text[start..<offset], as: UTF8.self)
    if isExact {
      guard let value = UInt64(digits), value <= 1 << 63 else {
        throw error(at: start, "the number needs more than 64 bits")
      }
      return .exact(value)
    }
    // A digit on each side of the point, as the library wants it.
    guard let value = Double("0" + digits.replacingPoint), value.isFinite else {
      throw error(at: start, "the number is too large")
    }
    return .approximate(value)
  }

  private mutating func symbol(_ first: UInt8) throws(FilterError) -> FilterToken.Kind {
    let second = peek(1)
    offset += 1
    switch first {
    case UInt8(ascii: "+"): return .plus
    case UInt8(ascii: "-"): return .minus
    case UInt8(ascii: "*"): return .star
    case UInt8(ascii: "/"): return .slash
    case UInt8(ascii: "("): return .open
    case UInt8(ascii: ")"): return .close
    case UInt8(ascii: ","): return .comma
    case UInt8(ascii: "."): return .dot
    case UInt8(ascii: "="): return .comparison(.equal)
    case UInt8(ascii: "<"):
      if second == UInt8(ascii: "=") { return paired(.lessOrEqual) }
      if second == UInt8(ascii: ">") { return paired(.different) }
      return .comparison(.less)
    case UInt8(ascii: ">"):
      return second == UInt8(ascii: "=") ? paired(.greaterOrEqual) : .comparison(.greater)
    case UInt8(ascii: "!") where second == UInt8(ascii: "="):
      throw error(at: offset - 1, "unequal is written <>")
    default:
      let isPrinted = first >= 0x20 && first != 0x7F
      let shown = isPrinted ? "'\(Character(Unicode.Scalar(first)))'" : "byte \(first)"
      throw error(at: offset - 1, "\(shown) means nothing here")
    }
  }

  private mutating func paired(_ comparison: Comparison) -> FilterToken.Kind {
    offset += 1
    return .comparison(comparison)
  }
}

extension String {
  /// "7." as "7.0".
  fileprivate var replacingPoint: String {
    guard let point = firstIndex(of: ".") else { return self }
    let behind = index(after: point)
    let hasDigit = behind < endIndex && self[behind].isNumber
    return hasDigit ? self : self[..<behind] + "0" + self[behind...]
  }
}
